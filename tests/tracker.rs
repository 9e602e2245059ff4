// SPDX-License-Identifier: MPL-2.0

//! The tracker with random weights: sizes, objects, errors.

use std::collections::BTreeMap;
use std::path::Path;

use gstfastganseg::Error;
use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::image::{FrameSource, Picture, PlaneMut, Region};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{Config, Lite, Matching, Resnet50};
use gstfastganseg::tracker::{MAX_OBJECTS, Options, Quality, ReferenceUse, Roi, Tracker};
use tch::{Device, Kind, nn};

const WIDTH: usize = 96;
const HEIGHT: usize = 64;

fn tiny(config: Config) -> Config {
    Config { width: 0.0625, network_size: [HEIGHT as i64, WIDTH as i64], ..config }
}

fn tracker(config: &Config) -> Tracker {
    tracker_with(config, Roi::Auto)
}

fn tracker_with(config: &Config, roi: Roi) -> Tracker {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    tch::manual_seed(5);
    let store = nn::VarStore::new(Device::Cpu);
    match config.matching {
        Matching::Affinity => drop(Lite::new(&store.root(), config).unwrap()),
        Matching::GlobalConvolution => drop(Resnet50::new(&store.root(), config).unwrap()),
    }
    weights::save(&path, &store, config, &BTreeMap::new(), Kind::Float).unwrap();
    let weights = Weights::open(&path).unwrap();
    let (device, precision) = (DeviceChoice::Cpu, Precision::Float32);
    let frame_threading = true;
    let options = Options { device, precision, roi, frame_threading, ..Options::default() };
    Tracker::from_weights(&weights, &options).unwrap()
}

/// Reproducible noise, RGB.
fn pixels(seed: u32, width: usize, height: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..3 * width * height)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn picture(data: &[u8], width: usize, height: usize) -> Picture<'_> {
    Picture { data, width, height, stride: 3 * width }
}

fn mask(objects: u8) -> ReferenceMask {
    let labels: Vec<u8> =
        (0..WIDTH * HEIGHT).map(|i| (i % WIDTH * (usize::from(objects) + 1) / WIDTH) as u8).collect();
    ReferenceMask::from_labels(WIDTH, HEIGHT, &labels).unwrap()
}

fn alpha(matte: &Matte, object: Option<u8>, width: usize, height: usize) -> Vec<u8> {
    let mut data = vec![7; width * height];
    matte.write_alpha(object, &mut PlaneMut { data: &mut data, width, height, stride: width }).unwrap();
    data
}

#[test]
fn all_networks_follow_one_and_several_objects() {
    for config in [Config::lite(), Config::large(), Config::resnet50()].map(tiny) {
        let mut tracker = tracker(&config);
        let frame = pixels(1, WIDTH, HEIGHT);
        for objects in [1, 3] {
            tracker.set_reference(&mut picture(&frame, WIDTH, HEIGHT), &mask(objects)).unwrap();
            assert_eq!(tracker.object_ids().len(), usize::from(objects));
            tracker.relocate(&mut picture(&frame, WIDTH, HEIGHT)).unwrap();
            let matte = tracker.step(&mut picture(&frame, WIDTH, HEIGHT)).unwrap();
            let sum: Vec<u32> =
                (1..=objects).map(|id| alpha(&matte, Some(id), 40, 30)).fold(vec![0; 1200], |sum, plane| {
                    sum.iter().zip(plane).map(|(a, b)| a + u32::from(b)).collect()
                });
            assert!(
                sum.iter().all(|&total| total <= 255 + u32::from(objects)),
                "the alphas of all objects sum to at most 255"
            );
        }
    }
}

#[test]
fn a_matte_fits_any_plane_and_leaves_padding_alone() {
    let matte = Matte::from_mask(&mask(2)).unwrap();
    for (width, height) in [(1, 1), (7, 5), (WIDTH, HEIGHT), (333, 201)] {
        let stride = width + 3;
        let mut data = vec![9; stride * height];
        let mut plane = PlaneMut { data: &mut data, width, height, stride };
        matte.write_labels(&mut plane).unwrap();
        for row in data.chunks(stride) {
            assert!(row[..width].iter().all(|&id| id <= 2));
            assert_eq!(row[width..], [9; 3]);
        }
    }
    assert!(alpha(&matte, Some(9), 8, 8).iter().all(|&value| value == 0), "unknown object");
}

#[test]
fn a_plane_that_is_too_small_is_an_error() {
    let matte = Matte::from_mask(&mask(1)).unwrap();
    let mut data = vec![0; 99];
    let mut plane = PlaneMut { data: &mut data, width: 10, height: 10, stride: 10 };
    assert!(matches!(matte.write_alpha(None, &mut plane), Err(Error::Config(_))));
}

#[test]
fn rows_may_be_padded() {
    let mut tracker = tracker(&tiny(Config::lite()));
    let (width, height) = (50, 40);
    let packed = pixels(2, width, height);
    let stride = 3 * width + 14;
    let mut padded = vec![77; stride * height];
    for (row, line) in padded.chunks_mut(stride).zip(packed.chunks(3 * width)) {
        row[..3 * width].copy_from_slice(line);
    }
    let mut run = |picture: Picture| {
        tracker.set_reference(&mut { picture }, &mask(1)).unwrap();
        alpha(&tracker.step(&mut { picture }).unwrap(), None, 60, 60)
    };
    let expected = run(picture(&packed, width, height));
    assert_eq!(run(Picture { data: &padded, width, height, stride }), expected);
}

#[test]
fn a_restart_gives_the_masks_of_a_new_reference() {
    let mut tracker = tracker(&tiny(Config::lite()));
    let frames: Vec<Vec<u8>> = (0..8).map(|seed| pixels(seed, WIDTH, HEIGHT)).collect();
    let picture = |index: usize| picture(&frames[index], WIDTH, HEIGHT);
    tracker.set_reference(&mut picture(0), &mask(1)).unwrap();
    let run = |tracker: &mut Tracker| -> Vec<u8> {
        (1..8).map(|i| alpha(&tracker.step(&mut picture(i)).unwrap(), None, 32, 32)).next_back().unwrap()
    };
    let first = run(&mut tracker);
    let continued = run(&mut tracker);
    tracker.restart().unwrap();
    assert_eq!(run(&mut tracker), first);
    assert_ne!(continued, first, "state is carried from frame to frame");
}

#[test]
fn a_reference_encoded_on_another_thread_gives_the_same_masks() {
    for config in [Config::lite(), Config::resnet50()].map(tiny) {
        let frames: Vec<Vec<u8>> = (0..4).map(|seed| pixels(seed, WIDTH, HEIGHT)).collect();
        let view = |index: usize| picture(&frames[index], WIDTH, HEIGHT);
        let other =
            ReferenceMask::from_labels(WIDTH, HEIGHT, &[0, 2, 0].map(|id| [id; WIDTH * HEIGHT / 3]).concat());
        let other = other.unwrap();
        let mut tracker = tracker(&config);
        let mut masks = |ahead: bool| {
            for (index, (mask, purpose)) in
                [(mask(2), ReferenceUse::Set), (other.clone(), ReferenceUse::Add)].into_iter().enumerate()
            {
                match (ahead, purpose) {
                    (true, _) => {
                        let encoder = tracker.reference_encoder().unwrap();
                        let encoded = std::thread::scope(|scope| {
                            let encode = || encoder.encode(&mut view(index), &mask, purpose).unwrap();
                            scope.spawn(encode).join().unwrap()
                        });
                        assert!(tracker.accepts(&encoded) && encoded.purpose() == purpose);
                        tracker.use_encoded(encoded).unwrap();
                    }
                    (false, ReferenceUse::Set) => tracker.set_reference(&mut view(index), &mask).unwrap(),
                    (false, ReferenceUse::Add) => tracker.add_reference(&mut view(index), &mask).unwrap(),
                }
                tracker.step(&mut view(2)).unwrap();
            }
            alpha(&tracker.step(&mut view(3)).unwrap(), Some(2), WIDTH, HEIGHT)
        };
        assert_eq!(masks(true), masks(false));
    }
}

#[test]
fn a_reference_encoded_for_another_tracker_other_objects_or_another_size_is_refused() {
    let config = tiny(Config::lite());
    let (mut first, mut second) = (tracker(&config), tracker(&config));
    let frame = pixels(1, WIDTH, HEIGHT);
    let encode = |tracker: &Tracker, objects: u8, purpose| {
        let encoder = tracker.reference_encoder().unwrap();
        encoder.encode(&mut picture(&frame, WIDTH, HEIGHT), &mask(objects), purpose)
    };
    let refuses = |tracker: &mut Tracker, encoded| {
        assert!(!tracker.accepts(&encoded));
        assert!(matches!(tracker.use_encoded(encoded), Err(Error::Config(_))));
    };
    assert!(matches!(encode(&first, 1, ReferenceUse::Add), Err(Error::NoReference)));
    refuses(&mut second, encode(&first, 1, ReferenceUse::Set).unwrap());
    first.use_encoded(encode(&first, 1, ReferenceUse::Set).unwrap()).unwrap();
    assert!(encode(&first, 2, ReferenceUse::Add).is_err(), "an object that is not tracked");
    assert!(encode(&first, MAX_OBJECTS as u8 + 1, ReferenceUse::Set).is_err());
    let added = encode(&first, 1, ReferenceUse::Add).unwrap();
    first.use_encoded(encode(&first, 2, ReferenceUse::Set).unwrap()).unwrap();
    refuses(&mut first, added);
    let added = encode(&first, 2, ReferenceUse::Add).unwrap();
    first.clear();
    refuses(&mut first, added);
    let larger = encode(&first, 1, ReferenceUse::Set).unwrap();
    first.set_quality(Quality::Fast).unwrap();
    refuses(&mut first, larger);
    assert!(!first.has_reference());
}

#[test]
fn a_step_without_a_reference_is_an_error() {
    let mut tracker = tracker(&tiny(Config::lite()));
    let frame = pixels(1, WIDTH, HEIGHT);
    assert!(matches!(tracker.step(&mut picture(&frame, WIDTH, HEIGHT)), Err(Error::NoReference)));
    tracker.set_reference(&mut picture(&frame, WIDTH, HEIGHT), &mask(1)).unwrap();
    assert!(tracker.has_reference());
    tracker.clear();
    assert!(matches!(tracker.step(&mut picture(&frame, WIDTH, HEIGHT)), Err(Error::NoReference)));
}

#[test]
fn too_many_objects_leave_the_old_reference() {
    let mut tracker = tracker(&tiny(Config::lite()));
    let frame = pixels(1, WIDTH, HEIGHT);
    tracker.set_reference(&mut picture(&frame, WIDTH, HEIGHT), &mask(2)).unwrap();
    let error = tracker.set_reference(&mut picture(&frame, WIDTH, HEIGHT), &mask(MAX_OBJECTS as u8 + 1));
    assert!(error.unwrap_err().to_string().contains("at most 16"));
    assert_eq!(tracker.object_ids(), [1, 2]);
}

#[test]
fn a_picture_that_is_cut_short_is_an_error() {
    let mut tracker = tracker(&tiny(Config::lite()));
    let frame = pixels(1, WIDTH, HEIGHT);
    let short = Picture { data: &frame[..100], width: WIDTH, height: HEIGHT, stride: 3 * WIDTH };
    assert!(matches!(tracker.set_reference(&mut { short }, &mask(1)), Err(Error::Config(_))));
}

#[test]
fn bfloat16_stays_close_to_float32() {
    // Frames of one scene: unrelated frames would be detected as cuts.
    let scene = pixels(0, WIDTH, HEIGHT);
    let mixed = |seed| -> Vec<u8> {
        let noise = pixels(seed, WIDTH, HEIGHT);
        scene.iter().zip(&noise).map(|(&a, &b)| ((7 * u16::from(a) + u16::from(b)) / 8) as u8).collect()
    };
    let frames: Vec<Vec<u8>> = (0..6).map(mixed).collect();
    let run = |model: &str, precision| {
        let options =
            Options { model: Some(model.into()), device: DeviceChoice::Cpu, precision, ..Options::default() };
        let mut tracker = Tracker::new(&options).unwrap();
        tracker.set_reference(&mut picture(&frames[0], WIDTH, HEIGHT), &mask(1)).unwrap();
        let mut last = Vec::new();
        for frame in &frames[1..] {
            last = alpha(&tracker.step(&mut picture(frame, WIDTH, HEIGHT)).unwrap(), None, WIDTH, HEIGHT);
        }
        last
    };
    for model in [weights::LITE, weights::LARGE] {
        let (exact, half) = (run(model, Precision::Float32), run(model, Precision::Bfloat16));
        let mean: f64 =
            exact.iter().zip(&half).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / exact.len() as f64;
        assert!(mean < 5.0, "{model}: mean difference of alpha {mean}");
    }
}

#[test]
fn float16_on_a_cpu_is_refused() {
    let options = Options { precision: Precision::Float16, device: DeviceChoice::Cpu, ..Options::default() };
    assert!(Tracker::new(&options).unwrap_err().to_string().contains("needs a CUDA device"));
}

#[test]
fn a_missing_model_is_named() {
    let options = Options { model: Some(Path::new("no/such.safetensors").into()), ..Options::default() };
    assert!(Tracker::new(&options).unwrap_err().to_string().contains("no/such.safetensors"));
}

/// Records the views that the tracker requests.
struct Recorder<'a> {
    picture: Picture<'a>,
    views: Vec<Region>,
    /// Requested width and height.
    sizes: Vec<(usize, usize)>,
}

impl FrameSource for Recorder<'_> {
    fn size(&self) -> (usize, usize) {
        self.picture.size()
    }

    fn crop(&mut self, region: Region, size: (usize, usize)) -> gstfastganseg::Result<Picture<'_>> {
        self.views.push(region);
        self.sizes.push(size);
        self.picture.crop(region, size)
    }

    /// Not recorded: the network does not use it.
    fn overview(&mut self, region: Region, size: (usize, usize)) -> gstfastganseg::Result<Picture<'_>> {
        self.picture.crop(region, size)
    }
}

fn small_mask(width: usize, height: usize) -> ReferenceMask {
    let inside = |i: usize| (20..32).contains(&(i % width)) && (30..40).contains(&(i / width));
    let alpha = (0..width * height).map(|i| if inside(i) { 255 } else { 0 }).collect();
    ReferenceMask::from_soft(width, height, alpha).unwrap()
}

#[test]
fn small_objects_are_cropped_from_the_reference() {
    let (width, height) = (192, 128);
    let data = pixels(1, width, height);
    let mut tracker = tracker(&tiny(Config::lite()));
    let mut scene = Recorder { picture: picture(&data, width, height), views: Vec::new(), sizes: Vec::new() };
    tracker.set_reference(&mut scene, &small_mask(width, height)).unwrap();
    let region = scene.views[0];
    assert!(region.width < width && region.x <= 20 && region.x + region.width >= 32, "{region:?}");
    assert!(region.height < height && region.y <= 30 && region.y + region.height >= 40, "{region:?}");

    assert_eq!(scene.views[1], Region { x: 0, y: 0, width, height }, "the second view is the whole frame");

    let matte = tracker.step(&mut scene).unwrap();
    assert_eq!(scene.views[2], region, "the next frame is cropped to the same region");
    let alpha = alpha(&matte, None, width, height);
    for (index, &value) in alpha.iter().enumerate() {
        let (x, y) = (index % width, index / width);
        let inside = (region.x..region.x + region.width).contains(&x)
            && (region.y..region.y + region.height).contains(&y);
        assert!(inside || value == 0, "{value} at {x}, {y}");
    }
}

/// Mask of an upright or a wide rectangle in the middle of the frame.
fn long_mask(width: usize, height: usize, upright: bool) -> ReferenceMask {
    let (across, down) = if upright { (0.1, 0.3) } else { (0.35, 0.1) };
    let inside = |at: usize, whole: usize, reach: f64| (at as f64 / whole as f64 - 0.5).abs() < reach;
    let alpha = (0..width * height)
        .map(|i| inside(i % width, width, across) && inside(i / width, height, down))
        .map(|inside| if inside { 255 } else { 0 })
        .collect();
    ReferenceMask::from_soft(width, height, alpha).unwrap()
}

#[test]
fn upright_objects_get_an_upright_input_size() {
    let (width, height) = (192, 108);
    let data = pixels(1, width, height);
    for config in [Config::lite(), Config::large()] {
        let mut tracker = tracker(&tiny(config));
        for (upright, shape) in [(true, "at least as high as wide"), (false, "wider than high")] {
            let mut scene = Recorder { picture: picture(&data, width, height), views: vec![], sizes: vec![] };
            tracker.set_reference(&mut scene, &long_mask(width, height, upright)).unwrap();
            let matte = tracker.step(&mut scene).unwrap();
            let (region, size) = (scene.views[0], scene.sizes[0]);
            assert_eq!(upright, size.0 <= size.1, "{size:?} should be {shape}");
            assert_eq!(upright, region.width <= region.height, "{region:?} should be {shape}");
            assert!(
                size.0 * size.1 * 10 > WIDTH * HEIGHT * 8 && size.0 * size.1 <= WIDTH * HEIGHT,
                "{size:?}"
            );
            assert_eq!(scene.sizes[1], (WIDTH, HEIGHT), "the whole frame is encoded at the network size");
            assert_eq!(alpha(&matte, None, width, height).len(), width * height);
        }
    }
}

#[test]
fn roi_frame_roi_off_and_resnet50_use_the_network_size() {
    let (width, height) = (192, 108);
    let data = pixels(1, width, height);
    let trackers = [
        tracker_with(&tiny(Config::lite()), Roi::Frame),
        tracker_with(&tiny(Config::large()), Roi::Off),
        tracker_with(&tiny(Config::resnet50()), Roi::Auto),
    ];
    for mut tracker in trackers {
        let mut scene = Recorder { picture: picture(&data, width, height), views: vec![], sizes: vec![] };
        tracker.set_reference(&mut scene, &long_mask(width, height, true)).unwrap();
        tracker.step(&mut scene).unwrap();
        assert!(scene.sizes.iter().all(|&size| size == (WIDTH, HEIGHT)), "{:?}", scene.sizes);
        let part = |length: usize, whole: usize| length as f64 / whole as f64;
        let framed = |region: &Region| (part(region.width, width) - part(region.height, height)).abs() < 0.05;
        assert!(scene.views.iter().all(framed), "{:?}", scene.views);
    }
}

/// Random masks move the region in every frame: all input sizes, several objects, memory of other input sizes.
#[test]
fn the_input_size_changes_during_tracking() {
    let (width, height) = (320, 180);
    for config in [Config::lite(), Config::large()] {
        let mut config = tiny(config);
        config.memory.every = 1;
        let mut tracker = tracker(&config);
        let mut sizes = std::collections::BTreeSet::new();
        for seed in 0..12 {
            let data = pixels(seed, width, height);
            let mut scene = Recorder { picture: picture(&data, width, height), views: vec![], sizes: vec![] };
            match seed {
                0 => tracker.set_reference(&mut scene, &long_mask(width, height, true)).unwrap(),
                4 => tracker.set_reference(&mut scene, &long_mask(width, height, false)).unwrap(),
                8 => tracker.set_reference(&mut scene, &mask(2)).unwrap(),
                _ => {
                    let matte = tracker.step(&mut scene).unwrap();
                    assert_eq!(alpha(&matte, None, width, height).len(), width * height);
                }
            }
            sizes.extend(scene.sizes);
        }
        assert!(sizes.len() > 1, "{sizes:?}");
    }
}

#[test]
fn without_region_of_interest_the_whole_frame_is_encoded() {
    let (width, height) = (192, 128);
    let data = pixels(1, width, height);
    for config in [Config::lite(), Config::large(), Config::resnet50()] {
        let mut tracker = tracker_with(&tiny(config), Roi::Off);
        let mut scene =
            Recorder { picture: picture(&data, width, height), views: Vec::new(), sizes: Vec::new() };
        tracker.set_reference(&mut scene, &small_mask(width, height)).unwrap();
        for _ in 0..3 {
            tracker.step(&mut scene).unwrap();
        }
        assert_eq!(scene.views, [Region { x: 0, y: 0, width, height }; 4]);
    }
}

#[test]
fn tracking_continues_when_the_frame_size_changes() {
    for config in [Config::lite(), Config::large(), Config::resnet50()] {
        let mut tracker = tracker(&tiny(config));
        let data = pixels(2, 320, 240);
        tracker.set_reference(&mut picture(&data, 192, 128), &small_mask(192, 128)).unwrap();
        for (width, height) in [(192, 128), (320, 240), (64, 64), (1, 1), (7, 200), (200, 7), (192, 128)] {
            let matte = tracker.step(&mut picture(&data, width, height)).unwrap();
            assert_eq!(alpha(&matte, None, width, height).len(), width * height);
        }
    }
}

#[test]
fn the_network_size_option_replaces_that_of_the_weights() {
    let weights = {
        let config = tiny(Config::lite());
        let store = nn::VarStore::new(Device::Cpu);
        Lite::new(&store.root(), &config).unwrap();
        Weights::of_store(&store, &config, &BTreeMap::new(), Kind::Float).unwrap()
    };
    let open = |network_size| {
        let (device, precision) = (DeviceChoice::Cpu, Precision::Float32);
        Tracker::from_weights(&weights, &Options { device, precision, network_size, ..Options::default() })
    };
    for (requested, size) in
        [((0, 0), (WIDTH, HEIGHT)), ((128, 0), (128, HEIGHT)), ((0, 96), (WIDTH, 96)), ((128, 96), (128, 96))]
    {
        let mut tracker = open(requested).unwrap();
        assert_eq!(tracker.network_size(), size);
        let frame = pixels(1, WIDTH, HEIGHT);
        tracker.set_reference(&mut picture(&frame, WIDTH, HEIGHT), &mask(1)).unwrap();
        let matte = tracker.step(&mut picture(&frame, WIDTH, HEIGHT)).unwrap();
        assert_eq!(alpha(&matte, None, WIDTH, HEIGHT).len(), WIDTH * HEIGHT);
    }
    let error = open((100, 0)).unwrap_err().to_string();
    assert!(error.contains("network_size of 100x64"), "{error}");
}

#[test]
fn a_restart_repeats_the_masks_of_a_small_object() {
    let (width, height) = (192, 128);
    let data: Vec<_> = (0..6).map(|seed| pixels(seed, width, height)).collect();
    let mut tracker = tracker(&tiny(Config::lite()));
    tracker.set_reference(&mut picture(&data[0], width, height), &small_mask(width, height)).unwrap();
    let mut run = || {
        let masks = data[1..].iter().map(|data| {
            alpha(&tracker.step(&mut picture(data, width, height)).unwrap(), None, width, height)
        });
        let masks: Vec<_> = masks.collect();
        tracker.restart().unwrap();
        masks
    };
    assert_eq!(run(), run());
}

/// With frame threading each frame is encoded before the step of the frame before it.
#[test]
fn prefetched_frames_give_the_same_masks() {
    for objects in [1, 3] {
        let run = |prefetch: bool| {
            let mut tracker = tracker_with(&tiny(Config::lite()), Roi::Off);
            assert!(tracker.can_prefetch());
            let pictures: Vec<Vec<u8>> = (0..14).map(|seed| pixels(seed, WIDTH, HEIGHT)).collect();
            let view_of = |at: usize| picture(&pictures[at], WIDTH, HEIGHT);
            assert!(tracker.prefetch(&mut view_of(0)).unwrap().is_none(), "no prefetch without a reference");
            tracker.set_reference(&mut view_of(0), &mask(objects)).unwrap();
            let mut next = None;
            let mut masks = Vec::new();
            for at in 1..14 {
                let now = next.take();
                if prefetch && at < 13 {
                    next = tracker.prefetch(&mut view_of(at + 1)).unwrap();
                    assert!(next.is_some());
                }
                if at == 9 {
                    tracker.restart().unwrap();
                }
                let matte = tracker.step_from(&mut view_of(at), now).unwrap();
                masks.push(alpha(&matte, None, WIDTH, HEIGHT));
            }
            masks
        };
        assert_eq!(run(true), run(false));
    }
}

#[test]
fn resnet50_does_not_prefetch() {
    let mut tracker = tracker(&tiny(Config::resnet50()));
    let frame = pixels(1, WIDTH, HEIGHT);
    tracker.set_reference(&mut picture(&frame, WIDTH, HEIGHT), &mask(1)).unwrap();
    assert!(!tracker.can_prefetch());
    assert!(tracker.prefetch(&mut picture(&frame, WIDTH, HEIGHT)).unwrap().is_none());
}
