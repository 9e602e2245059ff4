//! The way that work takes on a GPU, walked on the CPU: frames as planes, steps from fixed places, mattes
//! enlarged where the network runs. It must come to what the CPU's own way comes to.

use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::image::{Picture, PlaneMut, Region, Scene};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::matte::{Guide, MatteSettings, PostProcessor};
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

/// Where the object's middle is.
fn place(frame: usize) -> (f64, f64) {
    let t = frame as f64 * 0.12;
    (200.0 + 110.0 * t.sin(), 150.0 + 50.0 * (1.3 * t).cos() - 50.0)
}

fn inside(frame: usize, x: usize, y: usize) -> bool {
    let (u, v) = place(frame);
    ((x as f64 - u) / 45.0).powi(2) + ((y as f64 - v) / 35.0).powi(2) < 1.0
}

/// A disk, orange with a texture, on a blue ground with another; there is no disk in some frames.
fn pixels(frame: usize) -> Vec<u8> {
    let gone = (9..13).contains(&frame);
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let texture = ((x / 7 * 5 + y / 7 * 11) % 40) as u8;
        if !gone && inside(frame, x, y) {
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
        (true, _) => 1 + u8::from((i % WIDTH) as f64 > place(0).0),
    };
    ReferenceMask::from_labels(WIDTH, HEIGHT, &(0..WIDTH * HEIGHT).map(label).collect::<Vec<_>>()).unwrap()
}

/// Shows what it is asked for and nothing else, as scenes do whose bytes are of no known kind.
struct Closed<'a>(Picture<'a>);

impl Scene for Closed<'_> {
    fn size(&self) -> (usize, usize) {
        self.0.size()
    }

    fn view(&mut self, region: Region, size: (usize, usize)) -> gstfastganseg::Result<Picture<'_>> {
        self.0.view(region, size)
    }
}

fn alpha(finisher: &mut PostProcessor, matte: &Matte, look: &MatteSettings, data: &[u8]) -> Vec<u8> {
    let mut plane = vec![7; (WIDTH + 5) * HEIGHT];
    let to = &mut PlaneMut { data: &mut plane, width: WIDTH, height: HEIGHT, stride: WIDTH + 5 };
    let picture = picture(data);
    finisher.write_alpha(look, Some(matte), Guide::of_picture(&picture).as_ref(), to).unwrap();
    plane.chunks(WIDTH + 5).flat_map(|row| row[..WIDTH].to_vec()).collect()
}

/// All mattes of some frames, two references, one and two objects, an object that is gone for a while.
fn run(launch: Launch, closed: bool, look: MatteSettings) -> Vec<Vec<u8>> {
    let mut tracker = tracker(launch);
    let mut finisher = PostProcessor::default();
    let first = pixels(0);
    (0..FRAMES)
        .map(|frame| {
            let data = pixels(frame);
            let scene = |data| -> Box<dyn Scene> {
                if closed { Box::new(Closed(picture(data))) } else { Box::new(picture(data)) }
            };
            match frame {
                0 => tracker.set_reference(&mut *scene(&first), &mask(1)).unwrap(),
                17 => tracker.set_reference(&mut *scene(&first), &mask(2)).unwrap(),
                15 => tracker.restart().unwrap(),
                _ => (),
            }
            let matte = tracker.step(&mut *scene(&data)).unwrap();
            alpha(&mut finisher, &matte, &look, &data)
        })
        .collect()
}

/// Intersection over union of what is opaque.
fn iou(a: &[u8], b: &[u8]) -> f64 {
    let count = |both: bool| {
        let pairs = a.iter().zip(b).map(|(&a, &b)| (a > 127, b > 127));
        pairs.filter(|&(a, b)| if both { a && b } else { a || b }).count() as f64
    };
    if count(false) == 0.0 { 1.0 } else { count(true) / count(false) }
}

#[test]
fn fixed_places_change_nothing() {
    let look = MatteSettings { edges: gstfastganseg::matte::Edges::Bilinear, ..MatteSettings::default() };
    let (eager, fixed) = (run(Launch::Eager, false, look), run(Launch::Fixed, false, look));
    for (frame, (eager, fixed)) in eager.iter().zip(&fixed).enumerate() {
        assert!(eager == fixed, "frame {frame}");
    }
    assert!(eager[8].iter().any(|&value| value > 200), "there is an object");
}

#[test]
fn pictures_and_mattes_are_those_of_the_cpu() {
    let cpu = run(Launch::Auto, true, MatteSettings::default());
    // What the network is shown is the same to the bit, so is what it finds; mattes differ by rounding.
    let closed = run(Launch::Fixed, true, MatteSettings::default());
    for (frame, (cpu, closed)) in cpu.iter().zip(&closed).enumerate() {
        let worst = cpu.iter().zip(closed).map(|(a, b)| a.abs_diff(*b)).max();
        let off = cpu.iter().zip(closed).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert!(worst <= Some(8) && off * 500 <= cpu.len(), "frame {frame}: {worst:?}, {off}");
    }
    // Resized by other sums, the picture differs in the last bits, and that goes on from frame to frame.
    let open = run(Launch::Fixed, false, MatteSettings::default());
    for (frame, (cpu, open)) in cpu.iter().zip(&open).enumerate() {
        let found = iou(cpu, open);
        assert!(found > 0.99, "frame {frame}: {found}");
    }
}

#[test]
fn a_held_matte_follows_the_edges_of_its_new_frame() {
    let mut tracker = tracker(Launch::Fixed);
    let (first, second) = (pixels(0), pixels(1));
    tracker.set_reference(&mut picture(&first), &mask(1)).unwrap();
    let mut held = tracker.step(&mut picture(&first)).unwrap();
    let look = MatteSettings::default();
    let fresh = alpha(&mut PostProcessor::default(), &held, &look, &first);
    // Another frame comes, whose bytes take the place of those that the matte is of.
    tracker.step(&mut picture(&second)).unwrap();
    held.set_held();
    let again = alpha(&mut PostProcessor::default(), &held, &look, &first);
    assert!(iou(&fresh, &again) > 0.995);
    let moved = alpha(&mut PostProcessor::default(), &held, &look, &second);
    assert_ne!(again, moved);
}

#[test]
fn mattes_stay_what_they_are_while_tracking_goes_on() {
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
    for (then, matte) in &mattes {
        assert!(*then == write(matte));
    }
    assert!(mattes.windows(2).all(|pair| pair[0].0 != pair[1].0));
}

#[test]
fn names_of_ways_to_launch() {
    assert_eq!("eager".parse::<Launch>().unwrap(), Launch::Eager);
    assert!("quick".parse::<Launch>().unwrap_err().to_string().contains("auto, eager or fixed"));
}
