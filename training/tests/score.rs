// SPDX-License-Identifier: MPL-2.0

//! Scoring of folders of masks: results equal those of the official DAVIS-2017 tool, and errors name the file.

use std::fs;
use std::path::{Path, PathBuf};

use fastganseg_training::LabelMap;
use fastganseg_training::dataset::{Dataset, Selection};
use fastganseg_training::distributed::Ranks;
use fastganseg_training::score::{Scores, score_folder};
use indicatif::ProgressBar;
use serde_json::Value;

/// Path of test data beside the repository or in the folder `FASTGANSEG_SHARED`; `None` if it does not exist.
fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("FASTGANSEG_SHARED").map_or_else(beside, PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        println!("skipped: {} does not exist", path.display());
        return None;
    }
    Some(path)
}

/// Asserts that the official numbers and ours are equal, and returns the largest difference.
fn deviation(expected: &[(String, f64, f64)]) -> f64 {
    for (what, expected, ours) in expected {
        let difference = (expected - ours).abs();
        assert!(difference <= 1e-9, "{what}: {ours} instead of {expected}");
    }
    let differences = expected.iter().map(|(_, expected, ours)| (expected - ours).abs());
    differences.fold(0.0, f64::max)
}

#[test]
fn equals_the_official_tool() {
    let Some(root) = shared("eval-fixture") else {
        return;
    };
    let expected = fs::read_to_string(root.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let dataset = Dataset::open(&root, &Selection::default()).unwrap();
    let scores = score_folder(&dataset, &root.join("res"), &ProgressBar::hidden(), &Ranks::single()).unwrap();

    let number = |value: &Value| value.as_f64().unwrap();
    let global = scores.summary();
    let ours = [
        ("J&F-Mean", global.region_and_contour()),
        ("J-Mean", global.region.mean),
        ("J-Recall", global.region.recall),
        ("F-Mean", global.contour.mean),
        ("F-Recall", global.contour.recall),
    ];
    let mut compared: Vec<_> =
        ours.iter().map(|&(key, ours)| (key.to_string(), number(&expected["global"][key]), ours)).collect();
    let objects = expected["per_object"].as_object().unwrap();
    assert_eq!(scores.objects(), objects.len());
    for sequence in &scores.sequences {
        for object in &sequence.objects {
            let key = format!("{}_{}", sequence.name, object.id);
            let (expected, ours) = (&objects[&key], object.summary());
            compared.push((format!("{key} J"), number(&expected["J"]), ours.region.mean));
            compared.push((format!("{key} F"), number(&expected["F"]), ours.contour.mean));
            // The expected numbers have no decay, but it must be finite for more than 256 frames as well.
            assert!(ours.region.decay.is_finite() && ours.contour.decay.is_finite());
        }
    }
    let largest = deviation(&compared);
    println!("{} numbers, largest deviation {largest:e}", compared.len());
}

/// A data set of one sequence of 20x10 pixels, and a folder with equal masks.
struct Example {
    root: tempfile::TempDir,
}

impl Example {
    fn new(frames: usize) -> Self {
        let example = Self { root: tempfile::tempdir().unwrap() };
        for folder in [example.annotations(), example.masks()] {
            fs::create_dir_all(&folder).unwrap();
            for frame in 0..frames {
                let path = folder.join(format!("{frame:05}.png"));
                Self::map(frame).save(&path).unwrap();
            }
        }
        example
    }

    fn map(frame: usize) -> LabelMap {
        let ids = (0..200).map(|i| u8::from((frame..frame + 6).contains(&(i % 20))));
        LabelMap::new(20, 10, ids.collect()).unwrap()
    }

    fn annotations(&self) -> PathBuf {
        self.root.path().join("Annotations/480p/cow")
    }

    fn masks(&self) -> PathBuf {
        self.root.path().join("out/masks/cow")
    }

    fn score_in(&self, masks: &str) -> fastganseg_training::Result<Scores> {
        let dataset = Dataset::open(self.root.path(), &Selection::default())?;
        let masks = self.root.path().join(masks);
        score_folder(&dataset, &masks, &ProgressBar::hidden(), &Ranks::single())
    }
}

#[test]
fn masks_of_the_first_and_last_frame_are_not_needed() {
    let example = Example::new(6);
    fs::remove_file(example.masks().join("00000.png")).unwrap();
    fs::remove_file(example.masks().join("00005.png")).unwrap();
    let scores = example.score_in("out/masks").unwrap();
    let sequence = &scores.sequences[0];
    assert_eq!(sequence.frames, ["00001", "00002", "00003", "00004"]);
    let summary = scores.summary();
    assert_eq!(summary.region_and_contour(), 1.0);
    assert_eq!((summary.region.recall, summary.region.decay), (1.0, 0.0));
}

#[test]
fn a_missing_folder_is_named() {
    let example = Example::new(4);
    let error = example.score_in("elsewhere").unwrap_err().to_string();
    assert!(error.contains("elsewhere/cow"), "{error}");
    // The error for the parent folder suggests the right one.
    let error = example.score_in("out").unwrap_err().to_string();
    assert!(error.contains("out/masks as the folder"), "{error}");
}

#[test]
fn unusable_masks_and_annotations_are_named() {
    let mut unknown = Example::map(2);
    unknown.ids_mut()[7] = 3;
    type Change<'a> = &'a dyn Fn(&Example);
    let cases: [(Change, &[&str]); 4] = [
        (
            &|example| fs::remove_file(example.masks().join("00002.png")).unwrap(),
            &["masks/cow/00002.png", "missing"],
        ),
        (
            &|example| LabelMap::background(10, 20).save(&example.masks().join("00001.png")).unwrap(),
            &["00001.png", "10x20", "20x10", "size of the annotation"],
        ),
        (&|example| unknown.save(&example.masks().join("00002.png")).unwrap(), &["00002.png", "id 3"]),
        (
            &|example| LabelMap::background(20, 10).save(&example.annotations().join("00000.png")).unwrap(),
            &["cow/00000.png", "no object"],
        ),
    ];
    for (change, words) in cases {
        let example = Example::new(5);
        change(&example);
        let error = example.score_in("out/masks").unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
