// SPDX-License-Identifier: MPL-2.0

//! The shipped configurations.

use std::path::PathBuf;

use fastganseg_training::prompt::PromptConfig;
use fastganseg_training::train::TrainConfig;
use gstfastganseg::torch::model::TemporalSkip;

fn shipped(name: &str) -> TrainConfig {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
    TrainConfig::open(&path, &[]).unwrap()
}

#[test]
fn all_configurations_are_valid() {
    let configs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (folder, min_files) in [(configs.join("experiments"), 1), (configs, 4)] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let names: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
        assert!(names.len() >= min_files, "{names:?}");
        for path in names {
            let result = match path.file_name().unwrap().to_str() {
                Some("prompt.toml") => PromptConfig::open(&path, &[]).map(drop),
                _ => TrainConfig::open(&path, &[]).map(drop),
            };
            result.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// The comparison with RGMP is about temporal skip and critics: all other values and the number of steps must be
/// equal.
#[test]
fn rgmp_is_the_second_stage_of_the_paper_without_skip_and_critics() {
    let (paper, rgmp) = (shipped("paper-stage2.toml"), shipped("rgmp.toml"));
    assert_eq!(rgmp.model.temporal_skip, TemporalSkip::Off);
    assert!(rgmp.critics.is_none() && paper.critics.is_some());
    let clips = 30_000;
    assert_eq!(rgmp.length(clips), paper.length(clips));
    let mut expected = paper.clone();
    expected.model.temporal_skip = TemporalSkip::Off;
    expected.critics = None;
    expected.gradients_every = rgmp.gradients_every;
    expected.start_from = rgmp.start_from.clone();
    expected.epochs = rgmp.epochs;
    assert_eq!(rgmp.to_toml().unwrap(), expected.to_toml().unwrap());
}
