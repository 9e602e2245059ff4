// SPDX-License-Identifier: MPL-2.0

//! Runs the code path of a GPU on the CPU: frames as planes, static input buffers, mattes enlarged on the device. Its
//! results must match those of the CPU path.

use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::image::{FrameSource, Picture, PlaneMut, Region};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::matte::{Edges, Guide, MatteSettings, PostProcessor};
use gstfastganseg::tracker::{Launch, Options, Roi, Tracker};

const WIDTH: usize = 400;
const HEIGHT: usize = 300;
const FRAMES: usize = 20;

fn tracker(launch: Launch) -> Tracker {
    let options = Options {
        launch,
        device: DeviceChoice::Cpu,
        precision: Precision::Float32,
        roi: Roi::Frame,
        ..Options::default()
    };
    Tracker::new(&options).unwrap()
}

/// Centre of the object, in pixels.
fn centre(frame: usize) -> (f64, f64) {
    let t = frame as f64 * 0.12;
    (200.0 + 110.0 * t.sin(), 150.0 + 50.0 * (1.3 * t).cos() - 50.0)
}

fn inside(frame: usize, x: usize, y: usize) -> bool {
    let (u, v) = centre(frame);
    ((x as f64 - u) / 45.0).powi(2) + ((y as f64 - v) / 35.0).powi(2) < 1.0
}

/// A textured orange disk on a textured blue background. Frames 9 to 12 have no disk.
fn pixels(frame: usize) -> Vec<u8> {
    let absent = (9..13).contains(&frame);
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let texture = ((x / 7 * 5 + y / 7 * 11) % 40) as u8;
        if !absent && inside(frame, x, y) {
            [190 + texture, 90 + texture, 20]
        } else {
            [30 + texture, 70, 140 - texture]
        }
    };
    (0..WIDTH * HEIGHT).flat_map(pixel).collect()
}

fn picture(data: &[u8]) -> Picture<'_> {
    Picture { data, width: WIDTH, height: HEIGHT, stride: 3 * WIDTH }
}

fn mask(objects: u8) -> ReferenceMask {
    let label = |i: usize| match (inside(0, i % WIDTH, i / WIDTH), objects) {
        (false, _) => 0,
        (true, 1) => 1,
        (true, _) => 1 + u8::from((i % WIDTH) as f64 > centre(0).0),
    };
    ReferenceMask::from_labels(WIDTH, HEIGHT, &(0..WIDTH * HEIGHT).map(label).collect::<Vec<_>>()).unwrap()
}

/// A picture without planes, as for frames of an unsupported format.
struct NoPlanes<'a>(Picture<'a>);

impl FrameSource for NoPlanes<'_> {
    fn size(&self) -> (usize, usize) {
        self.0.size()
    }

    fn crop(&mut self, region: Region, size: (usize, usize)) -> gstfastganseg::Result<Picture<'_>> {
        self.0.crop(region, size)
    }
}

fn alpha(
    post_processor: &mut PostProcessor,
    matte: &Matte,
    settings: &MatteSettings,
    data: &[u8],
) -> Vec<u8> {
    let mut plane = vec![7; (WIDTH + 5) * HEIGHT];
    let to = &mut PlaneMut { data: &mut plane, width: WIDTH, height: HEIGHT, stride: WIDTH + 5 };
    let picture = picture(data);
    post_processor.write_alpha(settings, Some(matte), Guide::from_picture(&picture).as_ref(), to).unwrap();
    plane.chunks(WIDTH + 5).flat_map(|row| row[..WIDTH].to_vec()).collect()
}

/// Returns the mattes of a clip with two references, a restart, one and two objects, and an absent object.
fn run(launch: Launch, no_planes: bool, settings: MatteSettings) -> Vec<Vec<u8>> {
    let mut tracker = tracker(launch);
    let mut post_processor = PostProcessor::default();
    let first = pixels(0);
    (0..FRAMES)
        .map(|frame| {
            let data = pixels(frame);
            let scene = |data| -> Box<dyn FrameSource> {
                if no_planes { Box::new(NoPlanes(picture(data))) } else { Box::new(picture(data)) }
            };
            match frame {
                0 => tracker.set_reference(&mut *scene(&first), &mask(1)).unwrap(),
                17 => tracker.set_reference(&mut *scene(&first), &mask(2)).unwrap(),
                15 => tracker.restart().unwrap(),
                _ => (),
            }
            let matte = tracker.step(&mut *scene(&data)).unwrap();
            alpha(&mut post_processor, &matte, &settings, &data)
        })
        .collect()
}

/// Intersection over union of opaque pixels.
fn iou(a: &[u8], b: &[u8]) -> f64 {
    let count = |both: bool| {
        let pairs = a.iter().zip(b).map(|(&a, &b)| (a > 127, b > 127));
        pairs.filter(|&(a, b)| if both { a && b } else { a || b }).count() as f64
    };
    if count(false) == 0.0 { 1.0 } else { count(true) / count(false) }
}

#[test]
fn fixed_launch_gives_the_mattes_of_eager_launch() {
    let settings = MatteSettings { edges: Edges::Bilinear, ..MatteSettings::default() };
    let (eager, fixed) = (run(Launch::Eager, false, settings), run(Launch::Fixed, false, settings));
    for (frame, (eager, fixed)) in eager.iter().zip(&fixed).enumerate() {
        assert!(eager == fixed, "frame {frame}");
    }
    assert!(eager[8].iter().any(|&value| value > 200), "there is an object");
}

#[test]
fn mattes_match_those_of_the_cpu_path() {
    for edges in [Edges::Bilinear, Edges::Refine] {
        let settings = MatteSettings { edges, ..MatteSettings::default() };
        mattes_match_with(settings);
    }
}

fn mattes_match_with(settings: MatteSettings) {
    let cpu = run(Launch::Plain, true, settings);
    // Without planes the network's input is identical; mattes differ only by rounding.
    let no_planes = run(Launch::Fixed, true, settings);
    for (frame, (cpu, no_planes)) in cpu.iter().zip(&no_planes).enumerate() {
        let worst = cpu.iter().zip(no_planes).map(|(a, b)| a.abs_diff(*b)).max();
        let differing = cpu.iter().zip(no_planes).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert!(worst <= Some(8) && differing * 500 <= cpu.len(), "frame {frame}: {worst:?}, {differing}");
    }
    // The device resizes planes with other rounding; the difference propagates from frame to frame.
    let planes = run(Launch::Fixed, false, settings);
    for (frame, (cpu, planes)) in cpu.iter().zip(&planes).enumerate() {
        let value = iou(cpu, planes);
        assert!(value > 0.99, "frame {frame}: {value}");
    }
}

#[test]
fn later_steps_do_not_change_a_matte() {
    let mut tracker = tracker(Launch::Fixed);
    tracker.set_reference(&mut picture(&pixels(0)), &mask(1)).unwrap();
    let mut mattes = Vec::new();
    let write = |matte: &Matte| {
        let mut data = vec![0; WIDTH * HEIGHT];
        let plane = &mut PlaneMut { data: &mut data, width: WIDTH, height: HEIGHT, stride: WIDTH };
        matte.write_alpha(None, plane).unwrap();
        data
    };
    for frame in 1..8 {
        let matte = tracker.step(&mut picture(&pixels(frame))).unwrap();
        mattes.push((write(&matte), matte));
    }
    for (before, matte) in &mattes {
        assert!(*before == write(matte));
    }
    assert!(mattes.windows(2).all(|pair| pair[0].0 != pair[1].0));
}

#[test]
fn launch_names_are_parsed() {
    let names = [
        ("plain", Launch::Plain),
        ("eager", Launch::Eager),
        ("graph", Launch::Graph),
        ("fixed", Launch::Fixed),
    ];
    for (name, launch) in names {
        assert_eq!(name.parse::<Launch>().unwrap(), launch);
    }
    assert_eq!(Launch::default(), Launch::Plain);
    assert!("quick".parse::<Launch>().unwrap_err().to_string().contains("plain, eager, graph or fixed"));
}
