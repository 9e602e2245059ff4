//! The configurations that are shipped.

use std::path::PathBuf;

use fastganseg_training::train::TrainConfig;
use gstfastganseg::model::TemporalSkip;

fn shipped(name: &str) -> TrainConfig {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
    TrainConfig::open(&path, &[]).unwrap()
}

#[test]
fn all_of_them_can_be_read() {
    let configs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (folder, least) in [(configs.join("experiments"), 1), (configs, 4)] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let names: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
        assert!(names.len() >= least, "{names:?}");
        for path in names {
            TrainConfig::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// What is compared is the temporal skip and the critics; with all else alike, the number of regressor steps too.
#[test]
fn rgmp_is_the_papers_second_stage_without_skip_and_critics() {
    let (paper, rgmp) = (shipped("paper-stage2.toml"), shipped("rgmp.toml"));
    assert_eq!(rgmp.model.temporal_skip, TemporalSkip::Off);
    assert!(rgmp.critics.is_none() && paper.critics.is_some());
    let clips = 30_000;
    assert_eq!(rgmp.length(clips), paper.length(clips));
    let mut same = paper.clone();
    same.model.temporal_skip = TemporalSkip::Off;
    same.critics = None;
    same.gradients_every = rgmp.gradients_every;
    same.start_from = rgmp.start_from.clone();
    same.epochs = rgmp.epochs;
    assert_eq!(rgmp.to_toml().unwrap(), same.to_toml().unwrap());
}
