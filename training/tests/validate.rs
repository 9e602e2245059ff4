// SPDX-License-Identifier: MPL-2.0

//! Validation during training, with a generated data set and a tiny network.

mod util;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastganseg_training::LabelMap;
use fastganseg_training::dataset::{Dataset, Selection};
use fastganseg_training::distributed::Ranks;
use fastganseg_training::eval::{EvalOptions, evaluate};
use fastganseg_training::train::validate::{BEST, BY_SEQUENCE, SCORE, Validation, Validator};
use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::torch::model::weights::Weights;
use gstfastganseg::torch::model::{Config, Lite};
use gstfastganseg::tracker::{Options, Tracker};
use image::{Rgb, RgbImage};
use indicatif::ProgressBar;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Runs one test at a time, since the random generator of libtorch belongs to the process.
fn lock() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes two sequences of nine frames: a rectangle that moves over a dark background.
fn data(root: &Path) {
    for (index, name) in ["left", "right"].into_iter().enumerate() {
        util::sequence(root, name, 9, |frame| {
            let inside = |x: usize, y: usize| {
                let left = 10 + 3 * frame + 20 * index;
                (left..left + 24).contains(&x) && (12..40).contains(&y)
            };
            let picture = RgbImage::from_fn(96, 64, |x, y| match inside(x as usize, y as usize) {
                true => Rgb([220, 190, 60]),
                false => Rgb([30, 40, 50 + 10 * (x % 3) as u8]),
            });
            let ids = (0..96 * 64).map(|i| u8::from(inside(i % 96, i / 96))).collect();
            (picture, LabelMap::new(96, 64, ids).unwrap())
        });
    }
}

fn config() -> Config {
    Config { width: 0.125, network_size: [64, 96], ..Config::lite() }
}

fn network(seed: i64) -> VarStore {
    tch::manual_seed(seed);
    let store = VarStore::new(Device::Cpu);
    Lite::new(&store.root(), &config()).unwrap();
    store
}

/// A network that predicts an empty mask.
fn empty_masks() -> VarStore {
    let store = network(1);
    let mut bias = store.variables()["decoder.head.bias"].shallow_clone();
    let _ = tch::no_grad(|| bias.fill_(-20.0));
    store
}

fn options() -> Options {
    Options { device: DeviceChoice::Cpu, precision: Precision::Float32, ..Options::default() }
}

fn settings(root: &Path) -> Validation {
    Validation { data: root.to_owned(), sequences: Vec::new(), split: None, every: 10, frame_step: 1 }
}

#[test]
fn scores_are_those_of_eval_and_the_best_weights_are_kept() {
    let _lock = lock();
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let mut validator = Validator::open(&settings(folder.path()), &options(), folder.path(), false).unwrap();
    assert_eq!((validator.frames(), validator.best()), (18, None));
    assert_eq!([10, 15, 20, 25].map(|done| validator.is_due(done, 25)), [true, false, true, true]);

    let metadata = BTreeMap::from([("licence".to_owned(), "CC0-1.0".to_owned())]);
    let validated = validator.run(&empty_masks(), &config(), &metadata, 10, &Ranks::single()).unwrap();
    let empty_score = validated.scores.summary().region_and_contour();
    assert!(validated.is_best && empty_score < 0.01, "{empty_score}");

    // A mask of the whole frame is better than an empty one.
    let full_masks = network(2);
    let mut bias = full_masks.variables()["decoder.head.bias"].shallow_clone();
    let _ = tch::no_grad(|| bias.fill_(20.0));
    let validated = validator.run(&full_masks, &config(), &metadata, 20, &Ranks::single()).unwrap();
    assert!(validated.is_best);
    let best = Weights::open(&folder.path().join(BEST)).unwrap();
    assert_eq!((best.metadata()["steps"].as_str(), best.metadata()["licence"].as_str()), ("20", "CC0-1.0"));
    let score: f64 = best.metadata()[SCORE].parse().unwrap();
    assert_eq!(score, validated.scores.summary().region_and_contour());
    assert!(score > 0.05, "{score}");
    let by_sequence: BTreeMap<String, [f64; 2]> =
        serde_json::from_str(&best.metadata()[BY_SEQUENCE]).unwrap();
    assert_eq!(by_sequence.keys().collect::<Vec<_>>(), ["left", "right"]);

    // An evaluation of the saved file has the same scores.
    let mut tracker = Tracker::from_weights(&best, &options()).unwrap();
    let dataset = Dataset::open(folder.path(), &Selection::default()).unwrap();
    let evaluated =
        evaluate(&mut tracker, &dataset, &EvalOptions::default(), &ProgressBar::hidden(), &Ranks::single())
            .unwrap();
    assert_eq!(evaluated.scores, validated.scores);

    // Worse weights do not replace the file, even after a restart.
    let bytes = fs::read(folder.path().join(BEST)).unwrap();
    assert!(!validator.run(&empty_masks(), &config(), &metadata, 30, &Ranks::single()).unwrap().is_best);
    let mut resumed = Validator::open(&settings(folder.path()), &options(), folder.path(), true).unwrap();
    assert_eq!(resumed.best(), Some(score));
    assert!(!resumed.run(&empty_masks(), &config(), &metadata, 40, &Ranks::single()).unwrap().is_best);
    assert!(bytes == fs::read(folder.path().join(BEST)).unwrap());
    // The file of an earlier run in the same folder does not count.
    let new = Validator::open(&settings(folder.path()), &options(), folder.path(), false).unwrap();
    assert_eq!(new.best(), None);
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "images, annotations and the best weights: {files:?}");
}

/// A score of another set would keep the best weights of this one from being saved.
#[test]
fn the_best_score_of_other_data_does_not_count() {
    let _lock = lock();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    data(root);
    data(&root.join("other"));
    let best = |settings: &Validation| Validator::open(settings, &options(), root, true).unwrap().best();
    let right = Validation { sequences: vec!["right".into()], ..settings(root) };
    let mut validator = Validator::open(&right, &options(), root, false).unwrap();
    validator.run(&network(4), &config(), &BTreeMap::new(), 10, &Ranks::single()).unwrap();
    assert!(best(&right).is_some());
    assert!(best(&Validation { every: 3, ..right.clone() }).is_some());
    assert_eq!(best(&settings(root)), None, "other sequences");
    assert_eq!(best(&Validation { frame_step: 2, ..right.clone() }), None);
    assert_eq!(best(&Validation { data: root.join("other"), ..right }), None);
}

#[test]
fn validation_does_not_change_random_numbers_threads_and_gradients() {
    let _lock = lock();
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let mut validator = Validator::open(&settings(folder.path()), &options(), folder.path(), false).unwrap();
    let store = network(3);
    let threads = tch::get_num_threads();
    let draw_after = |action: &mut dyn FnMut()| {
        tch::manual_seed(7);
        action();
        Tensor::randn([4], (Kind::Double, Device::Cpu))
    };
    let expected = draw_after(&mut || ());
    let drawn = draw_after(&mut || {
        validator.run(&store, &config(), &BTreeMap::new(), 10, &Ranks::single()).unwrap();
    });
    assert!(expected.equal(&drawn));
    assert_eq!(tch::get_num_threads(), threads);
    assert!(store.trainable_variables().iter().all(Tensor::requires_grad));
    let sum = store.variables()["decoder.head.bias"].sum(Kind::Float) * 2.0;
    sum.backward();
    assert_eq!(store.variables()["decoder.head.bias"].grad().double_value(&[0]), 2.0);
}

#[test]
fn frame_step_and_sequences_select_the_frames() {
    let _lock = lock();
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let settings = Validation { sequences: vec!["right".into()], frame_step: 2, ..settings(folder.path()) };
    let mut validator = Validator::open(&settings, &options(), folder.path(), false).unwrap();
    assert_eq!(validator.frames(), 5);
    let validated = validator.run(&network(4), &config(), &BTreeMap::new(), 10, &Ranks::single()).unwrap();
    assert_eq!(validated.scores.sequences[0].name, "right");
    assert_eq!(validated.scores.sequences[0].frames, ["00002", "00004", "00006"]);
}

#[test]
fn invalid_settings_are_refused_on_opening() {
    let _lock = lock();
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let message = |settings: Validation| {
        Validator::open(&settings, &options(), folder.path(), false).unwrap_err().to_string()
    };
    let unknown = Validation { sequences: vec!["zebra".into()], ..settings(folder.path()) };
    assert!(message(unknown).contains("zebra"));
    let short = Validation { frame_step: 50, ..settings(folder.path()) };
    assert!(message(short).contains("cannot score"));
    let never = Validation { every: 0, ..settings(folder.path()) };
    assert!(message(never).contains("validation.every"));
    let both = Validation {
        sequences: vec!["left".into()],
        split: Some("list.txt".into()),
        ..settings(folder.path())
    };
    assert!(message(both).contains("sequences or split"));
    fs::remove_dir_all(folder.path().join("JPEGImages/left")).unwrap();
    assert!(message(settings(folder.path())).contains("JPEGImages/left"));
    data(folder.path());
    fs::write(folder.path().join(BEST), b"nonsense").unwrap();
    let resumed = Validator::open(&settings(folder.path()), &options(), folder.path(), true);
    assert!(resumed.unwrap_err().to_string().contains(BEST));
}
