//! How an input buffer and its matte become the output buffer.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoFormat, VideoInfo};

use super::plane_pool::PlanePool;
use super::process_error::ProcessError;
use super::{Output, caps};
use crate::element::frame::{self, AlphaReader, Frame, FrameMut};
use crate::image::PlaneMut;
use crate::mask::color;
use crate::matte::{Guide, Matte, MatteSettings, PostProcessor};

/// What was negotiated, and how to get from the one format to the other.
pub struct Composer {
    input: VideoInfo,
    output: VideoInfo,
    /// What the formats were negotiated for.
    negotiated: Output,
    way: Way,
    converter: Option<gst_video::VideoConverter>,
    /// Where overlays of formats that cannot be tinted are drawn.
    tinted: Option<(gst::Buffer, VideoInfo, gst_video::VideoConverter, gst_video::VideoConverter)>,
    planes: PlanePool,
    post_processor: PostProcessor,
    /// For formats that have alpha already, with which the matte is multiplied.
    alpha_reader: Option<AlphaReader>,
    /// The planes of one or several objects, for formats in which they cannot be written at once.
    alphas: Vec<u8>,
    scratch: Vec<u8>,
}

/// How alpha gets into a buffer.
#[derive(Debug, PartialEq)]
enum Way {
    /// As another memory behind those of the colours; the number is that of the input's plane.
    Append(Vec<usize>),
    /// Over the bytes that are alpha, or nothing at all yet.
    InPlace,
    Convert,
}

/// Another buffer on the same bytes. What came from a pool must go back with its memory shared by nobody,
/// or the pool throws it away; so the memory here holds the buffer, which outlives it.
fn share(buffer: &gst::Buffer) -> Result<gst::Buffer, glib::BoolError> {
    if buffer.n_memory() != 1 {
        return Ok(buffer.copy());
    }
    let mapped = buffer
        .clone()
        .into_mapped_buffer_readable()
        .map_err(|_| glib::bool_error!("The input buffer cannot be mapped"))?;
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
    /// Formats that cannot be converted into each other.
    pub fn new(input: VideoInfo, output: VideoInfo, wanted: Output) -> Result<Self, glib::BoolError> {
        let (from, to) = (input.format(), output.format());
        // The setting may have changed since the formats were agreed on.
        let negotiated = [wanted, Output::Alpha, Output::Mask, Output::Overlay]
            .into_iter()
            .find(|&candidate| caps::allows(candidate, from, to))
            .ok_or_else(|| glib::bool_error!("{from} cannot become {to}"))?;
        let (from, to) = (input.format_info(), output.format_info());
        let way = if frame::colors_in_place(&from, &to) {
            Way::InPlace
        } else if let Some(planes) = frame::appended_planes(&from, &to) {
            Way::Append(planes)
        } else {
            Way::Convert
        };
        let converter = match (negotiated, &way) {
            (Output::Alpha, Way::Convert) => Some(frame::converter(&input, &output)?),
            _ => None,
        };
        let alpha_reader = match frame::has_alpha(&from) {
            true => Some(AlphaReader::new(&input)?),
            false => None,
        };
        Ok(Self {
            input,
            output,
            negotiated,
            way,
            converter,
            tinted: None,
            planes: PlanePool::default(),
            post_processor: PostProcessor::default(),
            alpha_reader,
            alphas: Vec::new(),
            scratch: Vec::new(),
        })
    }

    pub fn input(&self) -> &VideoInfo {
        &self.input
    }

    /// Whether the output has the colours of the input, and in the same system.
    pub fn keeps_colors(&self) -> bool {
        let system = |info: &VideoInfo| (info.is_yuv(), info.is_rgb(), info.is_gray());
        matches!(self.negotiated, Output::Alpha | Output::Overlay)
            && system(&self.input) == system(&self.output)
    }

    /// The output buffer. `video_meta` is whether downstream understands strides and offsets, `allocate`
    /// gets a buffer for the output with the metadata of another.
    ///
    /// # Errors
    /// No buffer to be had, or one that does not fit its format.
    pub fn compose(
        &mut self,
        buffer: gst::Buffer,
        matte: Option<&Matte>,
        (wanted, settings): (Output, MatteSettings),
        video_meta: bool,
        allocate: impl FnOnce(&gst::BufferRef) -> Result<gst::Buffer, gst::FlowError>,
    ) -> Result<gst::Buffer, ProcessError> {
        let output = if caps::allows(wanted, self.input.format(), self.output.format()) {
            wanted
        } else {
            self.negotiated
        };
        match output {
            Output::Alpha => match &self.way {
                Way::Append(planes) if video_meta || self.is_packed(&buffer) => {
                    let planes = planes.clone();
                    self.append(&buffer, &planes, matte, &settings)
                }
                Way::InPlace => match self.relabel(buffer) {
                    Ok(buffer) => self.write_in_place(buffer, matte, &settings),
                    Err(buffer) => self.convert(&buffer, matte, &settings, allocate),
                },
                _ => self.convert(&buffer, matte, &settings, allocate),
            },
            Output::Mask | Output::Labels => {
                let mut out = allocate(&buffer)?;
                let mut mapped = FrameMut::from_buffer_ref_writable(writable(&mut out)?, &self.output)?;
                let mut plane = PlaneMut {
                    width: mapped.width() as usize,
                    height: mapped.height() as usize,
                    stride: mapped.plane_stride()[0] as usize,
                    data: mapped.plane_data_mut(0)?,
                };
                if output == Output::Mask {
                    let frame = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
                    self.post_processor.write_alpha(
                        &settings,
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
            Output::Overlay => self.overlay(buffer, matte, &settings),
        }
    }

    /// Whether the planes lie as the output's caps alone tell, so that alpha comes where it is expected.
    fn is_packed(&self, buffer: &gst::BufferRef) -> bool {
        let planes = self.input.format_info().n_planes() as usize;
        let alike = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => {
                meta.offset()[..planes] == self.output.offset()[..planes]
                    && meta.stride()[..planes] == self.output.stride()[..planes]
            }
            None => true,
        };
        let in_order = matches!(&self.way, Way::Append(order) if order.is_sorted());
        alike && in_order && buffer.size() == self.output.offset()[planes]
    }

    fn append(
        &mut self,
        buffer: &gst::Buffer,
        order: &[usize],
        matte: Option<&Matte>,
        settings: &MatteSettings,
    ) -> Result<gst::Buffer, ProcessError> {
        let format = self.output.format_info();
        let plane_index = order.len();
        let stride = self.output.stride()[plane_index];
        let size = self.output.size() - self.output.offset()[plane_index];
        let (width, height) = (self.output.width() as usize, self.output.height() as usize);

        let mut plane = self.planes.take(size);
        let frame = Frame::from_buffer_ref_readable(buffer, &self.input)?;
        let guide = frame::guide(&frame);
        if format.depth()[3] == 8 {
            let mut alpha = PlaneMut { data: plane.as_mut(), width, height, stride: stride as usize };
            self.post_processor.write_alpha(settings, matte, guide.as_ref(), &mut alpha)?;
        } else {
            self.scratch.resize(width * height, 0);
            let mut alpha = PlaneMut { data: &mut self.scratch, width, height, stride: width };
            self.post_processor.write_alpha(settings, matte, guide.as_ref(), &mut alpha)?;
            frame::widen_plane(&self.scratch, width, &self.output, plane.as_mut());
        }
        drop(frame);

        let (mut flags, mut offsets, mut strides) =
            (gst_video::VideoFrameFlags::empty(), self.input.offset().to_vec(), self.input.stride().to_vec());
        let mut out = share(buffer)?;
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

    /// The buffer with its bytes declared to be of the output's format, if that can be done.
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
        settings: &MatteSettings,
        allocate: impl FnOnce(&gst::BufferRef) -> Result<gst::Buffer, gst::FlowError>,
    ) -> Result<gst::Buffer, ProcessError> {
        let mut out = allocate(buffer)?;
        let converter = match &mut self.converter {
            Some(converter) => converter,
            none => none.insert(frame::converter(&self.input, &self.output)?),
        };
        let from = Frame::from_buffer_ref_readable(buffer, &self.input)?;
        let mut to = FrameMut::from_buffer_ref_writable(writable(&mut out)?, &self.output)?;
        converter.frame_ref(&from, &mut to);
        let guide = frame::guide(&from);
        let Self { post_processor, alpha_reader, alphas, scratch, .. } = self;
        match alpha_reader {
            None => frame::write_alpha::<ProcessError>(&mut to, scratch, |plane| {
                Ok(post_processor.write_alpha(settings, matte, guide.as_ref(), plane)?)
            })?,
            Some(reader) => {
                let (width, height) = (self.output.width() as usize, self.output.height() as usize);
                alphas.resize(width * height, 0);
                let mut plane = PlaneMut { data: alphas, width, height, stride: width };
                post_processor.write_alpha(settings, matte, guide.as_ref(), &mut plane)?;
                if self.input.has_alpha() {
                    // The conversion has kept it.
                    frame::multiply_alpha(&mut to, alphas)?;
                } else {
                    // AV12, of which GStreamer 1.22 does not know that it has alpha.
                    reader.read(&from, scratch)?;
                    plane.multiply(scratch)?;
                    frame::write_alpha::<ProcessError>(&mut to, scratch, |plane| Ok(plane.copy(alphas)?))?;
                }
            }
        }
        drop(to);
        Ok(out)
    }

    /// The alpha is made before the buffer is written, which is read for it.
    fn write_in_place(
        &mut self,
        mut buffer: gst::Buffer,
        matte: Option<&Matte>,
        settings: &MatteSettings,
    ) -> Result<gst::Buffer, ProcessError> {
        let (width, height) = (self.output.width() as usize, self.output.height() as usize);
        let Self { post_processor, alpha_reader, alphas, scratch, output, .. } = self;
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
            Some(_) => frame::multiply_alpha(&mut mapped, alphas)?,
        }
        drop(mapped);
        Ok(buffer)
    }

    fn overlay(
        &mut self,
        mut buffer: gst::Buffer,
        matte: Option<&Matte>,
        settings: &MatteSettings,
    ) -> Result<gst::Buffer, ProcessError> {
        let Some(matte) = matte else {
            self.post_processor.restart();
            return Ok(buffer);
        };
        let size = (self.input.width() as usize, self.input.height() as usize);
        let tints = {
            let frame = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
            let guide = frame::guide(&frame);
            tints(&mut self.post_processor, matte, settings, guide.as_ref(), size, &mut self.alphas)?
        };
        let alphas = tints.iter().zip(self.alphas.chunks_exact(size.0 * size.1));
        if frame::can_tint(&self.input.format_info()) {
            let mut mapped = FrameMut::from_buffer_ref_writable(buffer.make_mut(), &self.input)?;
            for (&id, alpha) in alphas {
                frame::tint(&mut mapped, alpha, size.0, color(id))?;
            }
            drop(mapped);
            return Ok(buffer);
        }

        let (plain, info, there, back) = match &mut self.tinted {
            Some(tinted) => tinted,
            none => {
                let info = VideoInfo::builder(VideoFormat::Argb, self.input.width(), self.input.height())
                    .fps(self.input.fps())
                    .interlace_mode(self.input.interlace_mode())
                    .build()?;
                let there = frame::converter(&self.input, &info)?;
                let back = frame::converter(&info, &self.input)?;
                none.insert((gst::Buffer::with_size(info.size())?, info, there, back))
            }
        };
        let plain = writable(plain)?;
        {
            let from = Frame::from_buffer_ref_readable(&buffer, &self.input)?;
            let mut to = FrameMut::from_buffer_ref_writable(plain, info)?;
            there.frame_ref(&from, &mut to);
            for (&id, alpha) in alphas {
                frame::tint(&mut to, alpha, size.0, color(id))?;
            }
        }
        let from = Frame::from_buffer_ref_readable(plain, info)?;
        let mut to = FrameMut::from_buffer_ref_writable(buffer.make_mut(), &self.input)?;
        back.frame_ref(&from, &mut to);
        drop(to);
        Ok(buffer)
    }
}

/// The alphas of all objects, or of the chosen one, one plane after the other, and their ids.
fn tints(
    post_processor: &mut PostProcessor,
    matte: &Matte,
    settings: &MatteSettings,
    guide: Option<&Guide>,
    (width, height): (usize, usize),
    alphas: &mut Vec<u8>,
) -> Result<Vec<u8>, ProcessError> {
    let chosen = |id: &u8| settings.object == 0 || settings.object == *id;
    let ids: Vec<u8> = matte.object_ids().iter().copied().filter(chosen).collect();
    alphas.resize(ids.len() * width * height, 0);
    for (&id, data) in ids.iter().zip(alphas.chunks_exact_mut(width * height)) {
        let mut plane = PlaneMut { data, width, height, stride: width };
        post_processor.write_object(settings, matte, id, guide, &mut plane)?;
    }
    Ok(ids)
}

fn writable(buffer: &mut gst::Buffer) -> Result<&mut gst::BufferRef, glib::BoolError> {
    buffer.get_mut().ok_or_else(|| glib::bool_error!("A buffer of our own is in use elsewhere"))
}
