// SPDX-License-Identifier: MPL-2.0

//! Composes the output buffer from an input buffer and its matte.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::VideoInfo;
use gstreamer_video::prelude::*;

use super::background::Background;
use super::blend::Blender;
use super::marks::Marks;
use super::plane_pool::PlanePool;
use super::process_error::ProcessError;
use super::{AlphaMode, Foreground, Mode, caps};
use crate::element::frame::{self, AlphaReader, Frame, FrameMut};
use crate::image::PlaneMut;
use crate::mask::color;
use crate::matte::{ForegroundEstimator, Guide, MaskView, Matte, MatteSettings, PostProcessor};

/// What to make of a frame.
#[derive(Clone, Debug)]
pub struct Request {
    pub mode: Mode,
    /// Whether the background covers the whole frame while there is no matte.
    pub hides_all: bool,
    pub matte: MatteSettings,
    pub foreground: Foreground,
    pub alpha_mode: AlphaMode,
    pub background: Option<Arc<Background>>,
}

/// The negotiated formats, and the conversion between them.
pub struct Composer {
    input: VideoInfo,
    output: VideoInfo,
    /// Input and output as [`frame::safe_to_convert`] has them.
    safe: (VideoInfo, VideoInfo),
    /// Mode that the formats were negotiated for.
    negotiated: Mode,
    conversion: Conversion,
    converter: Option<gst_video::VideoConverter>,
    unpacked: Option<Unpacked>,
    blender: Blender,
    /// The last background. It is used until caps are negotiated without one.
    background: Option<Arc<Background>>,
    planes: PlanePool,
    post_processor: PostProcessor,
    /// Reads the alpha of the input, which is multiplied with the matte. `None` for formats without alpha.
    alpha_reader: Option<AlphaReader>,
    /// Alpha planes of the objects, for formats into which alpha cannot be written directly.
    alphas: Vec<u8>,
    /// Marks to be drawn in the next overlay.
    pub marks: Option<Marks>,
    scratch: Vec<u8>,
}

/// A frame in the unpacked format of GStreamer, and the conversions to and from it. For formats whose colours are no
/// separate bytes or words.
struct Unpacked {
    packed: VideoInfo,
    buffer: gst::Buffer,
    info: VideoInfo,
    unpack: gst_video::VideoConverter,
    pack: gst_video::VideoConverter,
}

impl Unpacked {
    fn new(packed: &VideoInfo) -> Result<Self, glib::BoolError> {
        let packed = frame::safe_to_convert(packed)?;
        let format = packed.format_info().unpack_format();
        let info = VideoInfo::builder(format, packed.width(), packed.height())
            .fps(packed.fps())
            .interlace_mode(packed.interlace_mode())
            .colorimetry(&packed.colorimetry())
            .build()?;
        Ok(Self {
            buffer: gst::Buffer::with_size(info.size())?,
            unpack: frame::converter(&packed, &info)?,
            pack: frame::exact_converter(&info, &packed)?,
            packed,
            info,
        })
    }

    /// Calls `change` with the colours of `buffer` as separate bytes or words.
    fn edit(
        this: &mut Option<Self>,
        info: &VideoInfo,
        mut buffer: gst::Buffer,
        change: impl FnOnce(&mut FrameMut) -> Result<(), ProcessError>,
    ) -> Result<gst::Buffer, ProcessError> {
        if frame::has_plain_colors(&info.format_info()) {
            change(&mut FrameMut::from_buffer_ref_writable(buffer.make_mut(), info)?)?;
            return Ok(buffer);
        }
        let unpacked = match this {
            Some(unpacked) => unpacked,
            none => none.insert(Self::new(info)?),
        };
        let inner = writable(&mut unpacked.buffer)?;
        {
            let from = Frame::from_buffer_ref_readable(&buffer, &unpacked.packed)?;
            let mut to = FrameMut::from_buffer_ref_writable(inner, &unpacked.info)?;
            unpacked.unpack.frame_ref(&from, &mut to);
            change(&mut to)?;
        }
        let from = Frame::from_buffer_ref_readable(inner, &unpacked.info)?;
        let mut to = FrameMut::from_buffer_ref_writable(buffer.make_mut(), &unpacked.packed)?;
        unpacked.pack.frame_ref(&from, &mut to);
        drop(to);
        Ok(buffer)
    }
}

/// How alpha is added to a buffer.
#[derive(Debug, PartialEq)]
enum Conversion {
    /// The alpha plane is appended as another memory. Holds the input plane for each colour plane of the output.
    Append(Vec<usize>),
    /// Alpha is written into the alpha or padding bytes of the buffer.
    InPlace,
    /// The frame is converted.
    Convert,
}

/// Whether the first `planes` planes of a buffer have the offsets and strides that follow from the caps alone.
fn planes_are_at_default_places(buffer: &gst::BufferRef, info: &VideoInfo, planes: usize) -> bool {
    buffer.meta::<gst_video::VideoMeta>().is_none_or(|meta| {
        meta.offset()[..planes] == info.offset()[..planes]
            && meta.stride()[..planes] == info.stride()[..planes]
    })
}

/// Whether a buffer has the size, offsets and strides that follow from its caps alone.
fn is_laid_out_as(buffer: &gst::BufferRef, info: &VideoInfo) -> bool {
    let padded = buffer.meta::<gst_video::VideoMeta>().is_some() && buffer.size() != info.size();
    !padded && planes_are_at_default_places(buffer, info, info.format_info().n_planes() as usize)
}

/// Returns a buffer with the same bytes, without a copy if `buffer` has a single memory. A pool discards buffers whose
/// memory is shared, so the new memory holds a reference to the whole buffer.
fn share_memory(buffer: &gst::Buffer) -> Result<gst::Buffer, glib::BoolError> {
    if buffer.n_memory() != 1 {
        return Ok(buffer.copy());
    }
    let mapped = buffer
        .clone()
        .into_mapped_buffer_readable()
        .map_err(|_| glib::bool_error!("the input buffer cannot be mapped"))?;
    let mut out = gst::Buffer::new();
    {
        let out = out.make_mut();
        let what =
            gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
        buffer.copy_into(out, what, ..)?;
        out.append_memory(gst::Memory::from_slice(mapped));
    }
    Ok(out)
}

impl Composer {
    /// # Errors
    /// `input` cannot be converted to `output`.
    pub fn new(input: VideoInfo, output: VideoInfo, wanted: Mode) -> Result<Self, glib::BoolError> {
        let safe = (frame::safe_to_convert(&input)?, frame::safe_to_convert(&output)?);
        let (from, to) = (input.format(), output.format());
        // The properties may have changed since the negotiation.
        let negotiated = [wanted, Mode::Alpha, Mode::Mask, Mode::Background]
            .into_iter()
            .find(|&candidate| caps::allows(candidate, from, to))
            .ok_or_else(|| glib::bool_error!("{from} cannot be converted to {to}"))?;
        let (from, to) = (input.format_info(), output.format_info());
        let samples = |info: &VideoInfo| (info.colorimetry().matrix(), info.colorimetry().range());
        let conversion = if samples(&input) != samples(&output) {
            Conversion::Convert
        } else if frame::colors_in_place(&from, &to) {
            Conversion::InPlace
        } else if let Some(planes) = frame::appended_planes(&from, &to) {
            Conversion::Append(planes)
        } else {
            Conversion::Convert
        };
        let converter = match (negotiated, &conversion) {
            (Mode::Alpha, Conversion::Convert) => Some(frame::converter(&safe.0, &safe.1)?),
            _ => None,
        };
        let alpha_reader = match frame::has_alpha(&from) {
            true => Some(AlphaReader::new(&input)?),
            false => None,
        };
        Ok(Self {
            input,
            output,
            safe,
            negotiated,
            conversion,
            converter,
            unpacked: None,
            blender: Blender::default(),
            background: None,
            planes: PlanePool::default(),
            post_processor: PostProcessor::default(),
            alpha_reader,
            alphas: Vec::new(),
            marks: None,
            scratch: Vec::new(),
        })
    }

    pub fn input(&self) -> &VideoInfo {
        &self.input
    }

    /// Returns whether the output has the colours of the input in the same colour model.
    pub fn keeps_colors(&self) -> bool {
        let model = |info: &VideoInfo| (info.is_yuv(), info.is_rgb(), info.is_gray());
        matches!(self.negotiated, Mode::Alpha | Mode::Overlay | Mode::Background)
            && model(&self.input) == model(&self.output)
    }

    /// Returns the output format if it has alpha but no RGB colours, so that they cannot be premultiplied.
    pub fn straight_format(&self) -> Option<gst_video::VideoFormat> {
        (self.negotiated == Mode::Alpha && !self.output.is_rgb()).then(|| self.output.format())
    }

    /// Returns the output buffer. `video_meta` = downstream supports `GstVideoMeta`; `allocate` returns an output
    /// buffer with the metas of its argument.
    ///
    /// # Errors
    /// No output buffer is available, or a buffer does not match its format.
    pub fn compose(
        &mut self,
        buffer: gst::Buffer,
        matte: Option<&Matte>,
        request: &Request,
        video_meta: bool,
        allocate: impl FnOnce(&gst::BufferRef) -> Result<gst::Buffer, gst::FlowError>,
    ) -> Result<gst::Buffer, ProcessError> {
        let mode = if caps::allows(request.mode, self.input.format(), self.output.format()) {
            request.mode
        } else {
            self.negotiated
        };
        let settings = &request.matte;
        match mode {
            Mode::Alpha => {
                let buffer = match &self.conversion {
                    Conversion::Append(planes) if video_meta || self.is_packed(&buffer) => {
                        let planes = planes.clone();
                        self.append(buffer, &planes, matte, request)?
                    }
                    Conversion::InPlace if video_meta || is_laid_out_as(&buffer, &self.input) => {
                        match self.relabel(buffer) {
                            Ok(buffer) => self.write_in_place(buffer, matte, request)?,
                            Err(buffer) => self.convert(&buffer, matte, request, allocate)?,
                        }
                    }
                    _ => self.convert(&buffer, matte, request, allocate)?,
                };
                match request.alpha_mode {
                    AlphaMode::Premultiplied if self.output.is_rgb() => self.premultiply(buffer),
                    _ => Ok(buffer),
                }
            }
            Mode::Mask | Mode::Labels => {
                let mut out = allocate(&buffer)?;
                let mut mapped = FrameMut::from_buffer_ref_writable(writable(&mut out)?, &self.output)?;
                let mut plane = PlaneMut {
                    width: mapped.width() as usize,
                    height: mapped.height() as usize,
                    stride: mapped.plane_stride()[0] as usize,
                    data: mapped.plane_data_mut(0)?,
                };
                if mode == Mode::Mask {
                    let frame = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
                    self.post_processor.write_alpha(
                        settings,
                        matte,
                        frame::guide(&frame).as_ref(),
                        &mut plane,
                    )?;
                    if let Some(reader) = &mut self.alpha_reader {
                        reader.read(&frame, &mut self.scratch)?;
                        plane.multiply(&self.scratch)?;
                    }
                } else {
                    settings.write_labels(matte, &mut plane)?;
                }
                drop(mapped);
                Ok(out)
            }
            Mode::Overlay => {
                let buffer = self.without_padding(buffer, video_meta, allocate)?;
                self.overlay(buffer, matte, settings)
            }
            Mode::Background => {
                let buffer = self.without_padding(buffer, video_meta, allocate)?;
                self.replace_background(buffer, matte, request)
            }
        }
    }

    /// Returns a buffer of the input format that downstream can read, a copy if it supports no padding.
    fn without_padding(
        &self,
        buffer: gst::Buffer,
        video_meta: bool,
        allocate: impl FnOnce(&gst::BufferRef) -> Result<gst::Buffer, gst::FlowError>,
    ) -> Result<gst::Buffer, ProcessError> {
        if video_meta || is_laid_out_as(&buffer, &self.input) {
            return Ok(buffer);
        }
        let mut out = allocate(&buffer)?;
        let from = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
        from.copy(&mut FrameMut::from_buffer_ref_writable(writable(&mut out)?, &self.input)?)?;
        Ok(out)
    }

    /// Returns whether the planes have the offsets and strides that follow from the output caps alone, so that
    /// alpha can be appended without a `GstVideoMeta`.
    fn is_packed(&self, buffer: &gst::BufferRef) -> bool {
        let planes = self.input.format_info().n_planes() as usize;
        let in_order = matches!(&self.conversion, Conversion::Append(order) if order.is_sorted());
        planes_are_at_default_places(buffer, &self.output, planes)
            && in_order
            && buffer.size() == self.output.offset()[planes]
    }

    fn append(
        &mut self,
        mut buffer: gst::Buffer,
        order: &[usize],
        matte: Option<&Matte>,
        request: &Request,
    ) -> Result<gst::Buffer, ProcessError> {
        let settings = &request.matte;
        let format = self.output.format_info();
        let plane_index = order.len();
        let stride = self.output.stride()[plane_index];
        let size = self.output.size() - self.output.offset()[plane_index];
        let (width, height) = (self.output.width() as usize, self.output.height() as usize);

        let mut plane = self.planes.take(size);
        let frame = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
        let guide = frame::guide(&frame);
        let mut alpha = PlaneMut { data: plane.as_mut(), width, height, stride: stride as usize };
        if format.depth()[3] == 8 && request.foreground == Foreground::Input {
            self.post_processor.write_alpha(settings, matte, guide.as_ref(), &mut alpha)?;
        } else {
            self.alphas.resize(width * height, 0);
            let mut packed = PlaneMut { data: &mut self.alphas, width, height, stride: width };
            self.post_processor.write_alpha(settings, matte, guide.as_ref(), &mut packed)?;
            match format.depth()[3] {
                8 => alpha.copy(&self.alphas)?,
                _ => frame::widen_plane(&self.alphas, width, &self.output, plane.as_mut()),
            }
        }
        drop(frame);
        let packed = MaskView { values: &self.alphas, width, height };
        if request.foreground == Foreground::Estimate && ForegroundEstimator::has_soft_edges(packed) {
            let mut mapped = FrameMut::from_buffer_ref_writable(buffer.make_mut(), &self.input)?;
            self.blender.estimate_foreground(&mut mapped, packed)?;
        }

        let (mut flags, mut offsets, mut strides) =
            (gst_video::VideoFrameFlags::empty(), self.input.offset().to_vec(), self.input.stride().to_vec());
        let mut out = share_memory(&buffer)?;
        {
            let out = writable(&mut out)?;
            if let Some(meta) = buffer.meta::<gst_video::VideoMeta>() {
                flags = meta.video_frame_flags();
                offsets = meta.offset().to_vec();
                strides = meta.stride().to_vec();
            }
            if let Some(meta) = out.meta_mut::<gst_video::VideoMeta>() {
                meta.remove()?;
            }
            let pick = |values: &[usize]| order.iter().map(|&i| values[i]).collect::<Vec<_>>();
            let mut offsets = pick(&offsets);
            offsets.push(buffer.size());
            let mut strides: Vec<i32> = order.iter().map(|&i| strides[i]).collect();
            strides.push(stride);
            out.append_memory(gst::Memory::from_mut_slice(plane));
            gst_video::VideoMeta::add_full(
                out,
                flags,
                self.output.format(),
                self.output.width(),
                self.output.height(),
                &offsets,
                &strides,
            )?;
        }
        Ok(out)
    }

    /// Changes the format of the buffer's video meta to that of the output. Returns the buffer as the error if it
    /// is not writable.
    fn relabel(&self, mut buffer: gst::Buffer) -> Result<gst::Buffer, gst::Buffer> {
        if self.input.format() == self.output.format() {
            return Ok(buffer);
        }
        let Some(inner) = buffer.get_mut() else { return Err(buffer) };
        if !inner.is_all_memory_writable() {
            return Err(buffer);
        }
        let Some(meta) = inner.meta_mut::<gst_video::VideoMeta>() else { return Ok(buffer) };
        if meta.flags().contains(gst::MetaFlags::LOCKED) {
            return Err(buffer);
        }
        let (flags, offsets, strides) =
            (meta.video_frame_flags(), meta.offset().to_vec(), meta.stride().to_vec());
        let (width, height) = (meta.width(), meta.height());
        let relabelled = meta.remove().and_then(|()| {
            let format = self.output.format();
            gst_video::VideoMeta::add_full(inner, flags, format, width, height, &offsets, &strides)
                .map(|_| ())
        });
        match relabelled {
            Ok(()) => Ok(buffer),
            Err(_) => Err(buffer),
        }
    }

    fn convert(
        &mut self,
        buffer: &gst::Buffer,
        matte: Option<&Matte>,
        request: &Request,
        allocate: impl FnOnce(&gst::BufferRef) -> Result<gst::Buffer, gst::FlowError>,
    ) -> Result<gst::Buffer, ProcessError> {
        let mut out = allocate(buffer)?;
        let converter = match &mut self.converter {
            Some(converter) => converter,
            none => none.insert(frame::converter(&self.safe.0, &self.safe.1)?),
        };
        let from = Frame::from_buffer_ref_readable(buffer, &self.safe.0)?;
        let mut to = FrameMut::from_buffer_ref_writable(writable(&mut out)?, &self.safe.1)?;
        match frame::needs_unpack_pairs(&self.input, &self.output) {
            true => frame::unpack_pairs(&from, &mut to)?,
            false => converter.frame_ref(&from, &mut to),
        }
        let guide = frame::guide(&from);
        let Self { post_processor, alpha_reader, alphas, scratch, blender, .. } = self;
        let settings = &request.matte;
        let (width, height) = (self.output.width() as usize, self.output.height() as usize);
        if alpha_reader.is_none() && request.foreground == Foreground::Input {
            frame::write_alpha::<ProcessError>(&mut to, scratch, |plane| {
                Ok(post_processor.write_alpha(settings, matte, guide.as_ref(), plane)?)
            })?;
            drop(to);
            return Ok(out);
        }
        alphas.resize(width * height, 0);
        let mut plane = PlaneMut { data: alphas, width, height, stride: width };
        post_processor.write_alpha(settings, matte, guide.as_ref(), &mut plane)?;
        match alpha_reader {
            // The conversion keeps the alpha of the input.
            Some(_) if self.input.has_alpha() && !frame::has_two_bit_alpha(&self.input.format_info()) => {
                frame::multiply(&mut to, 3, alphas)?
            }
            reader => {
                // GStreamer 1.22 does not flag AV12 as alpha, and the conversion drops it.
                if let Some(reader) = reader {
                    reader.read(&from, scratch)?;
                    plane.multiply(scratch)?;
                }
                frame::write_alpha::<ProcessError>(&mut to, scratch, |plane| Ok(plane.copy(alphas)?))?;
            }
        }
        if request.foreground == Foreground::Estimate {
            blender.estimate_foreground(&mut to, MaskView { values: alphas, width, height })?;
        }
        drop(to);
        Ok(out)
    }

    /// Writes alpha into the buffer. Post-processing reads the buffer, so all alpha is computed before it is written.
    fn write_in_place(
        &mut self,
        mut buffer: gst::Buffer,
        matte: Option<&Matte>,
        request: &Request,
    ) -> Result<gst::Buffer, ProcessError> {
        let settings = &request.matte;
        let (width, height) = (self.output.width() as usize, self.output.height() as usize);
        let Self { post_processor, alpha_reader, alphas, scratch, output, blender, .. } = self;
        alphas.resize(width * height, 0);
        {
            let frame = Frame::from_buffer_ref_readable(&buffer, output)?;
            let mut plane = PlaneMut { data: alphas, width, height, stride: width };
            post_processor.write_alpha(settings, matte, frame::guide(&frame).as_ref(), &mut plane)?;
        }
        let mut mapped = FrameMut::from_buffer_ref_writable(buffer.make_mut(), output)?;
        match alpha_reader {
            None => {
                frame::write_alpha::<ProcessError>(&mut mapped, scratch, |plane| Ok(plane.copy(alphas)?))?
            }
            Some(_) => frame::multiply(&mut mapped, 3, alphas)?,
        }
        if request.foreground == Foreground::Estimate {
            blender.estimate_foreground(&mut mapped, MaskView { values: alphas, width, height })?;
        }
        drop(mapped);
        Ok(buffer)
    }

    fn premultiply(&mut self, mut buffer: gst::Buffer) -> Result<gst::Buffer, ProcessError> {
        let mut mapped = FrameMut::from_buffer_ref_writable(buffer.make_mut(), &self.output)?;
        frame::premultiply(&mut mapped, &mut self.alphas)?;
        drop(mapped);
        Ok(buffer)
    }

    /// Lays the object over the background of the request. Without a background, the frame does not change; without a
    /// matte neither, unless the background hides the whole frame.
    fn replace_background(
        &mut self,
        buffer: gst::Buffer,
        matte: Option<&Matte>,
        request: &Request,
    ) -> Result<gst::Buffer, ProcessError> {
        if request.background.is_some() {
            self.background.clone_from(&request.background);
        }
        let Self { post_processor, alpha_reader, alphas, scratch, blender, unpacked, input, .. } = self;
        let background = match &self.background {
            Some(background) if matte.is_some() || alpha_reader.is_some() || request.hides_all => background,
            _ => return Ok(buffer),
        };
        let (width, height) = (input.width() as usize, input.height() as usize);
        alphas.resize(width * height, 0);
        {
            let frame = Frame::from_buffer_ref_readable(&buffer, input)?;
            let mut plane = PlaneMut { data: alphas, width, height, stride: width };
            if matte.is_none() && request.hides_all {
                plane.fill(0)?;
            } else {
                let guide = frame::guide(&frame);
                post_processor.write_alpha(&request.matte, matte, guide.as_ref(), &mut plane)?;
            }
            if let Some(reader) = alpha_reader {
                reader.read(&frame, scratch)?;
                plane.multiply(scratch)?;
            }
        }
        let alpha = MaskView { values: alphas, width, height };
        Unpacked::edit(unpacked, input, buffer, |frame| {
            blender.lay_over(frame, alpha, background, request.foreground)
        })
    }

    fn overlay(
        &mut self,
        buffer: gst::Buffer,
        matte: Option<&Matte>,
        settings: &MatteSettings,
    ) -> Result<gst::Buffer, ProcessError> {
        let size = (self.input.width() as usize, self.input.height() as usize);
        let mut layers = {
            let frame = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
            let guide = frame::guide(&frame);
            tints(&mut self.post_processor, matte, settings, guide.as_ref(), size, &mut self.alphas)?
        };
        if let Some(marks) = self.marks.take() {
            marks.draw(size, |color, values| {
                layers.push((color, u8::MAX));
                self.alphas.extend_from_slice(values);
            });
        }
        if layers.is_empty() {
            return Ok(buffer);
        }
        let layers = layers.into_iter().zip(self.alphas.chunks_exact(size.0 * size.1));
        Unpacked::edit(&mut self.unpacked, &self.input, buffer, |frame| {
            for (color, alpha) in layers {
                frame::tint(frame, alpha, size.0, color)?;
            }
            Ok(())
        })
    }
}

/// Writes the alpha planes of all objects, or of the selected one, to `alphas`, one after the other. Returns their
/// colours and the strength of the tint.
fn tints(
    post_processor: &mut PostProcessor,
    matte: Option<&Matte>,
    settings: &MatteSettings,
    guide: Option<&Guide>,
    (width, height): (usize, usize),
    alphas: &mut Vec<u8>,
) -> Result<Vec<([u8; 3], u8)>, ProcessError> {
    alphas.clear();
    let Some(matte) = matte else { return Ok(Vec::new()) };
    let chosen = |id: &u8| settings.object == 0 || settings.object == *id;
    if settings.invert && settings.object == 0 {
        alphas.resize(width * height, 0);
        let mut plane = PlaneMut { data: alphas, width, height, stride: width };
        post_processor.write_alpha(settings, Some(matte), guide, &mut plane)?;
        return Ok(matte.object_ids().first().map(|&id| (color(id), frame::TINT)).into_iter().collect());
    }
    let ids: Vec<u8> = matte.object_ids().iter().copied().filter(chosen).collect();
    alphas.resize(ids.len() * width * height, 0);
    for (&id, data) in ids.iter().zip(alphas.chunks_exact_mut(width * height)) {
        let mut plane = PlaneMut { data, width, height, stride: width };
        post_processor.write_object(settings, matte, id, guide, &mut plane)?;
    }
    Ok(ids.into_iter().map(|id| (color(id), frame::TINT)).collect())
}

fn writable(buffer: &mut gst::Buffer) -> Result<&mut gst::BufferRef, glib::BoolError> {
    buffer.get_mut().ok_or_else(|| glib::bool_error!("the output buffer is shared and cannot be written"))
}
