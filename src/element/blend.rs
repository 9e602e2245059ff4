// SPDX-License-Identifier: MPL-2.0

//! Colours of frames by their alpha: estimates of the object's in soft edges, and backgrounds.

use std::sync::Arc;

use glib::BoolError;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoFormat, VideoInfo};

use super::Foreground;
use super::background::Background;
use super::frame::{self, Component, Frame, FrameMut};
use super::process_error::ProcessError;
use crate::image::{OwnedPicture, SamplesMut};
use crate::matte::{BackgroundBlur, ForegroundEstimator, MaskView, subsample};

/// Default standard deviation of the blur: this part of the shorter side of the frame.
const DEFAULT_BLUR: f64 = 1.0 / 40.0;

/// Changes the colours of frames whose colours are separate bytes or words (see [`frame::has_plain_colors`]).
#[derive(Default)]
pub struct Blender {
    estimator: ForegroundEstimator,
    blur: BackgroundBlur,
    alpha: SubsampledAlpha,
    /// Bytes of a component of words, before and after the estimate.
    bytes: [Vec<u8>; 2],
    picture: Option<ConvertedPicture>,
}

/// Alpha at the resolution of the last component.
#[derive(Default)]
struct SubsampledAlpha {
    subsampling: (u32, u32),
    values: Vec<u8>,
}

impl SubsampledAlpha {
    /// Alpha for component `c`. The components of a frame must be read in turn, from 0.
    fn at<'a>(&'a mut self, full: MaskView<'a>, info: &VideoInfo, c: usize) -> MaskView<'a> {
        let format = info.format_info();
        let subsampling = (format.w_sub()[c], format.h_sub()[c]);
        let before = if c == 0 { (0, 0) } else { self.subsampling };
        self.subsampling = subsampling;
        match subsampling {
            (0, 0) => full,
            same if same == before => {
                let (width, height) = (info.comp_width(c as u8) as usize, info.comp_height(c as u8) as usize);
                MaskView { values: &self.values, width, height }
            }
            _ => subsample(full, subsampling, &mut self.values),
        }
    }
}

/// A picture that covers frames of one format, as packed planes of bytes.
struct ConvertedPicture {
    background: Arc<Background>,
    info: VideoInfo,
    planes: Vec<Vec<u8>>,
}

impl Blender {
    /// Replaces the colours of soft edges by estimates of the object's. `alpha` has the size of the frame.
    ///
    /// # Errors
    /// The frame cannot be mapped.
    pub fn estimate_foreground(&mut self, frame: &mut FrameMut, alpha: MaskView) -> Result<(), ProcessError> {
        let info = frame.info().clone();
        for c in 0..frame::colors(&info.format_info()) {
            let alpha = self.alpha.at(alpha, &info, c);
            estimate_component(&mut self.estimator, &mut self.bytes, frame, c, alpha)?;
        }
        Ok(())
    }

    /// Lays the frame over a background, with the colours `foreground` in soft edges. `alpha` has the size of the
    /// frame. The alpha of the frame becomes opaque.
    ///
    /// # Errors
    /// The frame cannot be mapped, or the picture cannot be converted.
    pub fn lay_over(
        &mut self,
        frame: &mut FrameMut,
        alpha: MaskView,
        background: &Arc<Background>,
        foreground: Foreground,
    ) -> Result<(), ProcessError> {
        let info = frame::default_layout(frame.info())?;
        let format = info.format_info();
        for c in 0..frame::colors(&format) {
            let alpha = self.alpha.at(alpha, &info, c);
            let depth = format.depth()[c];
            // Bytes of the background at the depth of the component. Zero is the lowest value of a full range.
            let is_full = format.range_offsets(info.colorimetry().range()).0[c] == 0;
            let mut color = None;
            let row;
            // The rows of the background and their distance.
            let (under, stride) = match &**background {
                Background::Color(value) => {
                    let value = frame::samples(&info, *value)[c].clamp(0, (1 << depth) - 1);
                    color = Some(value);
                    row = vec![(value >> (depth - 8)) as u8; alpha.width];
                    (&row[..], 0)
                }
                Background::Picture(picture) => {
                    let fits = |converted: &ConvertedPicture| {
                        Arc::ptr_eq(&converted.background, background) && converted.info == info
                    };
                    let converted = match self.picture.take().filter(fits) {
                        Some(converted) => converted,
                        None => ConvertedPicture {
                            background: background.clone(),
                            info: info.clone(),
                            planes: cover(picture, &info)?,
                        },
                    };
                    (&self.picture.insert(converted).planes[c][..], alpha.width)
                }
                // The colours of soft edges hold the old background, so they are read before they are estimated.
                Background::Blur(sigma) => {
                    let side = f64::from(info.width().min(info.height()));
                    let sigma = sigma.unwrap_or(DEFAULT_BLUR * side).max(1.0);
                    let reduced = |subsampling: u32| sigma / f64::from(1 << subsampling);
                    let sigma = (reduced(format.w_sub()[c]), reduced(format.h_sub()[c]));
                    let mut component = Component::of(frame, c as u32)?;
                    let plane = match component.bytes() {
                        Some(samples) => self.blur.blur(&samples, alpha, sigma)?,
                        None => {
                            let bytes = &mut self.bytes[0];
                            bytes.clear();
                            frame::read_component(frame, c, bytes)?;
                            self.blur.blur(&packed(bytes, alpha), alpha, sigma)?
                        }
                    };
                    (&*plane.data, plane.stride)
                }
            };
            if foreground == Foreground::Estimate {
                estimate_component(&mut self.estimator, &mut self.bytes, frame, c, alpha)?;
            }
            let widen = |under: u8| match color {
                Some(color) => color,
                None if is_full => frame::widen(under, depth),
                None => i32::from(under) << (depth - 8),
            };
            let rows = |y: usize| &under[y * stride..];
            lay_component(&mut Component::of(frame, c as u32)?, alpha, rows, widen)?;
        }
        if frame::has_plain_alpha(&format) {
            frame::write_alpha::<ProcessError>(frame, &mut self.bytes[0], |plane| Ok(plane.fill(255)?))?;
        }
        Ok(())
    }
}

/// Packed samples of the size of `alpha`.
fn packed<'a>(data: &'a mut [u8], alpha: MaskView) -> SamplesMut<'a> {
    SamplesMut { data, width: alpha.width, height: alpha.height, stride: alpha.width, step: 1 }
}

fn estimate_component(
    estimator: &mut ForegroundEstimator,
    [before, after]: &mut [Vec<u8>; 2],
    frame: &mut FrameMut,
    c: usize,
    alpha: MaskView,
) -> Result<(), ProcessError> {
    if let Some(mut samples) = Component::of(frame, c as u32)?.bytes() {
        return Ok(estimator.estimate(&mut samples, alpha)?);
    }
    before.clear();
    frame::read_component(frame, c, before)?;
    after.clone_from(before);
    estimator.estimate(&mut packed(after, alpha), alpha)?;
    let mut component = Component::of(frame, c as u32)?;
    let (scale, largest) = (1 << (component.depth - 8), (1 << component.depth) - 1);
    component.update(|x, y, value| {
        let index = y * alpha.width + x;
        let change = scale * (i32::from(after[index]) - i32::from(before[index]));
        ((value & largest) + change).clamp(0, largest)
    });
    Ok(())
}

/// Lays a component over bytes. `under` returns a row of them, and `widen` a byte at the depth of the component.
fn lay_component<'a>(
    component: &mut Component,
    alpha: MaskView,
    under: impl Fn(usize) -> &'a [u8],
    widen: impl Fn(u8) -> i32,
) -> crate::Result<()> {
    if let Some(mut samples) = component.bytes() {
        return samples.lay_over(alpha.values, under);
    }
    let largest = (1 << component.depth) - 1;
    component.update(|x, y, value| {
        let alpha = i64::from(alpha.values[y * alpha.width + x]);
        let (over, under) = (i64::from(value & largest), i64::from(widen(under(y)[x])));
        ((over * alpha + under * (255 - alpha) + 127) / 255) as i32
    });
    Ok(())
}

/// Returns the components of a picture that is scaled to cover a frame, its middle in the middle of the frame.
fn cover(picture: &OwnedPicture, info: &VideoInfo) -> Result<Vec<Vec<u8>>, BoolError> {
    let info = &frame::safe_to_convert(info)?;
    let view = picture.as_picture();
    let (width, height) = (f64::from(info.width()), f64::from(info.height()));
    let aspect = width * f64::from(info.par().numer()) / (height * f64::from(info.par().denom()));
    let side = |length: f64, limit: usize| (length.round() as usize).clamp(1, limit);
    let columns = side(view.height as f64 * aspect, view.width);
    let rows = side(view.width as f64 / aspect, view.height);
    let (left, top) = ((view.width - columns) / 2, (view.height - rows) / 2);

    let rgb = |size: (u32, u32)| frame::in_format(info, VideoFormat::Rgb, size);
    let (crop_info, scaled_info) = (rgb((columns as u32, rows as u32))?, rgb((info.width(), info.height()))?);
    let mut crop = vec![0; crop_info.size()];
    for (y, row) in crop.chunks_mut(crop_info.stride()[0] as usize).enumerate() {
        row[..3 * columns].copy_from_slice(&view.data[(top + y) * view.stride + 3 * left..][..3 * columns]);
    }
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
    let scaler = gst_video::VideoConverter::new(&crop_info, &scaled_info, Some(config))?;
    let mut scaled = convert(scaler, &gst::Buffer::from_mut_slice(crop), &crop_info, &scaled_info)?;
    if frame::is_hdr(&info.colorimetry()) {
        let mut mapped = FrameMut::from_buffer_ref_writable(scaled.make_mut(), &scaled_info)?;
        let (stride, length) = (scaled_info.stride()[0] as usize, 3 * info.width() as usize);
        let rows = mapped.plane_data_mut(0)?.chunks_mut(stride).map(|row| &mut row[..length]);
        for pixel in rows.flat_map(|row| row.chunks_exact_mut(3)) {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(|value| f64::from(value) / 255.0);
            let color = frame::in_hdr([r, g, b], &info.colorimetry());
            pixel.iter_mut().zip(color).for_each(|(to, value)| *to = (255.0 * value).round() as u8);
        }
    }
    let converted = convert(frame::converter(&scaled_info, info)?, &scaled, &scaled_info, info)?;
    let frame = Frame::from_buffer_ref_readable(&converted, info)?;
    let read = |c: usize| {
        let mut plane = Vec::new();
        frame::read_component(&frame, c, &mut plane).map(|()| plane)
    };
    (0..frame::colors(&info.format_info())).map(read).collect()
}

fn convert(
    converter: gst_video::VideoConverter,
    from: &gst::BufferRef,
    from_info: &VideoInfo,
    to_info: &VideoInfo,
) -> Result<gst::Buffer, BoolError> {
    let mut to = gst::Buffer::with_size(to_info.size())?;
    let from = Frame::from_buffer_ref_readable(from, from_info)?;
    let mut frame = FrameMut::from_buffer_ref_writable(to.make_mut(), to_info)?;
    converter.frame_ref(&from, &mut frame);
    drop(frame);
    Ok(to)
}
