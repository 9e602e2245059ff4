// SPDX-License-Identifier: MPL-2.0

//! Evaluation over a small made-up data set: masks written, scores equal to those of the masks.

mod util;

use std::fs;
use std::path::{Path, PathBuf};

use fastganseg_training::dataset::{Dataset, Selection};
use fastganseg_training::distributed::Ranks;
use fastganseg_training::eval::{EvalOptions, Evaluation, evaluate};
use fastganseg_training::method::{Frozen, Propagator};
use fastganseg_training::occlusion::{Cover, measure};
use fastganseg_training::report::{Speed, table};
use fastganseg_training::score::score_folder;
use fastganseg_training::simulated_user::FirstMask;
use fastganseg_training::{LabelMap, Result};
use gstfastganseg::device::DeviceChoice;
use gstfastganseg::tracker::{Options, Tracker};
use image::{Rgb, RgbImage};
use indicatif::ProgressBar;

const FRAMES: usize = 7;

/// Two bright squares on a dark striped ground, the first one moving.
fn scene(frame: usize, width: usize, height: usize) -> (RgbImage, LabelMap) {
    let mut labels = LabelMap::background(width, height);
    let side = height / 3;
    for (id, left, top) in [(1, 2 * frame + 2, 2), (2, width - side - 2, height - side - 2)] {
        for y in top..top + side {
            labels.ids_mut()[y * width + left..][..side].fill(id);
        }
    }
    let picture =
        RgbImage::from_fn(width as u32, height as u32, |x, y| match labels.at(x as usize, y as usize) {
            1 => Rgb([230, 200, 40]),
            2 => Rgb([60, 120, 240]),
            _ => Rgb([30 + 10 * (x % 3) as u8, 40, 50]),
        });
    (picture, labels)
}

/// Pictures of 96x64, annotations of 48x32, in two sequences; one of them annotates every second
/// frame from its third on.
fn data() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, first, every) in [("both", 0, 1), ("sparse", 2, 2)] {
        util::sequence(root.path(), &format!("480p/{name}"), FRAMES, |frame| {
            let (picture, labels) = scene(frame, 96, 64);
            let mut labels = labels.resized(48, 32);
            labels.ids_mut()[0] = LabelMap::VOID;
            (picture, labels)
        });
        for frame in (0..FRAMES).filter(|frame| *frame < first || (frame - first) % every != 0) {
            let annotations = root.path().join("Annotations/480p").join(name);
            fs::remove_file(annotations.join(format!("{frame:05}.png"))).unwrap();
        }
    }
    root
}

fn open(root: &Path) -> Dataset {
    Dataset::open(root, &Selection::default()).unwrap()
}

fn options(out: &Path) -> EvalOptions {
    EvalOptions { out: Some(out.to_path_buf()), sheet_frames: 4, ..EvalOptions::default() }
}

fn run(method: &mut dyn Propagator, dataset: &Dataset, options: &EvalOptions) -> Result<Evaluation> {
    evaluate(method, dataset, options, &ProgressBar::hidden(), &Ranks::single())
}

fn tracker() -> Tracker {
    // With several threads, libtorch's spin waiting for each other where other work fills the cores.
    tch::set_num_threads(1);
    Tracker::new(&Options { device: DeviceChoice::Cpu, ..Options::default() }).unwrap()
}

/// The one sequence `name` of the data.
fn open_sequence(root: &Path, name: &str) -> Dataset {
    let selection = Selection { sequences: vec![name.into()], ..Selection::default() };
    Dataset::open(root, &selection).unwrap()
}

fn files(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn frozen_first_mask() {
    let root = data();
    let dataset = open(root.path());
    let out = root.path().join("out");
    let bar = ProgressBar::hidden();
    let evaluation =
        evaluate(&mut Frozen::default(), &dataset, &options(&out), &bar, &Ranks::single()).unwrap();
    assert_eq!(bar.position(), 7 + 5);

    let scores = &evaluation.scores;
    assert_eq!(scores.sequences[0].frames.len(), 5);
    assert_eq!(scores.sequences[1].frames, ["00004"]);
    let still = scores.sequences[0].objects[1].summary();
    assert_eq!(still.region_and_contour(), 1.0, "the second square stands still");
    let moving = scores.sequences[0].objects[0].summary();
    assert!(moving.region.mean < 0.8 && moving.region.decay > 0.2, "{moving:?}");

    let seven: Vec<_> = (0..7).map(|i| format!("{i:05}.png")).collect();
    assert_eq!(files(out.join("masks/both")), seven);
    assert_eq!(files(out.join("masks/sparse")), seven[2..], "from the first annotation on");
    assert_eq!(files(out.join("sheets")), ["both.png", "sparse.png"]);
    let written = LabelMap::open(&out.join("masks/both/00000.png")).unwrap();
    assert_eq!((written.width(), written.height(), written.at(0, 0)), (48, 32, 0));
    assert!(evaluation.speed.total.unwrap() > 0.0);
    assert_eq!(evaluation.speed.sequences.len(), 2);

    // The written masks give the same scores, and so does a run that writes nothing.
    let again = score_folder(&dataset, &out.join("masks"), &ProgressBar::hidden(), &Ranks::single()).unwrap();
    assert_eq!(again, evaluation.scores);
    let bare = run(&mut Frozen::default(), &dataset, &EvalOptions::default()).unwrap();
    assert_eq!(bare.scores, evaluation.scores);
    assert!(table(&bare.scores, &Speed::default()).contains("global"));
}

#[test]
fn the_built_in_model() {
    let root = data();
    let dataset = open(root.path());
    let mut tracker = tracker();
    let out = root.path().join("out");
    let evaluation = run(&mut tracker, &dataset, &options(&out)).unwrap();
    let again = score_folder(&dataset, &out.join("masks"), &ProgressBar::hidden(), &Ranks::single()).unwrap();
    assert_eq!(again, evaluation.scores);
    // Bright squares on a dark ground: any trained model follows them.
    let summary = evaluation.scores.summary();
    println!("J&F {:.3}", summary.region_and_contour());
    assert!(summary.region.mean > 0.5, "{summary:?}");
    // One sequence after the other: nothing of the first may reach the second.
    let second = open_sequence(root.path(), "sparse");
    let alone = run(&mut tracker, &second, &EvalOptions::default()).unwrap();
    assert_eq!(alone.scores.sequences[0], evaluation.scores.sequences[1]);
}

#[test]
fn a_simulated_user_selects_and_corrects() {
    let root = data();
    let dataset = open_sequence(root.path(), "both");
    let run = |propagator: &mut dyn Propagator, first: FirstMask, corrections: usize| {
        run(propagator, &dataset, &EvalOptions { first, corrections, ..EvalOptions::default() })
    };
    for first in [FirstMask::Box, FirstMask::Points(1)] {
        let evaluation = run(&mut Frozen::default(), first, 0).unwrap();
        assert!((0.7..=1.0).contains(&evaluation.first_mask), "{first:?}: {}", evaluation.first_mask);
        let still = evaluation.scores.sequences[0].objects[1].summary();
        assert!((0.7..=1.0).contains(&still.region.mean), "the selected mask is propagated: {still:?}");
    }
    let error = run(&mut Frozen::default(), FirstMask::Mask, 1).unwrap_err().to_string();
    assert!(error.contains("no corrections"), "{error}");

    let corrected = run(&mut tracker(), FirstMask::Mask, 2).unwrap();
    assert_eq!(corrected.first_mask, 1.0);
    let summary = corrected.scores.summary();
    assert!(summary.region.mean > 0.5, "{summary:?}");
}

#[test]
fn results_of_a_cover_do_not_depend_on_those_before() {
    let root = tempfile::tempdir().unwrap();
    for (name, ground) in [("dark", [30, 40, 50]), ("bright", [200, 90, 140])] {
        util::sequence(root.path(), name, 16, |frame| {
            let (mut picture, labels) = scene(frame, 96, 64);
            for (pixel, _) in picture.pixels_mut().zip(labels.ids()).filter(|(_, id)| **id == 0) {
                *pixel = Rgb(ground);
            }
            (picture, labels)
        });
    }
    let dataset = open(root.path());
    let mut tracker = tracker();
    let mut cases = |covers: &[Cover]| {
        measure(&mut tracker, &dataset, covers, &[2], &ProgressBar::hidden(), &Ranks::single()).unwrap()
    };
    let all = [Cover::OtherScene, Cover::Black, Cover::Damaged, Cover::Frozen];
    let together = cases(&all);
    assert_eq!(together.len(), 8);
    assert!(together.iter().all(|case| case.after.iter().all(|(_, without)| *without > 0.5)), "{together:?}");
    for cover in all {
        let of = together.iter().filter(|case| case.cover == cover).cloned().collect::<Vec<_>>();
        assert_eq!(of, cases(&[cover]), "{cover:?}");
    }
}

/// What `evaluate` says of a damaged data set.
fn error(root: &Path) -> String {
    run(&mut Frozen::default(), &open(root), &EvalOptions::default()).unwrap_err().to_string()
}

#[test]
fn broken_and_missing_pictures_are_named() {
    let root = data();
    let path = root.path().join("JPEGImages/480p/both/00003.jpg");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    let message = error(root.path());
    assert!(message.contains("both/00003.jpg") && message.contains("again"), "{message}");
    fs::remove_file(&path).unwrap();
    let message = error(root.path());
    assert!(message.contains("both/00003.jpg") && message.contains("no such file"), "{message}");
    fs::remove_dir_all(root.path().join("JPEGImages")).unwrap();
    let message = error(root.path());
    assert!(message.contains("JPEGImages") && message.contains("JPEG files"), "{message}");
}

#[test]
fn a_sequence_that_cannot_be_scored_is_known_before_the_first_runs() {
    let root = data();
    fs::remove_file(root.path().join("Annotations/480p/sparse/00004.png")).unwrap();
    let dataset = open(root.path());
    let bar = ProgressBar::hidden();
    let outcome = evaluate(&mut Frozen::default(), &dataset, &EvalOptions::default(), &bar, &Ranks::single());
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("sparse") && message.contains("at least 3"), "{message}");
    assert_eq!(bar.position(), 0);
}

/// It was stretched without a message.
#[test]
fn a_frame_of_another_size_is_refused() {
    let root = data();
    let (picture, _) = scene(3, 64, 64);
    picture.save(root.path().join("JPEGImages/480p/both/00003.jpg")).unwrap();
    let message = error(root.path());
    assert!(["both, frame 00003", "64x64", "96x64"].iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn a_method_that_fails_tells_where() {
    struct Fails;
    impl Propagator for Fails {
        fn start(&mut self, _: &RgbImage, _: &LabelMap) -> Result<()> {
            Ok(())
        }
        fn step(&mut self, _: &RgbImage, _: usize, _: usize) -> Result<LabelMap> {
            Err(gstfastganseg::Error::NoReference.into())
        }
    }
    let root = data();
    let outcome = run(&mut Fails, &open(root.path()), &EvalOptions::default());
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("both, frame 00001"), "{message}");
}

#[test]
fn an_output_folder_that_cannot_be_made_is_named() {
    let root = data();
    let out = root.path().join("taken");
    fs::write(&out, "a file").unwrap();
    let outcome = run(&mut Frozen::default(), &open(root.path()), &options(&out));
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("taken"), "{message}");
}
