// SPDX-License-Identifier: MPL-2.0

//! Video frames as planes of components: reading and writing alpha, tinting, and conversion to small RGB pictures.

use glib::BoolError;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::video_frame::Writable;
use gstreamer_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorimetry, VideoFormat, VideoFormatInfo, VideoFrame,
    VideoFrameFlags, VideoFrameRef, VideoInfo, VideoInterlaceMode, VideoMeta, VideoTransferFunction,
};

use super::process_error::ProcessError;
use crate::image::{
    Colors, Component as Samples, FrameSource, Picture, PlaneFormat, PlaneMut, Planes, Region, SamplesMut,
};
use crate::matte::Guide;

/// Strength of the tint of objects, of 255.
pub const TINT: u8 = 140;
/// Pixels up to which frames are converted by one thread; for small frames, waking others costs more than it
/// saves.
const MAX_SINGLE_THREADED: u32 = 1920 * 1088;
const MAX_THREADS: usize = 4;
/// Factor of reduction above which the resampler uses only [`TAPS`] taps; with all taps, GStreamer takes twice to
/// six times as long.
const MIN_FACTOR_FOR_TAPS: f64 = 2.5;
const TAPS: u32 = 4;

/// A writable frame.
pub type FrameMut<'a> = VideoFrameRef<&'a mut gst::BufferRef>;
/// A readable frame.
pub type Frame<'a> = VideoFrameRef<&'a gst::BufferRef>;

/// Checks a buffer's `GstVideoMeta`, if it has one: it must have the width and height of the caps, because others describe
/// padding beyond the picture, for which downstream would need crop metas. Its planes must lie within the buffer, which GStreamer
/// does not check.
///
/// # Errors
/// The format or size differs, a plane is too long, or a stride is 0.
pub fn check_meta(buffer: &gst::BufferRef, info: &VideoInfo) -> Result<(), BoolError> {
    let Some(meta) = buffer.meta::<VideoMeta>() else { return Ok(()) };
    if meta.format() != info.format() || meta.n_planes() < info.n_planes() {
        return Err(glib::bool_error!(
            "the buffer's video meta has the format {} with {} planes, and its caps {}",
            meta.format(),
            meta.n_planes(),
            info.format()
        ));
    }
    let (actual, expected) = ((meta.width(), meta.height()), (info.width(), info.height()));
    if actual != expected {
        return Err(glib::bool_error!(
            "the buffer's video meta has {}x{} pixels, and its caps {}x{}: give both the same size",
            actual.0,
            actual.1,
            expected.0,
            expected.1
        ));
    }
    let format = info.format_info();
    let components = 0..format.n_components() as usize;
    // Strides of tiled formats count tiles.
    if format.is_tiled() || components.clone().all(|component| fits(buffer, &meta, info, component)) {
        return Ok(());
    }
    Err(glib::bool_error!(
        "the strides {:?} and offsets {:?} of the buffer's video meta do not fit its {} bytes",
        meta.stride(),
        meta.offset(),
        buffer.size()
    ))
}

/// Bytes of the palette of a format that has one.
const PALETTE: i64 = 4 * 256;

/// Whether all samples of a component lie within the memory of its plane.
fn fits(buffer: &gst::BufferRef, meta: &VideoMeta, info: &VideoInfo, component: usize) -> bool {
    let format = info.format_info();
    let plane = format.plane()[component] as usize;
    let (stride, start) = (i64::from(meta.stride()[plane]), meta.offset()[plane]);
    let Some((memories, skipped)) = start.checked_add(1).and_then(|end| buffer.find_memory(start..end))
    else {
        return false;
    };
    let size = buffer.peek_memory(memories.start).size() as i64 - skipped as i64;
    if format.has_palette() && component > 0 {
        return size >= PALETTE;
    }
    let last_row = stride * (i64::from(info.comp_height(component as u8)) - 1);
    // Of complex formats, only the first byte of a row is known.
    let row = if format.is_complex() {
        1
    } else {
        let step = i64::from(format.pixel_stride()[component]);
        let sample = i64::from((format.depth()[component] + format.shift()[component]).div_ceil(8));
        i64::from(format.poffset()[component])
            + (i64::from(info.comp_width(component as u8)) - 1) * step
            + sample
    };
    stride != 0 && last_row.max(0) + row <= size && last_row.min(0) + skipped as i64 >= 0
}

/// Whether each sample of a component is a separate byte or 16-bit word.
pub fn is_plain(info: &VideoFormatInfo, component: usize) -> bool {
    let (depth, shift) = (info.depth()[component], info.shift()[component]);
    let stride = info.pixel_stride()[component];
    let bytes = depth == 8 && shift == 0;
    // GStreamer's table has the V of P010 at an odd offset, where no word can be.
    let words =
        depth > 8 && depth + shift <= 16 && stride % 2 == 0 && info.poffset()[component].is_multiple_of(2);
    let place = |c: usize| (info.plane()[c], info.poffset()[c]);
    let alone = (0..info.n_components() as usize).all(|c| c == component || place(c) != place(component));
    (bytes || words) && alone && stride > 0 && !info.is_complex() && !info.is_tiled() && !info.has_palette()
}

/// Whether the format has alpha that can be written. GStreamer 1.22 does not flag the alpha of AV12, so the number
/// of components decides.
pub fn has_plain_alpha(info: &VideoFormatInfo) -> bool {
    info.n_components() == 4 && is_plain(info, 3)
}

/// Whether the format has alpha, writable or not.
pub fn has_alpha(info: &VideoFormatInfo) -> bool {
    info.has_alpha() || has_plain_alpha(info)
}

/// Whether all components but alpha have the same planes and locations in `a` and `b`, so that only the alpha of
/// `b` has to be written.
pub fn colors_in_place(a: &VideoFormatInfo, b: &VideoFormatInfo) -> bool {
    has_plain_alpha(b)
        && a.n_planes() == b.n_planes()
        && same_layout(a, b)
        && (0..3).all(|c| a.plane()[c] == b.plane()[c])
}

/// If `b` is `a` with an appended alpha plane, returns which plane of `a` each other plane of `b` is.
pub fn appended_planes(a: &VideoFormatInfo, b: &VideoFormatInfo) -> Option<Vec<usize>> {
    let planes = a.n_planes() as usize;
    let fits = a.n_components() == 3
        && has_plain_alpha(b)
        && b.n_planes() as usize == planes + 1
        && b.plane()[3] as usize == planes
        && same_layout(a, b);
    fits.then(|| {
        let mut order = vec![0; planes];
        for c in 0..3 {
            order[b.plane()[c] as usize] = a.plane()[c] as usize;
        }
        order
    })
}

/// Whether the colours are of the same kind and stored alike within their planes.
fn same_layout(a: &VideoFormatInfo, b: &VideoFormatInfo) -> bool {
    let component = |info: &VideoFormatInfo, c: usize| {
        (
            (info.pixel_stride()[c], info.poffset()[c], info.depth()[c], info.shift()[c]),
            (info.w_sub()[c], info.h_sub()[c]),
        )
    };
    a.n_components() >= 3
        && a.is_yuv() == b.is_yuv()
        && a.is_rgb() == b.is_rgb()
        && little_endian(a) == little_endian(b)
        && a.is_tiled() == b.is_tiled()
        && a.is_complex() == b.is_complex()
        && (0..3).all(|c| component(a, c) == component(b, c))
}

/// Byte order of words; irrelevant for bytes.
fn little_endian(info: &VideoFormatInfo) -> bool {
    match info.format() {
        VideoFormat::Argb64 | VideoFormat::Ayuv64 => cfg!(target_endian = "little"),
        // GStreamer does not flag this format.
        VideoFormat::V216 => true,
        _ if info.depth()[0] <= 8 => true,
        _ => info.is_le(),
    }
}

/// Returns the bytes from one row of a plane to the next.
///
/// # Errors
/// The frame is stored upside down.
fn row_length<T>(frame: &VideoFrameRef<T>, plane: u32) -> Result<usize, BoolError> {
    usize::try_from(frame.plane_stride()[plane as usize])
        .map_err(|_| glib::bool_error!("Frames that are stored upside down are not supported"))
}

/// Location and storage of the samples of one component of a frame.
pub struct Component<'a> {
    data: &'a mut [u8],
    pub width: usize,
    pub height: usize,
    row: usize,
    pixel: usize,
    offset: usize,
    pub depth: u32,
    shift: u32,
    little_endian: bool,
}

impl<'a> Component<'a> {
    /// # Errors
    /// The frame cannot be mapped.
    pub fn of(frame: &'a mut FrameMut, component: u32) -> Result<Self, BoolError> {
        let format = frame.format_info();
        let index = component as usize;
        let plane = format.plane()[index];
        let row = row_length(frame, plane)?;
        let info = frame.info();
        Ok(Self {
            width: info.comp_width(component as u8) as usize,
            height: info.comp_height(component as u8) as usize,
            row,
            pixel: format.pixel_stride()[index] as usize,
            offset: format.poffset()[index] as usize,
            depth: format.depth()[index],
            shift: format.shift()[index],
            little_endian: little_endian(&format),
            data: frame.plane_data_mut(plane)?,
        })
    }

    fn is_plane_of_bytes(&self) -> bool {
        self.pixel == 1 && self.offset == 0 && self.depth == 8
    }

    /// The samples, if each is a byte.
    pub fn bytes(&mut self) -> Option<SamplesMut<'_>> {
        let Self { width, height, row: stride, pixel: step, .. } = *self;
        let data = self.data.get_mut(self.offset..).filter(|_| self.depth == 8 && self.shift == 0)?;
        Some(SamplesMut { data, width, height, stride, step })
    }

    /// Replaces each sample by `change(x, y, sample)`; samples have the depth of the component.
    pub fn update(&mut self, mut change: impl FnMut(usize, usize, i32) -> i32) {
        let Self { width, height, pixel, offset, depth, shift, little_endian, .. } = *self;
        let bytes = if depth > 8 { 2 } else { 1 };
        for (y, row) in self.data.chunks_mut(self.row.max(1)).take(height).enumerate() {
            let samples = row.get_mut(offset..).unwrap_or_default().chunks_mut(pixel).take(width);
            for (x, sample) in samples.enumerate().filter(|(_, sample)| sample.len() >= bytes) {
                if bytes == 1 {
                    sample[0] = change(x, y, i32::from(sample[0])) as u8;
                } else {
                    let word = [sample[0], sample[1]];
                    let word =
                        if little_endian { u16::from_le_bytes(word) } else { u16::from_be_bytes(word) };
                    let value = change(x, y, i32::from(word >> shift)) as u16;
                    let word = value << shift;
                    let word = if little_endian { word.to_le_bytes() } else { word.to_be_bytes() };
                    sample[..2].copy_from_slice(&word);
                }
            }
        }
    }
}

/// Multiplies a component of a frame, without subsampling, by `matte`, packed rows of one byte per pixel.
///
/// # Errors
/// The frame cannot be mapped.
pub fn multiply(frame: &mut FrameMut, component: u32, matte: &[u8]) -> Result<(), ProcessError> {
    let mut component = Component::of(frame, component)?;
    let width = component.width;
    if let Some(mut samples) = component.bytes() {
        return Ok(samples.multiply(matte)?);
    }
    // Bits beyond the depth are ignored.
    let largest = (1 << component.depth) - 1;
    component.update(|x, y, value| ((value & largest) * i32::from(matte[y * width + x]) + 127) / 255);
    Ok(())
}

/// Multiplies the colours of an RGB frame by its alpha. `alpha` is a buffer.
///
/// # Errors
/// The frame cannot be mapped.
pub fn premultiply(frame: &mut FrameMut, alpha: &mut Vec<u8>) -> Result<(), ProcessError> {
    alpha.clear();
    read_component(frame, 3, alpha)?;
    (0..3).try_for_each(|component| multiply(frame, component, alpha))
}

/// Reads the alpha of frames of one format.
pub struct AlphaReader {
    /// For alpha that is not stored as separate bytes or words.
    converter: Option<(gst_video::VideoConverter, VideoFrame<Writable>)>,
}

impl AlphaReader {
    /// # Errors
    /// The format cannot be converted.
    pub fn new(input: &VideoInfo) -> Result<Self, BoolError> {
        if has_plain_alpha(&input.format_info()) {
            return Ok(Self { converter: None });
        }
        let info = in_format(input, VideoFormat::Argb, (input.width(), input.height()))?;
        let buffer = gst::Buffer::with_size(info.size())?;
        let frame = VideoFrame::from_buffer_writable(buffer, &info)
            .map_err(|_| glib::bool_error!("Cannot map a frame to read its alpha"))?;
        Ok(Self { converter: Some((converter(input, &info)?, frame)) })
    }

    /// Reads packed rows of one byte per pixel.
    ///
    /// # Errors
    /// The frame cannot be mapped.
    pub fn read(&mut self, frame: &Frame, alpha: &mut Vec<u8>) -> Result<(), BoolError> {
        alpha.clear();
        match &mut self.converter {
            None => read_component(frame, 3, alpha),
            Some((converter, argb)) => {
                let mut argb = argb.as_mut_video_frame_ref();
                converter.frame_ref(frame, &mut argb);
                let stride = usize::try_from(argb.plane_stride()[0]).unwrap_or_default().max(1);
                let width = argb.width() as usize;
                for row in argb.plane_data(0)?.chunks(stride).take(argb.height() as usize) {
                    alpha.extend(row.iter().step_by(4).take(width));
                }
                correct_unpacked_alpha(&frame.format_info(), alpha);
                Ok(())
            }
        }
    }
}

/// Whether alpha has two bits. GStreamer 1.22 unpacks the largest value of them as 192.
pub fn has_two_bit_alpha(format: &VideoFormatInfo) -> bool {
    format.depth().get(3) == Some(&2)
}

/// Corrects alpha that GStreamer has converted to bytes from `format`.
pub fn correct_unpacked_alpha(format: &VideoFormatInfo, alpha: &mut [u8]) {
    if has_two_bit_alpha(format) {
        alpha.iter_mut().for_each(|alpha| *alpha = *alpha / 64 * 85);
    }
}

/// Appends the samples of a plain component as bytes.
///
/// # Errors
/// The frame cannot be mapped.
pub fn read_component<T>(
    frame: &VideoFrameRef<T>,
    component: usize,
    values: &mut Vec<u8>,
) -> Result<(), BoolError> {
    let (format, info) = (frame.format_info(), frame.info());
    let plane = format.plane()[component];
    let stride = row_length(frame, plane)?;
    let (width, height) =
        (info.comp_width(component as u8) as usize, info.comp_height(component as u8) as usize);
    let (pixel, offset) = (format.pixel_stride()[component] as usize, format.poffset()[component] as usize);
    let (depth, shift) = (format.depth()[component], format.shift()[component]);
    let little = little_endian(&format);
    values.reserve(width * height);
    for row in frame.plane_data(plane)?.chunks(stride.max(1)).take(height) {
        let samples = row.get(offset..).unwrap_or_default();
        if depth <= 8 {
            values.extend(samples.iter().step_by(pixel.max(1)).take(width));
        } else {
            values.extend(samples.chunks(pixel.max(1)).filter(|sample| sample.len() >= 2).take(width).map(
                |sample| {
                    let word = [sample[0], sample[1]];
                    let word = if little { u16::from_le_bytes(word) } else { u16::from_be_bytes(word) };
                    (word >> shift >> (depth - 8)) as u8
                },
            ));
        }
    }
    Ok(())
}

/// Calls `write` to fill the alpha of a frame, via `scratch` if the format does not store alpha as a plane of
/// bytes.
///
/// # Errors
/// Those of `write`, or the frame cannot be mapped.
pub fn write_alpha<E: From<BoolError>>(
    frame: &mut FrameMut,
    scratch: &mut Vec<u8>,
    write: impl FnOnce(&mut PlaneMut) -> Result<(), E>,
) -> Result<(), E> {
    let mut alpha = Component::of(frame, 3)?;
    let (width, height) = (alpha.width, alpha.height);
    if alpha.is_plane_of_bytes() {
        let stride = alpha.row;
        return write(&mut PlaneMut { data: alpha.data, width, height, stride });
    }
    scratch.resize(width * height, 0);
    write(&mut PlaneMut { data: scratch, width, height, stride: width })?;
    let depth = alpha.depth;
    alpha.update(|x, y, _| widen(scratch[y * width + x], depth));
    Ok(())
}

/// Luma, green or grey of a frame as a guide. `None` for formats that do not store it as separate bytes or words,
/// and for frames stored upside down.
pub fn guide<'a>(frame: &'a Frame) -> Option<Guide<'a>> {
    let format = frame.format_info();
    let component = usize::from(format.is_rgb());
    if !is_plain(&format, component) {
        return None;
    }
    let plane = format.plane()[component];
    let stride = usize::try_from(frame.plane_stride()[plane as usize]).ok()?;
    let data = frame.plane_data(plane).ok()?.get(format.poffset()[component] as usize..)?;
    let size = (frame.width() as usize, frame.height() as usize);
    let pixel = format.pixel_stride()[component] as usize;
    let (depth, shift) = (format.depth()[component], format.shift()[component]);
    if depth == 8 {
        Guide::bytes(data, size, stride, pixel)
    } else {
        Guide::words(data, size, (stride, pixel), depth + shift - 8, little_endian(&format))
    }
}

/// Writes bytes to a separate alpha plane of more than 8 bits; 255 becomes all ones.
pub fn widen_plane(values: &[u8], width: usize, info: &VideoInfo, plane: &mut [u8]) {
    let format = info.format_info();
    let mut component = Component {
        data: plane,
        width,
        height: values.len() / width.max(1),
        row: info.stride()[format.plane()[3] as usize] as usize,
        pixel: format.pixel_stride()[3] as usize,
        offset: format.poffset()[3] as usize,
        depth: format.depth()[3],
        shift: format.shift()[3],
        little_endian: little_endian(&format),
    };
    let depth = component.depth;
    component.update(|x, y, _| widen(values[y * width + x], depth));
}

/// Returns a byte with another depth, at least 8; 255 becomes all ones.
pub fn widen(value: u8, depth: u32) -> i32 {
    let value = u32::from(value);
    let wide = value << 8 | value;
    (wide >> (16 - depth)) as i32
}

/// Whether the samples of all colours are separate bytes or words, as [`Component`] needs them.
pub fn has_plain_colors(info: &VideoFormatInfo) -> bool {
    // GStreamer's table and its conversion disagree about which component of VYUY is V.
    info.format() != VideoFormat::Vyuy && (0..colors(info)).all(|c| is_plain(info, c))
}

/// Number of components that are colours.
pub fn colors(info: &VideoFormatInfo) -> usize {
    info.n_components().min(3) as usize
}

/// Mixes a colour (R, G, B) into a frame, weighted by `alpha`, rows of `width` bytes.
///
/// # Errors
/// The frame cannot be mapped.
pub fn tint(
    frame: &mut FrameMut,
    alpha: &[u8],
    width: usize,
    (color, strength): ([u8; 3], u8),
) -> Result<(), BoolError> {
    let format = frame.format_info();
    let target = samples(frame.info(), color);
    let rows = alpha.len() / width.max(1);
    for c in 0..colors(&format) {
        let (x_step, y_step) = (format.w_sub()[c], format.h_sub()[c]);
        let target = target[c];
        Component::of(frame, c as u32)?.update(|x, y, value| {
            let (x, y) = ((x << x_step).min(width - 1), (y << y_step).min(rows - 1));
            let weight = i64::from(alpha[y * width + x]) * i64::from(strength);
            value + (i64::from(target - value) * weight / (255 * 255)) as i32
        });
    }
    Ok(())
}

/// Linear light of SDR white in HDR video, relative to the largest value of the transfer function: 203 cd/m² (ITU-R BT.2408).
/// `None` for other video, whose transfer function is about that of sRGB.
fn hdr_white(colorimetry: &VideoColorimetry) -> Option<f64> {
    match colorimetry.transfer() {
        VideoTransferFunction::Smpte2084 => Some(203.0 / 10_000.0),
        // A signal of 75 %.
        VideoTransferFunction::AribStdB67 => Some(0.265),
        _ => None,
    }
}

/// Whether video is HDR.
pub fn is_hdr(colorimetry: &VideoColorimetry) -> bool {
    hdr_white(colorimetry).is_some()
}

/// Converts an sRGB colour, 0 to 1, to the transfer function and the primaries of HDR video. Colours of other video do not
/// change.
pub fn in_hdr(color: [f64; 3], colorimetry: &VideoColorimetry) -> [f64; 3] {
    /// From the primaries of BT.709 to those of BT.2020 (ITU-R BT.2087).
    const BT2020: [[f64; 3]; 3] =
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]];
    let Some(white) = hdr_white(colorimetry) else { return color };
    let linear = color.map(|value| VideoTransferFunction::Srgb.decode(value));
    let linear = match colorimetry.primaries() {
        VideoColorPrimaries::Bt2020 => {
            BT2020.map(|row| row.iter().zip(linear).map(|(factor, value)| factor * value).sum())
        }
        _ => linear,
    };
    linear.map(|value: f64| colorimetry.transfer().encode(white * value))
}

/// Converts an sRGB colour to samples of a format with its colorimetry: R, G, B or Y, U, V or grey.
pub fn samples(info: &VideoInfo, color: [u8; 3]) -> [i32; 3] {
    let format = info.format_info();
    let colorimetry = info.colorimetry();
    let [r, g, b] = in_hdr(color.map(|value| f64::from(value) / 255.0), &colorimetry);
    let (kr, kb) = colorimetry.matrix().kr_kb().unwrap_or((0.299, 0.114));
    let y = kr * r + (1.0 - kr - kb) * g + kb * b;
    let values =
        if format.is_rgb() { [r, g, b] } else { [y, (b - y) / (2.0 - 2.0 * kb), (r - y) / (2.0 - 2.0 * kr)] };
    let (offset, scale) = format.range_offsets(colorimetry.range());
    std::array::from_fn(|c| (values[c] * f64::from(scale[c])).round() as i32 + offset[c])
}

/// Converts regions of frames of one format to small RGB pictures.
///
/// `GstVideoConverter` can crop and resize in one step, but not correctly in every format: in some it miscounts
/// columns ([`can_crop`]). If it works with 16 bits, version 1.22 garbles pictures of which one side grows and the
/// other shrinks. From `I420` and some other formats, it copies a region that is enlarged to exactly the size of the
/// frame, instead of resizing it. In these cases, the whole frame is converted to RGB first. Interlaced frames are converted
/// as progressive ones, because the converter resizes their chroma at wrong places if it crops.
pub struct Shrinker {
    input: VideoInfo,
    can_crop: bool,
    can_resize: bool,
    /// Part of the frame that is converted to RGB first, and whether it is from the current frame.
    first: Option<(Small, bool)>,
    small: Option<Small>,
    /// As `small`, for [`FrameSource::overview`].
    overview: Option<Small>,
}

/// Converter of one region to one size, and its last picture.
struct Small {
    region: Region,
    converter: gst_video::VideoConverter,
    picture: VideoFrame<Writable>,
}

impl Shrinker {
    pub fn new(input: &VideoInfo) -> Self {
        let input = progressive(input).unwrap_or_else(|_| input.clone());
        let unpacked = VideoFormatInfo::from_format(input.format_info().unpack_format());
        // The slower path is correct in any case. Version 1.26 aborts the process when it crops MT2110R and MT2110T.
        let can_crop = !input.format_info().is_tiled() && can_crop(input.format()).unwrap_or(false);
        let can_resize = unpacked.depth()[0] == 8;
        Self { input, can_crop, can_resize, first: None, small: None, overview: None }
    }

    /// Invalidates the converted part of the previous frame.
    fn next_frame(&mut self) {
        if let Some((_, current)) = &mut self.first {
            *current = false;
        }
    }

    /// The part of a frame that has to be converted to RGB before `region` is cropped and resized.
    fn first_step(&self, region: Region, size: (usize, usize)) -> Option<Region> {
        let whole = (self.input.width() as usize, self.input.height() as usize);
        let all = Region::whole(whole);
        let crops = region == all || (self.can_crop && is_aligned(region, &self.input.format_info()));
        let is_copied = size == whole && region != all;
        // The whole frame, because the overview needs it as well.
        (!crops || !self.can_resize || is_copied).then_some(all)
    }

    /// Converts `region` to RGB at `size` (width, height) in pixels.
    ///
    /// # Errors
    /// The region is not inside the frame, or the format cannot be converted.
    fn shrink(
        &mut self,
        frame: &Frame,
        region: Region,
        size: (usize, usize),
        is_overview: bool,
    ) -> Result<Picture<'_>, BoolError> {
        let first_step = self.first_step(region, size);
        let remapped = frame.info().is_interlaced();
        let remapped =
            remapped.then(|| Frame::from_buffer_ref_readable(frame.buffer(), &self.input)).transpose()?;
        let frame = remapped.as_ref().unwrap_or(frame);
        let Self { input, first, small, overview, .. } = self;
        let small = if is_overview { overview } else { small };
        let first = match first_step {
            None => None,
            Some(part) => {
                let last = first.take().filter(|(last, _)| last.region == part);
                let (converted, current) = first.insert(match last {
                    Some(last) => last,
                    None => (Small::new(input, part, (part.width, part.height))?, false),
                });
                if !*current {
                    converted.convert(frame);
                    *current = true;
                }
                Some((&converted.picture, part))
            }
        };
        let fits = |small: &Small| {
            small.region == region
                && (small.picture.width() as usize, small.picture.height() as usize) == size
        };
        let last = match (small.take().filter(fits), first) {
            (Some(last), _) => last,
            (None, None) => Small::new(input, region, size)?,
            (None, Some((picture, part))) => {
                let within = Region { x: region.x - part.x, y: region.y - part.y, ..region };
                Small { region, ..Small::new(picture.info(), within, size)? }
            }
        };
        let small = small.insert(last);
        match first {
            Some((picture, _)) => small.convert(&picture.as_video_frame_ref()),
            None => small.convert(frame),
        }
        Ok(Picture {
            width: size.0,
            height: size.1,
            stride: small.picture.plane_stride()[0] as usize,
            data: small.picture.plane_data(0)?,
        })
    }
}

impl Small {
    fn new(input: &VideoInfo, region: Region, (width, height): (usize, usize)) -> Result<Self, BoolError> {
        let info = in_format(input, VideoFormat::Rgb, (width as u32, height as u32))?;
        let converter = part_converter(input, region, &info)?;
        let buffer = gst::Buffer::with_size(info.size())?;
        let picture = VideoFrame::from_buffer_writable(buffer, &info)
            .map_err(|_| glib::bool_error!("Cannot map a picture for the network"))?;
        Ok(Self { region, converter, picture })
    }

    fn convert<T>(&mut self, frame: &VideoFrameRef<T>) {
        self.converter.frame_ref(frame, &mut self.picture.as_mut_video_frame_ref());
    }
}

/// Whether a region begins at a sample of every component.
fn is_aligned(region: Region, format: &VideoFormatInfo) -> bool {
    let on = |at: usize, subsampling: &[u32]| subsampling.iter().all(|&shift| at.is_multiple_of(1 << shift));
    on(region.x, format.w_sub()) && on(region.y, format.h_sub())
}

/// Whether GStreamer's converter crops frames of this format correctly. It fails if the function that unpacks
/// lines miscounts the columns to skip: in 1.22 those for `v210`, `UYVP`, `RGBA64_LE`, `NV12_10LE32` and others.
/// The formats differ between versions, so the converter is tested on noise.
///
/// # Errors
/// The format cannot be converted.
fn can_crop(format: VideoFormat) -> Result<bool, BoolError> {
    const WIDTH: usize = 96;
    const HEIGHT: usize = 64;
    /// Pixels this close to the border of a region have chroma of pixels outside of it.
    const BORDER: usize = 8;
    let info = VideoInfo::builder(format, WIDTH as u32, HEIGHT as u32).build()?;
    let mut state = 1u32;
    let noise = (0..info.size()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let buffer = gst::Buffer::from_slice(noise.collect::<Vec<_>>());
    let frame = Frame::from_buffer_ref_readable(&buffer, &info)?;
    let convert = |region: Region| {
        let mut small = Small::new(&info, region, (region.width, region.height))?;
        small.convert(&frame);
        Ok::<_, BoolError>(small.picture)
    };
    // Columns are counted correctly from 0. A few rows are left out, because the converter may take faster paths
    // with other rounding for whole frames.
    let all = convert(Region { x: 0, y: 0, width: WIDTH, height: HEIGHT - 4 })?;
    let all = (all.plane_data(0)?, all.plane_stride()[0] as usize);
    for (x, y) in [(4, 0), (8, 4), (12, 8), (36, 4)] {
        let region = Region { x, y, width: 60, height: 48 };
        let part = convert(region)?;
        let part = (part.plane_data(0)?, part.plane_stride()[0] as usize);
        let row = |(data, stride): (&[u8], usize), x: usize, y: usize| {
            let start = y * stride + 3 * (x + BORDER);
            data[start..start + 3 * (region.width - 2 * BORDER)].to_vec()
        };
        if (BORDER..region.height - BORDER).any(|line| row(part, 0, line) != row(all, x, y + line)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A frame whose regions can be converted to RGB.
pub struct View<'a, 'b> {
    frame: &'a Frame<'b>,
    shrinker: &'a mut Shrinker,
}

impl<'a, 'b> View<'a, 'b> {
    /// View of `frame`, with the shrinker for its format.
    pub fn new(frame: &'a Frame<'b>, shrinker: &'a mut Shrinker) -> Self {
        shrinker.next_frame();
        Self { frame, shrinker }
    }
}

fn cannot_show(error: BoolError) -> crate::Error {
    crate::Error::Config(format!("a region of the frame cannot be converted: {error}"))
}

impl FrameSource for View<'_, '_> {
    fn size(&self) -> (usize, usize) {
        (self.frame.width() as usize, self.frame.height() as usize)
    }

    fn crop(&mut self, region: Region, size: (usize, usize)) -> crate::Result<Picture<'_>> {
        self.shrinker.shrink(self.frame, region, size, false).map_err(cannot_show)
    }

    fn overview(&mut self, region: Region, size: (usize, usize)) -> crate::Result<Picture<'_>> {
        self.shrinker.shrink(self.frame, region, size, true).map_err(cannot_show)
    }

    fn planes(&self) -> Option<Planes<'_>> {
        planes(self.frame)
    }
}

/// The planes of a frame as stored. `None` for formats whose components are not separate bytes, frames stored
/// upside down, interlaced frames, whose chroma belongs to fields, and formats with one sample of chroma for four
/// columns or rows.
fn planes<'a>(frame: &'a Frame) -> Option<Planes<'a>> {
    let (format, info) = (frame.format_info(), frame.info());
    let colors = colors(&format);
    let plain = |c: usize| is_plain(&format, c) && format.depth()[c] == 8;
    if !(format.is_rgb() || format.is_yuv()) || colors != 3 || !(0..3).all(plain) {
        return None;
    }
    // As in `has_plain_colors`.
    if format.format() == VideoFormat::Vyuy || info.interlace_mode() != VideoInterlaceMode::Progressive {
        return None;
    }
    let site = info.chroma_site();
    let cosited = (
        site.contains(gst_video::VideoChromaSite::H_COSITED),
        site.contains(gst_video::VideoChromaSite::V_COSITED),
    );
    let mut components = [Samples::default(); 3];
    for (c, component) in components.iter_mut().enumerate() {
        let plane = format.plane()[c] as usize;
        let subsampling = (format.w_sub()[c], format.h_sub()[c]);
        if subsampling.0.max(subsampling.1) > 1 {
            return None;
        }
        *component = Samples {
            plane,
            offset: format.poffset()[c] as usize,
            stride: usize::try_from(frame.plane_stride()[plane]).ok()?,
            step: format.pixel_stride()[c] as usize,
            subsampling,
            cosited: (cosited.0 && subsampling.0 > 0, cosited.1 && subsampling.1 > 0),
        };
    }
    let size = (frame.width() as usize, frame.height() as usize);
    // The slices of GStreamer's bindings have the padding of the last row, which may not be in the buffer.
    let data = (0..format.n_planes() as usize).map(|plane| {
        let ends = components.iter().filter(|component| component.plane == plane);
        match ends.map(|component| component.end(size)).max() {
            Some(end) => frame.plane_data(plane as u32).ok()?.get(..end),
            // It has no colours.
            None => Some(&[][..]),
        }
    });
    let data = data.collect::<Option<Vec<_>>>()?;
    let colorimetry = info.colorimetry();
    let (offset, scale) = format.range_offsets(colorimetry.range());
    let weights = format.is_yuv().then(|| colorimetry.matrix().kr_kb().unwrap_or((0.299, 0.114)));
    let of = |values: [i32; 4]| [0, 1, 2].map(|c| f64::from(values[c]));
    let format = PlaneFormat {
        width: size.0,
        height: size.1,
        components,
        colors: Colors::new(of(offset), of(scale), weights),
    };
    Some(Planes { data, format })
}

fn part_converter(
    input: &VideoInfo,
    region: Region,
    output: &VideoInfo,
) -> Result<gst_video::VideoConverter, BoolError> {
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
    config.set_threads(threads(input));
    let factor = (region.width as f64 / f64::from(output.width()))
        .max(region.height as f64 / f64::from(output.height()));
    if factor > MIN_FACTOR_FOR_TAPS {
        config.set_resampler_taps(TAPS);
    }
    config.set_src_x(region.x as i32);
    config.set_src_y(region.y as i32);
    config.set_src_width(Some(region.width as i32));
    config.set_src_height(Some(region.height as i32));
    gst_video::VideoConverter::new(&with_matrix(input, output)?, output, Some(config))
}

/// Format of frames of `input` that are converted to another format and size.
///
/// # Errors
/// GStreamer does not accept the format.
pub fn in_format(
    input: &VideoInfo,
    format: VideoFormat,
    (width, height): (u32, u32),
) -> Result<VideoInfo, BoolError> {
    VideoInfo::builder(format, width, height).fps(input.fps()).interlace_mode(input.interlace_mode()).build()
}

/// Converter of whole frames; components that are stored alike in both formats are copied.
///
/// # Errors
/// The pair of formats is not supported.
pub fn converter(input: &VideoInfo, output: &VideoInfo) -> Result<gst_video::VideoConverter, BoolError> {
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_threads(threads(input));
    gst_video::VideoConverter::new(&with_matrix(input, output)?, output, Some(config))
}

/// Returns the format with a colour matrix. Grey files may have none, and GStreamer takes their neutral chroma for colours
/// then.
fn with_matrix(input: &VideoInfo, output: &VideoInfo) -> Result<VideoInfo, BoolError> {
    let (from, to) = (input.colorimetry(), output.colorimetry());
    if !input.is_gray() || from.matrix() != VideoColorMatrix::Unknown || output.is_gray() {
        return Ok(input.clone());
    }
    let matrix = if output.is_yuv() { to.matrix() } else { VideoColorMatrix::Bt601 };
    let colorimetry = VideoColorimetry::new(from.range(), matrix, to.transfer(), to.primaries());
    relabelled(input, input.interlace_mode(), &colorimetry)
}

/// As [`converter`], without dithering, so that samples that do not change in an unpacked format are those of before.
///
/// # Errors
/// The pair of formats is not supported.
pub fn exact_converter(
    input: &VideoInfo,
    output: &VideoInfo,
) -> Result<gst_video::VideoConverter, BoolError> {
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_threads(threads(input));
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    gst_video::VideoConverter::new(&with_matrix(input, output)?, output, Some(config))
}

/// Returns the format in which whole frames of `info` are converted: interlaced frames whose fields have an odd number of
/// lines count as progressive, because GStreamer 1.22 packs their chroma beyond the end of the frame. Places and size of the
/// planes stay.
///
/// # Errors
/// GStreamer does not accept the format.
pub fn safe_to_convert(info: &VideoInfo) -> Result<VideoInfo, BoolError> {
    if info.height().is_multiple_of(4) { Ok(info.clone()) } else { progressive(info) }
}

/// Removes the flags of fields from the video meta of a buffer. Mapped frames have them whatever the format says, and converters
/// for progressive frames do not convert frames with them. Frames of interlaced formats have them anyway.
pub fn remove_field_flags(buffer: &mut gst::Buffer) {
    let fields =
        VideoFrameFlags::INTERLACED | VideoFrameFlags::TFF | VideoFrameFlags::RFF | VideoFrameFlags::ONEFIELD;
    let has_fields = |meta: gst::MetaRef<VideoMeta>| meta.video_frame_flags().intersects(fields);
    if !buffer.meta::<VideoMeta>().is_some_and(has_fields) {
        return;
    }
    if let Some(mut meta) = buffer.make_mut().meta_mut::<VideoMeta>() {
        // SAFETY: the meta belongs to the buffer, which is writable.
        unsafe { (*meta.as_mut_ptr()).flags &= !fields.bits() };
    }
}

/// Returns the format of the same frames as progressive ones.
///
/// # Errors
/// GStreamer does not accept the format.
fn progressive(info: &VideoInfo) -> Result<VideoInfo, BoolError> {
    if !info.is_interlaced() {
        return Ok(info.clone());
    }
    relabelled(info, VideoInterlaceMode::Progressive, &info.colorimetry())
}

/// Returns the format with the default strides and offsets, for frames of our own. The format of a mapped frame has those of
/// its buffer.
///
/// # Errors
/// GStreamer does not accept the format.
pub fn default_layout(info: &VideoInfo) -> Result<VideoInfo, BoolError> {
    VideoInfo::builder(info.format(), info.width(), info.height())
        .fps(info.fps())
        .par(info.par())
        .interlace_mode(info.interlace_mode())
        .colorimetry(&info.colorimetry())
        .chroma_site(info.chroma_site())
        .build()
}

/// Returns the format of frames with the same samples at the same places.
fn relabelled(
    info: &VideoInfo,
    interlace_mode: VideoInterlaceMode,
    colorimetry: &VideoColorimetry,
) -> Result<VideoInfo, BoolError> {
    VideoInfo::builder(info.format(), info.width(), info.height())
        .fps(info.fps())
        .par(info.par())
        .interlace_mode(interlace_mode)
        .colorimetry(colorimetry)
        .chroma_site(info.chroma_site())
        .stride(info.stride())
        .offset(info.offset())
        .size(info.size())
        .build()
}

/// Whether [`unpack_pairs`] must convert `input` to `output`: with odd widths, GStreamer 1.22 crashes with UYVY and exchanges the
/// chroma of VYUY in every second row.
pub fn needs_unpack_pairs(input: &VideoInfo, output: &VideoInfo) -> bool {
    matches!(input.format(), VideoFormat::Uyvy | VideoFormat::Vyuy)
        && output.format() == VideoFormat::Ayuv
        && !input.width().is_multiple_of(2)
}

/// Converts UYVY or VYUY to opaque AYUV.
///
/// # Errors
/// A frame cannot be mapped, or is stored upside down.
pub fn unpack_pairs(from: &Frame, to: &mut FrameMut) -> Result<(), BoolError> {
    let (from_stride, to_stride) = (row_length(from, 0)?.max(1), row_length(to, 0)?.max(1));
    let (width, is_vyuy) = (from.width() as usize, from.format() == VideoFormat::Vyuy);
    let rows = from.plane_data(0)?.chunks(from_stride).take(from.height() as usize);
    for (from, to) in rows.zip(to.plane_data_mut(0)?.chunks_mut(to_stride)) {
        let pairs = from.as_chunks::<4>().0;
        for (pair, to) in pairs.iter().zip(to[..4 * width].chunks_mut(8)) {
            let [u, first, v, second] = *pair;
            let (u, v) = if is_vyuy { (v, u) } else { (u, v) };
            to[..4].copy_from_slice(&[255, first, u, v]);
            if let Some(to) = to.get_mut(4..8) {
                to.copy_from_slice(&[255, second, u, v]);
            }
        }
    }
    Ok(())
}

fn threads(input: &VideoInfo) -> u32 {
    if input.width() * input.height() <= MAX_SINGLE_THREADED {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(info: &VideoInfo) -> gst::Buffer {
        gst::Buffer::from_mut_slice(vec![0x11; info.size()])
    }

    fn convert(from: &gst::Buffer, a: &VideoInfo, to: &mut gst::Buffer, b: &VideoInfo) {
        let from = Frame::from_buffer_ref_readable(from, a).unwrap();
        let mut to = FrameMut::from_buffer_ref_writable(to.get_mut().unwrap(), b).unwrap();
        converter(a, b).unwrap().frame_ref(&from, &mut to);
    }

    #[test]
    fn alpha_is_written_in_every_plain_format() {
        gst::init().unwrap();
        let mut count = 0;
        for format in VideoFormat::iter_raw() {
            let format_info = VideoFormatInfo::from_format(format);
            if !has_plain_alpha(&format_info) {
                continue;
            }
            count += 1;
            let info = VideoInfo::builder(format, 5, 3).build().unwrap();
            let mut buffer = frame_of(&info);
            let values: Vec<u8> = (0..15).map(|i| i * 17).collect();
            {
                let mut frame = FrameMut::from_buffer_ref_writable(buffer.get_mut().unwrap(), &info).unwrap();
                write_alpha::<BoolError>(&mut frame, &mut Vec::new(), |plane| {
                    for (row, values) in plane.data.chunks_mut(plane.stride).zip(values.chunks(5)) {
                        row[..5].copy_from_slice(values);
                    }
                    Ok(())
                })
                .unwrap();
            }
            // GStreamer's own conversion is the reference.
            let deep = VideoInfo::builder(VideoFormat::Argb64, 5, 3).build().unwrap();
            let mut converted = frame_of(&deep);
            convert(&buffer, &info, &mut converted, &deep);
            let converted = converted.map_readable().unwrap();
            for (pixel, value) in converted.chunks(8).zip(&values) {
                assert_eq!(u16::from_ne_bytes([pixel[0], pixel[1]]) >> 8, u16::from(*value), "{format:?}");
            }
        }
        assert!(count > 15, "only {count} formats");
    }

    /// RGB rows of colour waves, in which a shift of a few pixels is measurable.
    fn waves(width: usize, height: usize) -> Vec<u8> {
        let pixel = |i: usize| {
            let (x, y) = ((i % width) as f64, (i / width) as f64);
            let wave = |a: f64, b: f64, c: f64| (127.5 + 100.0 * (a * x + b * y + c).sin()) as u8;
            [wave(0.05, 0.03, 0.0), wave(0.04, -0.06, 1.0), wave(-0.03, 0.05, 2.0)]
        };
        (0..width * height).flat_map(pixel).collect()
    }

    /// Buffer with the padding of `info` from RGB rows without padding.
    fn padded(rows: &[u8], info: &VideoInfo) -> gst::Buffer {
        let mut bytes = vec![0; info.size()];
        let width = 3 * info.width() as usize;
        let to = bytes.chunks_mut(info.stride()[0] as usize);
        to.zip(rows.chunks(width)).for_each(|(to, row)| to[..width].copy_from_slice(row));
        gst::Buffer::from_mut_slice(bytes)
    }

    /// Copies RGB rows without their padding.
    fn rows(data: &[u8], stride: usize, (width, height): (usize, usize)) -> Vec<u8> {
        data.chunks(stride).take(height).flat_map(|row| row[..3 * width].to_vec()).collect()
    }

    /// Crops `region` from a whole RGB picture without GStreamer, and resizes it with GStreamer.
    fn crop(all: &[u8], width: usize, region: Region, size: (usize, usize)) -> Vec<u8> {
        let part: Vec<u8> = (region.y..region.y + region.height)
            .flat_map(|y| all[3 * (y * width + region.x)..][..3 * region.width].to_vec())
            .collect();
        let info =
            VideoInfo::builder(VideoFormat::Rgb, region.width as u32, region.height as u32).build().unwrap();
        let buffer = padded(&part, &info);
        let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
        let mut small = Small::new(&info, Region::whole((region.width, region.height)), size).unwrap();
        small.convert(&frame);
        rows(small.picture.plane_data(0).unwrap(), small.picture.plane_stride()[0] as usize, size)
    }

    /// Regions in the middle and at every border of a frame, aligned and not aligned to the grid of chroma.
    fn regions(width: usize, height: usize) -> Vec<Region> {
        let last = |whole: usize, length: usize| (whole - length) / 4 * 4;
        let region = |x, y, width, height| Region { x, y, width, height };
        vec![
            region(0, 0, width, height),
            region(4, 0, 100, 80),
            region(8, 4, 60, 40),
            region(60, 40, 120, 96),
            region(last(width, 120), 0, 120, 96),
            region(width - 120, 8, 120, 96),
            region(0, last(height, 96), 120, 96),
            region(4, height - 96, width - 4, 96),
            region(width - 101, height - 77, 101, 77),
            region(3, 5, 101, 77),
            region(1, 1, width - 1, height - 1),
            region(2, 2, width - 2, height - 2),
        ]
    }

    #[test]
    fn regions_of_every_format_show_that_part_of_the_frame() {
        gst::init().unwrap();
        let mut count = 0;
        let mut wrong = Vec::new();
        for format in VideoFormat::iter_raw() {
            for (width, height) in [(256, 192), (257, 193)] {
                let like = |format| VideoInfo::builder(format, width as u32, height as u32).build().unwrap();
                let (info, rgb) = (like(format), like(VideoFormat::Rgb));
                let mut buffer = frame_of(&info);
                convert(&padded(&waves(width, height), &rgb), &rgb, &mut buffer, &info);
                let mut all = frame_of(&rgb);
                convert(&buffer, &info, &mut all, &rgb);
                let all = rows(&all.map_readable().unwrap(), rgb.stride()[0] as usize, (width, height));

                let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
                let mut shrinker = Shrinker::new(&info);
                for (number, region) in regions(width, height).into_iter().enumerate() {
                    // Smaller; wider and lower; narrower and higher.
                    let (across, down) = [(67, 67), (110, 80), (75, 130)][(number + width) % 3];
                    let scaled = (region.width * across / 100, region.height * down / 100);
                    // A region that is enlarged to the size of the frame was copied without being resized.
                    for size in [scaled, (width, height)] {
                        let expected = crop(&all, width, region, size);
                        let mut view = View::new(&frame, &mut shrinker);
                        let picture = view.crop(region, size).unwrap();
                        let found = rows(picture.data, picture.stride, size);
                        let sum: u64 =
                            found.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                        let mean = sum as f64 / found.len() as f64;
                        // Chroma differs by a fraction of a sample, depending on whether it is resized before
                        // cropping.
                        let coarse = info.format_info().w_sub().iter().any(|&shift| shift > 1);
                        if mean > if coarse { 3.0 } else { 1.5 } {
                            wrong.push(format!(
                                "{format:?} {width}x{height} {region:?} to {size:?}: {mean:.1}"
                            ));
                        }
                        count += 1;
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
        assert!(count > 80 * 48, "only {count} regions");
    }

    #[test]
    fn common_formats_are_cropped_directly() {
        gst::init().unwrap();
        for format in
            ["I420", "NV12", "YV12", "YUY2", "UYVY", "RGB", "BGRx", "RGBA", "A420", "AYUV", "I420_10LE"]
        {
            let info = VideoInfo::builder(format.parse().unwrap(), 256, 192).build().unwrap();
            assert!(Shrinker::new(&info).can_crop, "{format}");
        }
    }

    #[test]
    fn grey_without_a_matrix_stays_grey() {
        gst::init().unwrap();
        for format in [VideoFormat::Gray8, VideoFormat::Gray16Le] {
            let colorimetry = "1:0:0:0".parse().unwrap();
            let grey = VideoInfo::builder(format, 32, 16).colorimetry(&colorimetry).build().unwrap();
            let data: Vec<u8> = (0..grey.size()).map(|index| (index % 251) as u8).collect();
            let buffer = gst::Buffer::from_slice(data);
            let from = Frame::from_buffer_ref_readable(&buffer, &grey).unwrap();
            for output in [VideoFormat::Ayuv, VideoFormat::Rgba] {
                let output = VideoInfo::builder(output, 32, 16).build().unwrap();
                let mut to = gst::Buffer::with_size(output.size()).unwrap();
                let mut to = FrameMut::from_buffer_ref_writable(to.get_mut().unwrap(), &output).unwrap();
                converter(&grey, &output).unwrap().frame_ref(&from, &mut to);
                let is_grey = |pixel: &[u8; 4]| match output.is_yuv() {
                    true => pixel[2..].iter().all(|chroma| chroma.abs_diff(128) <= 1),
                    false => pixel[..3].iter().all(|color| color.abs_diff(pixel[0]) <= 1),
                };
                assert!(to.plane_data(0).unwrap().as_chunks::<4>().0.iter().all(is_grey), "{format:?}");
            }
            let (region, mut shrinker) = (Region { x: 4, y: 2, width: 24, height: 12 }, Shrinker::new(&grey));
            let mut view = View::new(&from, &mut shrinker);
            let picture = view.crop(region, (12, 6)).unwrap();
            let is_grey = |pixel: &[u8; 3]| pixel.iter().all(|color| color.abs_diff(pixel[0]) <= 1);
            assert!(
                picture.data.as_chunks::<3>().0[..12].iter().all(is_grey),
                "{format:?}: the network's picture"
            );
        }
    }

    #[test]
    fn the_network_sees_interlaced_frames_as_progressive_ones() {
        gst::init().unwrap();
        let noise: Vec<u8> =
            (0..256 * 192 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for format in [
            VideoFormat::I420,
            VideoFormat::Nv12,
            VideoFormat::A420,
            VideoFormat::P01010le,
            VideoFormat::Yuy2,
        ] {
            for region in [Region::whole((256, 192)), Region { x: 32, y: 18, width: 160, height: 120 }] {
                let pictures =
                    [VideoInterlaceMode::Progressive, VideoInterlaceMode::Interleaved].map(|mode| {
                        let info = VideoInfo::builder(format, 256, 192).interlace_mode(mode).build().unwrap();
                        let buffer = gst::Buffer::from_slice(noise[..info.size()].to_vec());
                        let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
                        View::new(&frame, &mut Shrinker::new(&info))
                            .crop(region, (96, 64))
                            .unwrap()
                            .data
                            .to_vec()
                    });
                assert!(pictures[0] == pictures[1], "{format:?}");
            }
        }
    }

    #[test]
    fn the_whole_frame_is_converted_anew_for_each_frame() {
        gst::init().unwrap();
        let info = VideoInfo::builder(VideoFormat::V210, 256, 192).build().unwrap();
        let mut shrinker = Shrinker::new(&info);
        let region = Region { x: 100, y: 60, width: 96, height: 64 };
        let [first, second] = [0x11, 0x99].map(|byte| {
            let buffer = gst::Buffer::from_slice(vec![byte; info.size()]);
            let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
            let mut view = View::new(&frame, &mut shrinker);
            view.crop(region, (48, 32)).unwrap().data.to_vec()
        });
        assert_ne!(first, second);
    }

    /// Smooth colours with an edge, as RGB rows.
    fn scene(width: usize, height: usize) -> Vec<u8> {
        let pixel = |i: usize| {
            let (x, y) = ((i % width) as f64 / width as f64, (i / width) as f64 / height as f64);
            let wave = |a: f64, b: f64, c: f64| 127.5 + 90.0 * (a * x + b * y + c).sin();
            let object = (x - 0.5).hypot(y - 0.4) < 0.25;
            let shift = if object { 3.0 } else { 0.0 };
            [wave(5.0, 2.0, shift), wave(-3.0, 4.0, 1.0 - shift), wave(2.0, -6.0, 2.0 + shift)]
        };
        (0..width * height).flat_map(pixel).map(|value| value as u8).collect()
    }

    /// Mean and maximum difference, in levels, between the network's input computed from planes and two
    /// references: GStreamer's conversion at network size, and GStreamer's 16-bit conversion resized by libtorch.
    fn compare_views(info: &VideoInfo, region: Region, size: (usize, usize)) -> [(f64, f64); 2] {
        use tch::{Kind, Tensor};
        let (width, height) = (info.width() as usize, info.height() as usize);
        let like =
            |format| VideoInfo::builder(format, info.width(), info.height()).fps(info.fps()).build().unwrap();
        let rgb = like(VideoFormat::Rgb);
        let source = padded(&scene(width, height), &rgb);
        let mut buffer = frame_of(info);
        convert(&source, &rgb, &mut buffer, info);
        let frame = Frame::from_buffer_ref_readable(&buffer, info).unwrap();
        let (w, h) = (size.0 as i64, size.1 as i64);

        let mut shrinker = Shrinker::new(info);
        let picture = shrinker.shrink(&frame, region, size, false).unwrap();
        let shown = Tensor::from_slice(&rows(picture.data, picture.stride, size)).to_kind(Kind::Float);
        let shown = shown.reshape([1, h, w, 3]).permute([0, 3, 1, 2]);

        let deep = like(VideoFormat::Argb64);
        let mut exact = frame_of(&deep);
        convert(&buffer, info, &mut exact, &deep);
        let exact = exact.map_readable().unwrap();
        let words: Vec<f32> = exact
            .chunks_exact(2)
            .map(|word| f32::from(u16::from_ne_bytes([word[0], word[1]])) / 257.0)
            .collect();
        let exact = Tensor::from_slice(&words).reshape([1, height as i64, width as i64, 4]);
        let exact = exact.permute([0, 3, 1, 2]).narrow(1, 1, 3);
        let exact = exact.narrow(2, region.y as i64, region.height as i64);
        let exact = exact.narrow(3, region.x as i64, region.width as i64);
        let exact = exact.internal_upsample_bilinear2d_aa([h, w], false, None, None);

        let found = crate::gpu::picture_of_planes(&planes(&frame).unwrap(), region, size).unwrap() * 255.0;
        [shown, exact].map(|expected| {
            let difference = (&found - expected).abs();
            (difference.mean(Kind::Double).double_value(&[]), difference.max().double_value(&[]))
        })
    }

    /// The conversion for a GPU. GStreamer's 8-bit conversion from YUV to RGB is itself 2 to 4 levels off, and at
    /// hard edges different taps differ by tens of levels. Its 16-bit conversion is more exact, but widens 8 bits
    /// by repeating them, which shifts black and grey by half a level.
    #[test]
    fn planes_are_converted_as_by_gstreamer() {
        gst::init().unwrap();
        let mut count = 0;
        let size = (96, 64);
        for (format, (width, height)) in
            VideoFormat::iter_raw().flat_map(|format| [(format, (182, 122)), (format, (183, 121))])
        {
            let info = VideoInfo::builder(format, width, height).build().unwrap();
            let buffer = frame_of(&info);
            let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
            if planes(&frame).is_none() {
                continue;
            }
            count += 1;
            let (width, height) = (width as usize, height as usize);
            for region in [
                Region::whole((width, height)),
                Region { x: 40, y: 20, width: 100, height: 64 },
                Region { x: (width - 100) / 4 * 4, y: 20, width: 100, height: 64 },
                Region { x: 8, y: (height - 64) / 4 * 4, width: 100, height: 64 },
                Region { x: width - 100, y: height - 64, width: 100, height: 64 },
            ] {
                let [shown, exact] = compare_views(&info, region, size);
                println!("{format:?} {region:?}: {shown:.2?}, {exact:.2?}");
                let limit = if info.is_rgb() { 1.0 } else { 4.0 };
                // The last of an odd number of columns has its own sample of chroma.
                let max_difference = if width % 2 == 0 { 50.0 } else { 80.0 };
                assert!(shown.0 < limit && shown.1 < max_difference, "{format:?} {region:?}: {shown:?}");
                assert!(exact.0 < 2.0, "{format:?} {region:?}: {exact:?}");
            }
        }
        assert!(count >= 2 * 18, "only {count} formats");
        for format in [VideoFormat::I420, VideoFormat::Yv12, VideoFormat::Nv12, VideoFormat::Yuy2] {
            let info = VideoInfo::builder(format, 16, 16).build().unwrap();
            let buffer = frame_of(&info);
            assert!(
                planes(&Frame::from_buffer_ref_readable(&buffer, &info).unwrap()).is_some(),
                "{format:?}"
            );
        }
    }

    /// The slices had the padding of the last row, and the alpha, both of which may lie beyond the buffer.
    #[test]
    fn planes_end_with_their_last_sample() {
        gst::init().unwrap();
        for (format, ends) in [
            (VideoFormat::Rgb, vec![384 * 31 + 3 * 64]),
            (VideoFormat::A420, vec![384 * 31 + 64, 384 * 15 + 32, 384 * 15 + 32, 0]),
        ] {
            let info = VideoInfo::builder(format, 64, 32).build().unwrap();
            let mut buffer = gst::Buffer::from_mut_slice(vec![0u8; 384 * 128]);
            let offsets: Vec<usize> = (0..info.n_planes() as usize).map(|plane| plane * 384 * 32).collect();
            let (inner, strides) = (buffer.get_mut().unwrap(), vec![384; offsets.len()]);
            VideoMeta::add_full(inner, VideoFrameFlags::empty(), format, 64, 32, &offsets, &strides).unwrap();
            let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
            let lengths: Vec<usize> = planes(&frame).unwrap().data.iter().map(|plane| plane.len()).collect();
            assert_eq!(lengths, ends, "{format:?}");
        }
    }

    #[test]
    fn planes_of_every_colorimetry_and_size_are_converted_as_by_gstreamer() {
        gst::init().unwrap();
        for colorimetry in ["bt601", "bt709", "bt2020", "1:4:0:0"] {
            for (width, height) in [(640, 360), (333, 201), (1280, 720)] {
                let caps = format!(
                    "video/x-raw,format=I420,width={width},height={height},framerate=30/1,colorimetry={colorimetry}"
                );
                let info = VideoInfo::from_caps(&caps.parse::<gst::Caps>().unwrap()).unwrap();
                let region = Region::whole((width, height));
                let [shown, exact] = compare_views(&info, region, (336, 192));
                println!("{colorimetry} {width}x{height}: {shown:.2?}, {exact:.2?}");
                assert!(shown.0 < 4.0 && shown.1 < 80.0, "{colorimetry} {width}x{height}: {shown:?}");
                assert!(exact.0 < 2.0, "{colorimetry} {width}x{height}: {exact:?}");
            }
        }
    }

    #[test]
    fn planes_are_appended_in_the_right_order() {
        gst::init().unwrap();
        let info = VideoFormatInfo::from_format;
        let order = |a, b| appended_planes(&info(a), &info(b));
        assert_eq!(order(VideoFormat::I420, VideoFormat::A420), Some(vec![0, 1, 2]));
        assert_eq!(order(VideoFormat::Yv12, VideoFormat::A420), Some(vec![0, 2, 1]));
        assert_eq!(order(VideoFormat::Nv12, VideoFormat::Av12), Some(vec![0, 1]));
        assert_eq!(order(VideoFormat::Nv21, VideoFormat::Av12), None);
        assert_eq!(order(VideoFormat::Nv12, VideoFormat::A420), None);
        assert_eq!(order(VideoFormat::I42010le, VideoFormat::A42010be), None);
        assert_eq!(order(VideoFormat::Gbr, VideoFormat::Gbra), Some(vec![0, 1, 2]));
        assert!(colors_in_place(&info(VideoFormat::Bgrx), &info(VideoFormat::Bgra)));
        assert!(!colors_in_place(&info(VideoFormat::Bgrx), &info(VideoFormat::Rgba)));
    }

    #[test]
    fn tint_is_the_same_colour_in_every_format() {
        gst::init().unwrap();
        for format in VideoFormat::iter_raw() {
            let format_info = VideoFormatInfo::from_format(format);
            if !has_plain_colors(&format_info) || !(format_info.is_rgb() || format_info.is_yuv()) {
                continue;
            }
            let info = VideoInfo::builder(format, 8, 8).build().unwrap();
            let rgb = VideoInfo::builder(VideoFormat::Rgb, 8, 8).build().unwrap();
            let mut small = gst::Buffer::from_mut_slice(vec![100u8; rgb.size()]);
            let mut buffer = frame_of(&info);
            convert(&small, &rgb, &mut buffer, &info);
            {
                let mut frame = FrameMut::from_buffer_ref_writable(buffer.get_mut().unwrap(), &info).unwrap();
                tint(&mut frame, &[255; 64], 8, ([200, 0, 50], TINT)).unwrap();
            }
            convert(&buffer, &info, &mut small, &rgb);
            let map = small.map_readable().unwrap();
            for (value, target) in map[..3].iter().zip([200, 0, 50]) {
                let expected = 100 + (target - 100) * i32::from(TINT) / 255;
                assert!(
                    (i32::from(*value) - expected).abs() <= 4,
                    "{format:?}: {:?}, wanted {expected}",
                    &map[..3]
                );
            }
        }
    }
}
