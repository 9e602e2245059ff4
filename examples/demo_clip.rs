// SPDX-License-Identifier: MPL-2.0

//! Writes the demo clip and the mask of its first frame. A textured object moves, rotates, grows and changes shape in
//! front of a moving textured background; a distractor comes close to it. The clip has sound.
//!
//! ```sh
//! cargo run --release --example demo_clip -- clip.mp4 mask.png
//! ```
//!
//! The clip is drawn by formulas, so that it needs no licence and no download.

use std::error::Error;
use std::f32::consts::TAU;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

/// Size and length of a clip.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of frames.
    pub frames: usize,
    /// Frames per second.
    pub rate: usize,
}

impl Default for Clip {
    fn default() -> Self {
        Self { width: 640, height: 360, frames: 120, rate: 30 }
    }
}

type Rgb = [f32; 3];

/// Samples along one side of a pixel, for antialiasing.
const SUBSAMPLES: usize = 2;

/// Smooth noise in 0..=1 that repeats every `SIDE` units in both directions.
struct Noise(Vec<f32>);

impl Noise {
    const SIDE: usize = 256;

    /// Sums four octaves of interpolated lattice noise. `seed` selects the texture.
    fn new(seed: u32) -> Self {
        let lattice = |x: usize, y: usize, octave: u32| {
            // Hashes the coordinates (xorshift-multiply).
            let mut h = seed ^ ((x as u32) << 16) ^ (y as u32) ^ (octave << 28);
            h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
            h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
            ((h ^ (h >> 16)) & 0xffff) as f32 / 65535.0
        };
        let mut values = vec![0.0; Self::SIDE * Self::SIDE];
        for octave in 0..4 {
            let cells = 8 << octave;
            let scale = cells as f32 / Self::SIDE as f32;
            let weight = 0.5f32.powi(octave as i32 + 1) / (1.0 - 0.5f32.powi(4));
            for (i, value) in values.iter_mut().enumerate() {
                let (x, y) = ((i % Self::SIDE) as f32 * scale, (i / Self::SIDE) as f32 * scale);
                let (x0, y0) = (x as usize, y as usize);
                let (x1, y1) = ((x0 + 1) % cells, (y0 + 1) % cells);
                let (fx, fy) = (smooth(x.fract()), smooth(y.fract()));
                let top = mix(lattice(x0, y0, octave), lattice(x1, y0, octave), fx);
                let bottom = mix(lattice(x0, y1, octave), lattice(x1, y1, octave), fx);
                *value += weight * mix(top, bottom, fy);
            }
        }
        Self(values)
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let side = Self::SIDE as f32;
        let (x, y) = (x.rem_euclid(side), y.rem_euclid(side));
        let (x0, y0) = (x as usize % Self::SIDE, y as usize % Self::SIDE);
        let (x1, y1) = ((x0 + 1) % Self::SIDE, (y0 + 1) % Self::SIDE);
        let row = |y: usize| mix(self.0[y * Self::SIDE + x0], self.0[y * Self::SIDE + x1], x.fract());
        mix(row(y0), row(y1), y.fract())
    }
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

fn mix_rgb(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [mix(a[0], b[0], t), mix(a[1], b[1], t), mix(a[2], b[2], t)]
}

/// Pose of an object in one frame. Lengths are relative to the frame height.
struct Pose {
    x: f32,
    y: f32,
    rotation: f32,
    size: f32,
    /// Amplitudes of the outline's third and second harmonic.
    bulge: (f32, f32),
}

impl Pose {
    /// Converts a point to the object's coordinates, in which its texture is fixed. `None` outside the object.
    fn inside(&self, x: f32, y: f32) -> Option<(f32, f32)> {
        let (dx, dy) = ((x - self.x) / self.size, (y - self.y) / self.size);
        let (sin, cos) = self.rotation.sin_cos();
        let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
        let angle = v.atan2(u);
        let radius = 1.0 + self.bulge.0 * (3.0 * angle).cos() + self.bulge.1 * (2.0 * angle + 1.0).sin();
        (u * u + v * v <= radius * radius).then_some((u, v))
    }
}

/// The drawn scene.
pub struct Scene {
    clip: Clip,
    background: Noise,
    object_texture: Noise,
}

impl Scene {
    /// Creates the scene of a clip.
    pub fn new(clip: Clip) -> Self {
        Self { clip, background: Noise::new(1), object_texture: Noise::new(2) }
    }

    /// Pose of the object at time `t`, which runs from 0 to 1 over the clip.
    fn object(&self, t: f32) -> Pose {
        Pose {
            x: 0.55 + 0.75 * smooth(t) + 0.05 * (2.0 * TAU * t).sin(),
            y: 0.52 + 0.13 * (1.5 * TAU * t).sin(),
            rotation: 0.35 * TAU * t,
            size: 0.21 + 0.05 * (TAU * t).sin(),
            bulge: (0.16 + 0.06 * (2.0 * TAU * t).cos(), 0.1 * (TAU * t).cos()),
        }
    }

    fn distractor(&self, t: f32) -> Pose {
        Pose {
            x: 1.5 - 0.45 * t,
            y: 0.22 + 0.06 * (TAU * t).cos(),
            rotation: -0.4 * TAU * t,
            size: 0.13,
            bulge: (0.0, 0.22),
        }
    }

    fn object_colour(&self, u: f32, v: f32) -> Rgb {
        let grain = self.object_texture.at(60.0 * u + 100.0, 60.0 * v + 100.0);
        let base = mix_rgb([0.93, 0.55, 0.12], [0.72, 0.16, 0.10], grain);
        let stripe = smooth((0.5 + 0.5 * (9.0 * u + 3.0 * grain).sin()).clamp(0.0, 1.0));
        let spot = ((u - 0.35).powi(2) + (v + 0.25).powi(2) < 0.05) as u8 as f32;
        let body = mix_rgb(base, [0.98, 0.86, 0.55], 0.55 * stripe);
        mix_rgb(body, [0.15, 0.08, 0.10], 0.9 * spot)
    }

    fn distractor_colour(&self, u: f32, v: f32) -> Rgb {
        let grain = self.object_texture.at(90.0 * u, 90.0 * v);
        let check = ((3.0 * u).floor() + (3.0 * v).floor()).rem_euclid(2.0);
        mix_rgb(mix_rgb([0.20, 0.25, 0.65], [0.55, 0.65, 0.95], grain), [0.10, 0.10, 0.25], 0.5 * check)
    }

    fn background_colour(&self, x: f32, y: f32, t: f32) -> Rgb {
        let (x, y) = (x + 0.3 * t, y + 0.04 * (TAU * t).sin());
        let coarse = smooth((1.8 * self.background.at(110.0 * x, 110.0 * y) - 0.4).clamp(0.0, 1.0));
        let fine = self.background.at(390.0 * x + 31.0, 390.0 * y + 77.0);
        let leaf = mix_rgb([0.13, 0.27, 0.16], [0.52, 0.62, 0.38], coarse);
        mix_rgb(leaf, [0.36, 0.38, 0.40], 0.8 * fine * fine)
    }

    /// Draws a frame: packed RGB rows, and the object's coverage of each pixel, 0 to 255.
    pub fn draw(&self, frame: usize) -> (Vec<u8>, Vec<u8>) {
        let Clip { width, height, .. } = self.clip;
        let t = frame as f32 / (self.clip.frames - 1).max(1) as f32;
        let (object, distractor) = (self.object(t), self.distractor(t));
        let step = 1.0 / (height * SUBSAMPLES) as f32;
        let share = 1.0 / (SUBSAMPLES * SUBSAMPLES) as f32;
        let mut picture = Vec::with_capacity(3 * width * height);
        let mut mask = Vec::with_capacity(width * height);
        for row in 0..height {
            for column in 0..width {
                let (mut colour, mut cover) = ([0.0; 3], 0.0);
                for sample in 0..SUBSAMPLES * SUBSAMPLES {
                    let x = (column * SUBSAMPLES + sample % SUBSAMPLES) as f32 * step;
                    let y = (row * SUBSAMPLES + sample / SUBSAMPLES) as f32 * step;
                    let sample_colour = if let Some((u, v)) = object.inside(x, y) {
                        cover += share;
                        self.object_colour(u, v)
                    } else if let Some((u, v)) = distractor.inside(x, y) {
                        self.distractor_colour(u, v)
                    } else {
                        self.background_colour(x, y, t)
                    };
                    for (sum, value) in colour.iter_mut().zip(sample_colour) {
                        *sum += share * value;
                    }
                }
                picture.extend(colour.map(|c| (255.0 * c).round() as u8));
                mask.push((255.0f32 * cover).round() as u8);
            }
        }
        (picture, mask)
    }
}

/// Returns the first of these elements that is installed.
fn first_of<'a>(names: &[&'a str]) -> Result<&'a str, Box<dyn Error>> {
    names
        .iter()
        .copied()
        .find(|name| gst::ElementFactory::find(name.split(' ').next().unwrap_or(name)).is_some())
        .ok_or_else(|| {
            format!(
                "none of these GStreamer elements is installed: {}; run scripts/setup.sh",
                names.join(", ")
            )
            .into()
        })
}

/// Writes the clip as MP4 (H.264 and AAC) to `video` and the mask of the first frame as grey PNG to `mask`.
pub fn write(clip: Clip, video: &Path, mask: &Path) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    let Clip { width, height, frames, rate } = clip;
    let h264 = first_of(&[
        "x264enc speed-preset=fast quantizer=20 pass=quant key-int-max=30",
        "openh264enc bitrate=4000000",
    ])?;
    let aac = first_of(&["avenc_aac", "voaacenc"])?;
    const AUDIO_RATE: usize = 48_000;
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=frames format=time block=true max-buffers=4 ! videoconvert ! video/x-raw,format=I420 ! {h264} ! h264parse ! queue ! mux. \
         audiotestsrc wave=ticks freq=660 volume=0.4 tick-interval=500000000 sine-periods-per-tick=60 \
           samplesperbuffer={} num-buffers={frames} ! audio/x-raw,rate={AUDIO_RATE},channels=2 \
           ! audioconvert ! {aac} ! aacparse ! queue max-size-time=0 max-size-buffers=0 ! mux. \
         mp4mux name=mux ! filesink name=file",
        AUDIO_RATE / rate
    ))?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "not a pipeline")?;
    let by_name = |name: &str| pipeline.by_name(name).ok_or("no such element");
    by_name("file")?.set_property("location", video);
    let source = by_name("frames")?.downcast::<gst_app::AppSrc>().map_err(|_| "not an appsrc")?;
    source.set_caps(Some(
        &gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", width as i32)
            .field("height", height as i32)
            .field("framerate", gst::Fraction::new(rate as i32, 1))
            .field("colorimetry", "sRGB")
            .build(),
    ));

    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    pipeline.set_state(gst::State::Playing)?;
    let scene = Scene::new(clip);
    // GStreamer's RGB rows are padded to four bytes.
    let stride = (3 * width).next_multiple_of(4);
    let time = |frame: usize| gst::ClockTime::from_nseconds((frame * 1_000_000_000 / rate) as u64);
    for frame in 0..frames {
        let (picture, cover) = scene.draw(frame);
        if frame == 0 {
            image::save_buffer(mask, &cover, width as u32, height as u32, image::ColorType::L8)
                .map_err(|e| format!("cannot write {}: {e}", mask.display()))?;
        }
        let mut rows = vec![0; stride * height];
        for (to, from) in rows.chunks_exact_mut(stride).zip(picture.chunks_exact(3 * width)) {
            to[..3 * width].copy_from_slice(from);
        }
        let mut buffer = gst::Buffer::from_mut_slice(rows);
        let meta = buffer.get_mut().ok_or("the new buffer is shared")?;
        meta.set_pts(time(frame));
        meta.set_duration(time(frame + 1) - time(frame));
        if source.push_buffer(buffer).is_err() {
            // The error is on the bus.
            break;
        }
    }
    let _ = source.end_of_stream();
    let message = bus.timed_pop_filtered(None, &[gst::MessageType::Eos, gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null)?;
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Error(e)) => {
            Err(format!("cannot write {}: {}", video.display(), e.error()).into())
        }
        _ => Ok(()),
    }
}

const USAGE: &str = "usage: demo_clip CLIP.mp4 MASK.png [--size WxH] [--frames N]";

fn parse(args: impl Iterator<Item = String>) -> Option<(Clip, PathBuf, PathBuf)> {
    let mut clip = Clip::default();
    let mut paths = Vec::new();
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--size" => {
                let size = args.next()?;
                let (w, h) = size.split_once('x')?;
                (clip.width, clip.height) = (w.parse().ok()?, h.parse().ok()?);
            }
            "--frames" => clip.frames = args.next()?.parse().ok()?,
            flag if flag.starts_with('-') => return None,
            path => paths.push(PathBuf::from(path)),
        }
    }
    let valid = clip.frames > 0 && [clip.width, clip.height].iter().all(|s| *s >= 16 && s % 2 == 0);
    let [video, mask] = <[PathBuf; 2]>::try_from(paths).ok()?;
    valid.then_some((clip, video, mask))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some((clip, video, mask)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}\nWidth and height must be even and at least 16.");
        std::process::exit(2);
    };
    write(clip, &video, &mask)?;
    println!(
        "{}: {} frames of {}x{}; {}: mask of the first frame",
        video.display(),
        clip.frames,
        clip.width,
        clip.height,
        mask.display()
    );
    Ok(())
}
