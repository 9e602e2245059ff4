// SPDX-License-Identifier: MPL-2.0

//! References from samples of raw video of any format.

use std::path::Path;

use gstreamer as gst;
use gstreamer_video::prelude::*;
use gstreamer_video::video_frame::Readable;
use gstreamer_video::{VideoFormat, VideoFrame, VideoInfo};

use super::reference::{self, Reference};
use crate::element::frame::{self, Frame, FrameMut};
use crate::image::{MAX_SIDE, OwnedPicture, check_size};
use crate::mask::ReferenceMask;
use crate::{Error, Result};

/// Maximum number of pixels of a frame that is kept with its mask (3 MiB). The tracker enlarges crop windows of at
/// least .16 of the frame to the network's size, by default 336x192.
const MAX_REFERENCE_PIXELS: f64 = (1 << 20) as f64;

/// Used in errors in place of a path.
const IN_MEMORY: &str = "(in memory)";

impl Reference {
    /// Reads a mask and the image that it belongs to. Without an image, it belongs to the next buffer.
    ///
    /// # Errors
    /// A sample is not raw video or cannot be mapped, and errors of [`ReferenceMask`] and [`reference::check`].
    pub fn from_samples(mask: &gst::SampleRef, image: Option<&gst::SampleRef>) -> Result<Self> {
        let path = Path::new(IN_MEMORY);
        let error = |reason: String| Error::Mask { path: path.to_owned(), reason };
        let mask = with_frame(mask, read_mask).map_err(error)??;
        reference::check(&mask, path)?;
        let error = |reason: String| Error::Picture { path: path.to_owned(), reason };
        let image = image.map(|image| with_frame(image, read_image).map_err(error)?).transpose()?;
        Ok(Self::new(mask, image))
    }
}

/// Calls `read` with the mapped frame of a sample. The error gives the reason and the remedy.
fn with_frame<T>(
    sample: &gst::SampleRef,
    read: impl FnOnce(&Frame) -> Result<T, glib::BoolError>,
) -> Result<T, String> {
    let caps = sample.caps().ok_or("it has no caps: set raw video caps")?;
    if !caps.is_fixed() {
        return Err(format!("its caps {caps} are not fixed: give one format, width and height"));
    }
    let length = |name| caps.structure(0).and_then(|caps| caps.get::<i32>(name).ok()?.try_into().ok());
    if let Some((width, height)) = length("width").zip(length("height")) {
        check_size(width, height)?;
    }
    // Encoded formats have a video info as well.
    let info = VideoInfo::from_caps(caps)
        .ok()
        .filter(|info| info.is_valid() && VideoFormat::iter_raw().any(|format| format == info.format()))
        .ok_or_else(|| {
            format!("its caps are {caps}: give raw video (video/x-raw), decoded and in system memory")
        })?;
    let mut buffer = sample.buffer_owned().ok_or("it has no buffer: add a buffer with the picture")?;
    frame::remove_field_flags(&mut buffer);
    frame::check_meta(&buffer, &info).map_err(|error| error.to_string())?;
    let frame = Frame::from_buffer_ref_readable(&buffer, &info).map_err(|error| {
        format!(
            "its buffer of {} bytes cannot be mapped as {caps} ({error}): use the size and strides of the \
             caps, or add a video meta",
            buffer.size()
        )
    })?;
    read(&frame).map_err(|error| format!("it cannot be converted from {caps} ({error}): give RGBA or GRAY8"))
}

/// Reads a mask from the alpha channel, or from the brightness if there is no alpha or all of it is opaque.
fn read_mask(frame: &Frame) -> Result<Result<ReferenceMask>, glib::BoolError> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    if frame.format() == VideoFormat::Gray8 {
        return Ok(ReferenceMask::from_grey(width, height, component(frame, 0)?));
    }
    let format = frame.format_info();
    if frame::has_plain_alpha(&format) || format.has_alpha() {
        let alpha = if frame::has_plain_alpha(&format) && format.depth()[3] == 8 {
            component(frame, 3)?
        } else {
            let argb = packed(&convert(frame, VideoFormat::Argb)?)?;
            let mut alpha: Vec<u8> = argb.chunks(4).filter_map(|pixel| pixel.first().copied()).collect();
            frame::correct_unpacked_alpha(&format, &mut alpha);
            alpha
        };
        // A black and white mask that was converted to RGBA is opaque everywhere.
        if alpha.iter().any(|&value| value != 255) {
            return Ok(ReferenceMask::from_alpha(width, height, alpha));
        }
    }
    Ok(ReferenceMask::from_soft(width, height, brightness(frame)?))
}

/// Brightness from 0 (black) to 255 (white), for any range of the samples.
fn brightness(frame: &Frame) -> Result<Vec<u8>, glib::BoolError> {
    if !frame.format_info().is_yuv() {
        return packed(&convert(frame, VideoFormat::Gray8)?);
    }
    // A direct conversion from YUV to grey copies luma, with black at 16 and white at 235.
    let rgb = convert(frame, VideoFormat::Rgb)?;
    packed(&convert(&rgb.as_video_frame_ref(), VideoFormat::Gray8)?)
}

/// Returns a copy of a frame.
///
/// # Errors
/// The format cannot be converted.
pub fn read_image(frame: &Frame) -> Result<Result<OwnedPicture>, glib::BoolError> {
    picture(frame, (frame.width(), frame.height()))
}

/// Returns a copy of a frame from which tracking can resume later, scaled to at most [`MAX_REFERENCE_PIXELS`] and [`MAX_SIDE`].
///
/// # Errors
/// The format cannot be converted.
pub fn reference_picture(frame: &Frame) -> Result<Result<OwnedPicture>, glib::BoolError> {
    let (width, height) = (frame.width(), frame.height());
    let scale = (MAX_REFERENCE_PIXELS / (f64::from(width) * f64::from(height))).sqrt().min(1.0);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).clamp(1, MAX_SIDE as u32);
    picture(frame, (side(width), side(height)))
}

fn picture(frame: &Frame, size: (u32, u32)) -> Result<Result<OwnedPicture>, glib::BoolError> {
    let rgb = packed(&scale(frame, VideoFormat::Rgb, size)?)?;
    Ok(OwnedPicture::from_rgb(size.0 as usize, size.1 as usize, rgb))
}

/// Returns the bytes of a component with one byte per pixel and without subsampling.
fn component(frame: &Frame, component: u32) -> Result<Vec<u8>, glib::BoolError> {
    let upside_down = |_| glib::bool_error!("it is stored upside down, which is not supported for masks");
    let stride = usize::try_from(frame.comp_stride(component)).map_err(upside_down)?.max(1);
    let step = usize::try_from(frame.comp_pstride(component)).unwrap_or_default().max(1);
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let rows = frame.comp_data(component)?.chunks(stride).take(height);
    Ok(rows.flat_map(|row| row.iter().step_by(step).take(width)).copied().collect())
}

fn convert(frame: &Frame, format: VideoFormat) -> Result<VideoFrame<Readable>, glib::BoolError> {
    scale(frame, format, (frame.width(), frame.height()))
}

fn scale(
    frame: &Frame,
    format: VideoFormat,
    size: (u32, u32),
) -> Result<VideoFrame<Readable>, glib::BoolError> {
    let input = frame::safe_to_convert(frame.info())?;
    let output = frame::in_format(&input, format, size)?;
    let mut buffer = gst::Buffer::with_size(output.size())?;
    let inner = buffer.get_mut().ok_or_else(|| glib::bool_error!("the new buffer is not writable"))?;
    let mut out = FrameMut::from_buffer_ref_writable(inner, &output)?;
    frame::converter(&input, &output)?.frame_ref(frame, &mut out);
    drop(out);
    VideoFrame::from_buffer_readable(buffer, &output)
        .map_err(|_| glib::bool_error!("the new buffer cannot be mapped"))
}

/// Returns the bytes of a frame with one plane, without padding.
fn packed(frame: &VideoFrame<Readable>) -> Result<Vec<u8>, glib::BoolError> {
    let row = frame.width() as usize * usize::try_from(frame.comp_pstride(0)).unwrap_or_default();
    let stride = usize::try_from(frame.plane_stride()[0]).unwrap_or_default().max(1);
    let rows = frame.plane_data(0)?.chunks(stride).take(frame.height() as usize);
    Ok(rows.flat_map(|line| &line[..row.min(line.len())]).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gstreamer_video as gst_video;

    const SIZE: (u32, u32) = (6, 4);

    fn value(index: usize) -> u8 {
        20 + 9 * index as u8
    }

    /// Returns a sample in the format `to`, converted from a frame in `from` whose pixels are `pixel(index)`.
    fn sample<const N: usize>(
        from: VideoFormat,
        to: VideoFormat,
        pixel: impl Fn(usize) -> [u8; N],
    ) -> gst::Sample {
        gst::init().unwrap();
        let info = |format| VideoInfo::builder(format, SIZE.0, SIZE.1).build().unwrap();
        let (from, to) = (info(from), info(to));
        let mut bytes = vec![0; from.size()];
        for (y, row) in bytes.chunks_mut(from.stride()[0] as usize).enumerate() {
            for (x, target) in row.chunks_exact_mut(N).take(SIZE.0 as usize).enumerate() {
                target.copy_from_slice(&pixel(y * SIZE.0 as usize + x));
            }
        }
        let buffer = gst::Buffer::from_mut_slice(bytes);
        let mut out = gst::Buffer::with_size(to.size()).unwrap();
        {
            let buffer = Frame::from_buffer_ref_readable(&buffer, &from).unwrap();
            let mut out = FrameMut::from_buffer_ref_writable(out.get_mut().unwrap(), &to).unwrap();
            frame::converter(&from, &to).unwrap().frame_ref(&buffer, &mut out);
        }
        gst::Sample::builder().buffer(&out).caps(&to.to_caps().unwrap()).build()
    }

    fn read(sample: &gst::Sample) -> ReferenceMask {
        std::sync::Arc::into_inner(Reference::from_samples(sample, None).unwrap().mask).unwrap()
    }

    fn expected() -> Vec<u8> {
        (0..24).map(value).collect()
    }

    #[test]
    fn alpha_is_read_from_every_format() {
        gst::init().unwrap();
        for format in VideoFormat::iter_raw() {
            if !gst_video::VideoFormatInfo::from_format(format).has_alpha() || format == VideoFormat::Rgb8p {
                continue;
            }
            let mask = read(&sample(VideoFormat::Argb, format, |index| [value(index), 9, 8, 7]));
            let alpha = &mask.objects()[0].alpha;
            let close = alpha.iter().zip(expected()).all(|(a, b)| a.abs_diff(b) <= 1);
            let coarse = format == VideoFormat::Bgr10a2Le || format == VideoFormat::Rgb10a2Le;
            assert!(coarse || close, "{format:?}: {alpha:?}");
        }
    }

    #[test]
    fn brightness_is_read_from_formats_without_alpha() {
        use VideoFormat::{Bgrx, Gray16Le, I420, Nv12, Rgb, Rgba};
        for format in [Rgb, Bgrx, I420, Nv12, Gray16Le, Rgba] {
            let mask = read(&sample(VideoFormat::Rgb, format, |index| [value(index); 3]));
            let alpha = &mask.objects()[0].alpha;
            // GStreamer's fast conversion from YUV is not exact.
            assert!(alpha.iter().zip(expected()).all(|(a, b)| a.abs_diff(b) <= 5), "{format:?}: {alpha:?}");
            let white = read(&sample(VideoFormat::Rgb, format, |_| [255; 3]));
            assert!(white.objects()[0].alpha.iter().all(|&value| value >= 250), "{format:?}");
        }
    }

    #[test]
    fn grey_is_read_as_in_files() {
        let grey = |value: fn(usize) -> u8| {
            read(&sample(VideoFormat::Gray8, VideoFormat::Gray8, move |index| [value(index)]))
        };
        assert_eq!(grey(value).objects()[0].alpha, expected());
        let ids: Vec<u8> = grey(|index| index as u8 % 4).objects().iter().map(|object| object.id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn images_become_rgb() {
        let mask = sample(VideoFormat::Gray8, VideoFormat::Gray8, |_| [255]);
        let image = sample(VideoFormat::Rgb, VideoFormat::Bgrx, |index| [value(index), 1, 2]);
        let image = Reference::from_samples(&mask, Some(&image)).unwrap().image.unwrap();
        let picture = image.as_picture();
        assert_eq!((picture.width, picture.height, picture.stride), (6, 4, 18));
        assert_eq!(picture.data[18..24], [value(6), 1, 2, value(7), 1, 2]);
    }

    #[test]
    fn large_frames_are_scaled_down_with_their_aspect_ratio() {
        gst::init().unwrap();
        for ((width, height), kept) in [
            ((64, 48), (64, 48)),
            ((1280, 720), (1280, 720)),
            ((3840, 2160), (1365, 768)),
            ((1, 9000), (1, 9000)),
            ((17_000, 16), (16_384, 16)),
        ] {
            let info = VideoInfo::builder(VideoFormat::Nv12, width, height).build().unwrap();
            let buffer = gst::Buffer::from_mut_slice(vec![128u8; info.size()]);
            let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
            let picture = reference_picture(&frame).unwrap().unwrap();
            let view = picture.as_picture();
            assert_eq!((view.width, view.height, view.stride), (kept.0, kept.1, 3 * kept.0));
            assert!(view.data.iter().all(|value| value.abs_diff(130) < 5), "grey");
        }
    }

    #[test]
    fn bad_samples_name_the_remedy() {
        let error = |sample: &gst::Sample| Reference::from_samples(sample, None).unwrap_err().to_string();
        let good = sample(VideoFormat::Gray8, VideoFormat::Gray8, |_| [255]);
        let black = sample(VideoFormat::Gray8, VideoFormat::Gray8, |_| [0]);
        assert!(error(&black).contains("paint the object white"));
        let transparent = sample(VideoFormat::Rgba, VideoFormat::Rgba, |_| [255, 255, 255, 0]);
        assert!(error(&transparent).contains("the object must be opaque"));
        let many = sample(VideoFormat::Gray8, VideoFormat::Gray8, |index| [index as u8 % 17]);
        assert_eq!(read(&many).objects().len(), 16);

        let png = gst::Caps::new_empty_simple("image/png");
        let buffer = good.buffer_owned().unwrap();
        assert!(error(&gst::Sample::builder().buffer(&buffer).caps(&png).build()).contains("give raw video"));
        assert!(error(&gst::Sample::builder().buffer(&buffer).build()).contains("no caps"));
        let caps = good.caps_owned().unwrap();
        assert!(error(&gst::Sample::builder().caps(&caps).build()).contains("no buffer"));
        let small = gst::Buffer::with_size(5).unwrap();
        let message = error(&gst::Sample::builder().buffer(&small).caps(&caps).build());
        assert!(message.contains("5 bytes"), "{message}");
        let image = Reference::from_samples(&good, Some(&gst::Sample::builder().caps(&png).build()));
        assert!(image.unwrap_err().to_string().contains("picture (in memory)"));
    }
}
