// SPDX-License-Identifier: MPL-2.0

//! Writes a contact sheet that compares two videos: frames of the first above the same frames of the second, as PNG.
//! Fails if the videos differ in their number of frames.
//!
//! ```sh
//! cargo run --release --example contact_sheet -- in.mp4 cutout.mp4 sheet.png
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gst_video::VideoFrameExt;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use image::{RgbImage, imageops};

const COLUMNS: usize = 6;
const GAP: u32 = 4;
/// Longest side of one picture in the sheet, in pixels.
const SIDE: i32 = 320;

/// Evenly spaced frames of one video, few enough to fit in memory.
struct Frames {
    count: usize,
    /// Every `stride`-th frame from the first on, scaled down.
    stride: usize,
    kept: Vec<RgbImage>,
}

impl Frames {
    /// The kept frame nearest to frame `index`.
    fn nearest(&self, index: usize) -> &RgbImage {
        let slot = (index + self.stride / 2) / self.stride;
        &self.kept[slot.min(self.kept.len() - 1)]
    }

    fn push(
        &mut self,
        picture: impl FnOnce() -> Result<RgbImage, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        if self.count.is_multiple_of(self.stride) {
            self.kept.push(picture()?);
            if self.kept.len() > 8 * COLUMNS {
                let mut index = 0;
                self.kept.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride *= 2;
            }
        }
        self.count += 1;
        Ok(())
    }
}

fn decode(path: &Path) -> Result<Frames, Box<dyn Error>> {
    let pipeline = gst::parse::launch(
        "filesrc name=file ! decodebin ! videoconvert ! videoflip video-direction=auto ! \
         videoconvert ! video/x-raw,format=RGB ! appsink name=frames sync=false",
    )?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "not a pipeline")?;
    pipeline.by_name("file").ok_or("no such element")?.set_property("location", path);
    let sink = pipeline
        .by_name("frames")
        .and_then(|e| e.downcast::<gst_app::AppSink>().ok())
        .ok_or("no such element")?;
    // The streaming thread blocks when the queue is full; no frame is dropped.
    sink.set_max_buffers(4);

    let mut frames = Frames { count: 0, stride: 1, kept: Vec::new() };
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    // An error is reported on the bus, with its cause.
    let _ = pipeline.set_state(gst::State::Playing);
    let result = loop {
        if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) {
            if let Err(e) = frames.push(|| thumbnail(&sample)) {
                break Err(e);
            }
        } else if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error])
            && let gst::MessageView::Error(e) = message.view()
        {
            break Err(e.error().to_string().into());
        } else if sink.is_eos() {
            break if frames.count > 0 { Ok(frames) } else { Err("it has no video frames".into()) };
        }
    };
    pipeline.set_state(gst::State::Null)?;
    result.map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

/// Scales a sample to square pixels and a longer side of `SIDE` pixels.
fn thumbnail(sample: &gst::Sample) -> Result<RgbImage, Box<dyn Error>> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().ok_or("a frame without a format")?)?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(
        sample.buffer().ok_or("a sample without a frame")?,
        &info,
    )?;
    let (width, height) = (info.width() as usize, info.height() as usize);
    let stride = usize::try_from(frame.plane_stride()[0])?;
    let mut packed = Vec::with_capacity(3 * width * height);
    for row in frame.plane_data(0)?.chunks(stride).take(height) {
        packed.extend_from_slice(&row[..3 * width]);
    }
    let picture =
        RgbImage::from_raw(width as u32, height as u32, packed).ok_or("a frame of the wrong size")?;
    let par = info.par();
    let shown = f64::from(info.width()) * f64::from(par.numer()) / f64::from(par.denom());
    let scale = f64::from(SIDE) / shown.max(f64::from(info.height()));
    let side = |length: f64| (length * scale).round().max(1.0) as u32;
    Ok(imageops::resize(&picture, side(shown), side(info.height().into()), imageops::FilterType::Triangle))
}

/// Draws the sheet: `COLUMNS` frames at equal distances, the first video's above the second's.
fn sheet(above: &Frames, below: &Frames) -> RgbImage {
    let columns = COLUMNS.min(above.count);
    let (width, high, low) =
        (above.kept[0].width().max(below.kept[0].width()), above.kept[0].height(), below.kept[0].height());
    let mut sheet = RgbImage::from_pixel(
        columns as u32 * (width + GAP) + GAP,
        high + low + 3 * GAP,
        image::Rgb([255; 3]),
    );
    for column in 0..columns {
        let index = column * (above.count - 1) / (columns - 1).max(1);
        let x = i64::from(GAP + column as u32 * (width + GAP));
        imageops::replace(&mut sheet, above.nearest(index), x, GAP.into());
        imageops::replace(&mut sheet, below.nearest(index), x, (high + 2 * GAP).into());
    }
    sheet
}

fn run(above: &Path, below: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    let (first, second) = (decode(above)?, decode(below)?);
    sheet(&first, &second)
        .save_with_format(to, image::ImageFormat::Png)
        .map_err(|e| format!("cannot write {}: {e}", to.display()))?;
    if first.count != second.count {
        return Err(format!(
            "{} has {} frames, {} has {}: the numbers must be equal",
            above.display(),
            first.count,
            below.display(),
            second.count
        )
        .into());
    }
    println!("{}: {} frames in, {} frames out", to.display(), first.count, second.count);
    Ok(())
}

fn main() {
    let Ok([above, below, to]) =
        <[PathBuf; 3]>::try_from(std::env::args_os().skip(1).map(PathBuf::from).collect::<Vec<_>>())
    else {
        eprintln!("usage: contact_sheet IN.mp4 CUTOUT.mp4 SHEET.png");
        std::process::exit(2);
    };
    if let Err(e) = run(&above, &below, &to) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}
