// SPDX-License-Identifier: MPL-2.0

//! Training runs of a few steps with a generated data set and a tiny network.

mod util;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gstfastganseg::torch::model::weights::Weights;
use util::{CRITICS, ENDLESS, Fixture, column, failed_with, succeeded, train, validation};

/// The fields of a curve without the column of elapsed time.
fn without_time(curve: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> =
        curve.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let seconds = rows[0].iter().position(|name| name == "seconds").unwrap();
    let keep = |row: &Vec<String>| {
        row.iter().enumerate().filter(|(i, _)| *i != seconds).map(|(_, field)| field.clone()).collect()
    };
    rows.iter().map(keep).collect()
}

#[test]
fn a_run_leaves_weights_that_can_be_evaluated() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("out", &["steps=25", "checkpoint_every=25"]));
    let curve = fixture.text("out/curve.csv");
    assert_eq!(curve.lines().count(), 2, "{curve}");
    let config = fixture.text("out/config.toml");
    assert!(config.contains("steps = 25"), "overrides are in the effective configuration");
    fixture.printed("eval --data video --out masks --model out/model.safetensors --device cpu");
    assert!(fixture.path("masks/masks/s0/00007.png").exists());
}

#[test]
fn a_teacher_adds_its_losses_to_the_curve() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("out", &["steps=1"]));
    let teacher = ["distillation.teacher=out/model.safetensors", "distillation.mask_weight=1"];
    succeeded(&fixture.train("taught", &["report_every=1", teacher[0], teacher[1]]));
    let curve = fixture.text("taught/curve.csv");
    for name in ["loss/distillation", "loss/distillation_keys"] {
        assert!(column(&curve, name).iter().all(|loss| *loss > 0.0), "{curve}");
    }
    let missing = ["distillation.teacher=none.safetensors", "distillation.mask_weight=1"];
    failed_with(&fixture.train("other", &missing), &["none.safetensors", "lite and large"]);
}

#[test]
fn refinement_trains_the_refiner_alone() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("out", &["steps=1"]));
    let refiner = ["start_from=out/model.safetensors", "model.refiner_channels=32", "refinement.tiles=6"];
    let train = |settings: &[&str]| {
        fixture
            .train("refined", &[&["data.size=[96, 128]", "report_every=1"], &refiner[..], settings].concat())
    };
    succeeded(&train(&["steps=4"]));
    let curve = fixture.text("refined/curve.csv");
    for name in ["loss/bilinear", "loss/refined"] {
        assert!(column(&curve, name).iter().all(|loss| *loss > 0.0), "{curve}");
    }
    let weights =
        |run: &str| tch::Tensor::read_safetensors(fixture.path(run).join("model.safetensors")).unwrap();
    let before: std::collections::HashMap<_, _> = weights("out").into_iter().collect();
    let mut trained = 0;
    for (name, tensor) in weights("refined") {
        match before.get(&name) {
            Some(before) => assert!(tensor.equal(before), "{name} was trained"),
            None => {
                assert!(name.starts_with("refiner."), "{name}");
                // The last layer begins with zeros.
                trained +=
                    usize::from(name == "refiner.head.weight" && tensor.abs().max().double_value(&[]) > 0.0);
            }
        }
    }
    assert_eq!(trained, 1);

    let without_start = ["model.refiner_channels=32", "refinement.tiles=6", "data.size=[96, 128]"];
    failed_with(&fixture.train("other", &without_start), &["set start_from"]);
    failed_with(&train(&["model.refiner_channels=0"]), &["model.refiner_channels"]);
    failed_with(&train(&["data.size=[64, 96]"]), &["multiples of 32, at least 96"]);
    failed_with(&train(&["refinement.tiles=0"]), &["refinement.tiles"]);
    failed_with(&train(&["critics.steps=1"]), &["refinement: remove critics"]);
}

#[test]
fn exported_weights_contain_configuration_and_metadata() {
    let fixture = Fixture::with(&["\n[metadata]\nlicence = \"CC0-1.0\"\n"]);
    succeeded(&fixture.train("out", &["steps=1"]));
    fixture.printed(
        "export --model out/model.safetensors --config run.toml --out final.safetensors --network-size 96x128",
    );
    let weights = Weights::open(&fixture.path("final.safetensors")).unwrap();
    assert_eq!(weights.config().network_size, [96, 128]);
    assert_eq!(weights.metadata()["licence"], "CC0-1.0");
    assert_eq!(weights.metadata()["steps"], "1");
}

/// The file got the licence and the data of a network that it does not hold.
#[test]
fn weights_are_not_exported_with_the_metadata_of_another_run() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("out", &["steps=1"]));
    let export = |config: &str, settings: &[&str]| {
        let mut arguments = vec!["export", "--model", "out/model.safetensors", "--out", "final.safetensors"];
        arguments.extend(["--config", config]);
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        fixture.run(&arguments)
    };
    let remedy = "--config out/config.toml";
    let lite = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/lite.toml");
    failed_with(
        &export(lite, &[]),
        &["out/model.safetensors", "model.width (weights 0.125, now 1.0)", remedy],
    );
    for (setting, difference) in [
        ("model.architecture=resnet50", "model.architecture (weights \"lite\", now \"resnet50\")"),
        ("data.sources.video.exclude=['s1']", "data.sources.video.exclude"),
        ("data.sources.more={kind='stills', path='more'}", "data.sources.more.kind (weights not set"),
    ] {
        failed_with(&export("run.toml", &[setting]), &[difference, remedy]);
    }
    assert!(!fixture.path("final.safetensors").exists());
    // These do not change what the metadata say.
    let settings = [
        "steps=9",
        "data.sources.video.path=moved",
        "data.sources.video.preload=true",
        "metadata.licence=CC0-1.0",
    ];
    succeeded(&export("run.toml", &settings));
    succeeded(&export("out/config.toml", &[]));
}

#[test]
fn the_latest_weights_carry_the_scores_of_their_step() {
    let fixture = Fixture::with(&[&validation(&["s2"], 2)]);
    let scores = |name: &str| {
        let metadata = Weights::open(&fixture.path(name)).unwrap().metadata().clone();
        let scores = metadata.into_iter().filter(|(key, _)| key.starts_with("validation_"));
        scores.collect::<std::collections::BTreeMap<String, String>>()
    };
    succeeded(&fixture.train("out", &["checkpoint_every=1", "stop_after=2"]));
    let validated = scores("out/model.safetensors");
    assert_eq!((validated.len(), &validated), (5, &scores("out/best.safetensors")), "the only validation");
    // A step without a validation, at which no scores of another step may stay.
    succeeded(&fixture.train("out", &["checkpoint_every=1", "stop_after=3"]));
    assert!(scores("out/model.safetensors").is_empty());
    // A validation of other weights than those of the file.
    succeeded(&fixture.train("rare", &["checkpoint_every=3", "stop_after=3"]));
    assert!(scores("rare/model.safetensors").is_empty());
    succeeded(&fixture.train("out", &[]));
    assert_eq!(scores("out/model.safetensors").len(), 5);
    let line = "export --model out/model.safetensors --config out/config.toml --out final.safetensors --card CARD.md";
    succeeded(&fixture.run_line(line));
    let card = fixture.text("CARD.md");
    assert!(card.contains("| s2 |") && !card.contains("not validated"), "{card}");
}

#[test]
fn a_model_card_shows_metadata_and_scores() {
    let metadata = "\n[metadata]\nlicence = \"CC0-1.0\"\ntraining_data = \"disks\"\n";
    let fixture = Fixture::with(&[metadata]);
    succeeded(&fixture.train("out", &["steps=1"]));
    let line = "export --model out/model.safetensors --config run.toml --out final.safetensors --card CARD.md \
                --set seed=9";
    succeeded(&fixture.run_line(line));
    let card = fixture.text("CARD.md");
    // The seed is that of the run, not that of --config.
    for word in
        ["# final.safetensors", "| licence | CC0-1.0 |", "| data | disks |", "| steps | 1 |", "| seed | 7 |"]
    {
        assert!(card.contains(word), "{word} in {card}");
    }
    assert!(card.contains("GMAC") && card.contains("not validated") && card.contains("batch = 2"), "{card}");

    // With the scores of a validation.
    let weights = Weights::open(&fixture.path("final.safetensors")).unwrap();
    let mut metadata = weights.metadata().clone();
    for (key, value) in [
        ("validation_j_and_f", "0.75"),
        ("validation_j", "0.8"),
        ("validation_f", "0.7"),
        ("validation_by_sequence", r#"{"s1":[0.9,0.6],"s0":[0.7,0.8]}"#),
    ] {
        metadata.insert(key.into(), value.into());
    }
    fastganseg_training::train::export(
        &weights,
        &metadata,
        true,
        tch::Kind::Half,
        &fixture.path("out/model.safetensors"),
    )
    .unwrap();
    succeeded(&fixture.run_line(line));
    let card = fixture.text("CARD.md");
    let table = "| s0 | 75.0 | 70.0 | 80.0 |\n| s1 | 75.0 | 90.0 | 60.0 |\n| all | 75.0 | 80.0 | 70.0 |";
    assert!(card.contains(table), "{card}");
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_run() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("whole", &[]));
    succeeded(&fixture.train("parts", &[]));
    let first = fixture.read("whole/checkpoint.safetensors");
    assert!(first == fixture.read("parts/checkpoint.safetensors"), "same seed, same run");

    // stop_after, since the schedule depends on steps.
    succeeded(&fixture.train("half", &["stop_after=2"]));
    let half = fixture.read("half/checkpoint.safetensors");
    assert!(half != first);
    succeeded(&fixture.train("half", &[]));
    assert!(first == fixture.read("half/checkpoint.safetensors"), "2 + 2 steps = 4 steps");
}

#[test]
fn the_curve_of_a_resumed_run_has_each_step_once() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("out", &["steps=55", "stop_after=30", "checkpoint_every=10"]));
    // A row that a killed run wrote after its last checkpoint.
    let path = fixture.path("out/curve.csv");
    let mut curve = fs::read_to_string(&path).unwrap();
    curve.push_str("50,9,9,9,9,9\n");
    fs::write(&path, curve).unwrap();
    succeeded(&fixture.train("out", &["steps=55", "checkpoint_every=10"]));
    let curve = fs::read_to_string(&path).unwrap();
    assert_eq!(column(&curve, "step"), [25.0, 50.0], "{curve}");
    let similarity = column(&curve, "region_similarity");
    let is_mean = similarity[1] > 0.3 * similarity[0] && similarity[1] < 1.0;
    assert!(is_mean, "a mean, not a sum over fewer steps: {curve}");
}

#[test]
fn videos_shorter_than_a_clip_are_an_error() {
    let fixture = Fixture::new();
    failed_with(
        &fixture
            .train("out", &["data.window=20", "data.sources.photos.ratio=0", "data.sources.regions.ratio=0"]),
        &["data.window"],
    );
}

#[test]
fn errors_name_mistakes_in_the_configuration() {
    let fixture = Fixture::new();
    let cases: [(&str, &[&str]); 11] = [
        ("optimiser.learning_rat=1", &["run.toml", "learning_rat"]),
        ("data.remember=2", &["run.toml", "data.remember"]),
        ("model.network_size=[60, 96]", &["run.toml", "network_size"]),
        ("steps", &["run.toml", "key=value"]),
        ("data.sources.video.path=nowhere", &["nowhere"]),
        ("data.sources.video.exclude=['s0', 's1', 's2']", &["no annotated sequence"]),
        ("backbone=none.safetensors", &["none.safetensors"]),
        ("data.batch=99999999", &["data.batch", "4096"]),
        ("data.window=99999999", &["data.window", "256"]),
        ("threads=99999999", &["threads", "1024"]),
        ("loader_threads=99999999", &["loader_threads", "1024"]),
    ];
    for (setting, words) in cases {
        failed_with(&fixture.train("out", &[setting]), words);
    }
}

#[test]
fn a_new_run_does_not_replace_the_weights_of_another() {
    let fixture = Fixture::new();
    let settings = ["steps=1", "report_every=1"];
    succeeded(&fixture.train("out", &settings));
    fs::remove_file(fixture.path("out/checkpoint.safetensors")).unwrap();
    let read =
        || ["curve.csv", "config.toml", "model.safetensors"].map(|name| fixture.read(&format!("out/{name}")));
    let before = read();
    let refused = |file: &str| {
        let output = fixture.train("out", &["steps=1", "seed=8"]);
        failed_with(&output, &["out/checkpoint.safetensors", file, "--out"]);
    };
    refused("out/model.safetensors");
    assert!(before == read());
    fs::rename(fixture.path("out/model.safetensors"), fixture.path("out/best.safetensors")).unwrap();
    refused("out/best.safetensors");
    // A run that ended before its first checkpoint can start again.
    fs::remove_file(fixture.path("out/best.safetensors")).unwrap();
    succeeded(&fixture.train("out", &["steps=1", "seed=8"]));
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let fixture = Fixture::new();
    succeeded(&fixture.train("out", &[]));
    succeeded(&fixture.train("wider", &["model.width=0.25"]));
    fixture.copy("wider/checkpoint.safetensors", "out/checkpoint.safetensors");
    failed_with(&fixture.train("out", &[]), &["out/checkpoint.safetensors", "no tensor"]);
}

#[test]
fn resuming_with_another_configuration_is_refused_and_changes_no_file() {
    let fixture = Fixture::new();
    let long = ["steps=8", "stop_after=2"];
    succeeded(&fixture.train("out", &long));
    let files = ["out/config.toml", "out/checkpoint.safetensors", "out/model.safetensors"];
    let read = || files.map(|name| fixture.read(name));
    let before = read();
    for (settings, words) in [
        (["steps=8", "seed=8"], ["seed (checkpoint 7, now 8)", "--out"]),
        (["steps=8", "data.window=1"], ["data.window (checkpoint 2, now 1)", "start_from"]),
        (["steps=9", "model.width=0.25"], ["steps (checkpoint 8, now 9)", "model.width"]),
    ] {
        let output = fixture.train("out", &settings);
        failed_with(&output, &[&["out/checkpoint.safetensors"], &words[..]].concat());
        assert!(read() == before, "{settings:?}");
    }
    // These keys may change.
    succeeded(
        &fixture.train("out", &["steps=8", "stop_after=3", "optimiser.learning_rate=1e-4", "threads=2"]),
    );
    fs::remove_file(fixture.path(files[0])).unwrap();
    failed_with(&fixture.train("out", &long), &["config.toml", "--out"]);
}

#[test]
fn broken_images_are_named_and_left_out() {
    let fixture = Fixture::new();
    fs::write(fixture.path("video/JPEGImages/s1/00003.jpg"), b"no picture").unwrap();
    let preload = "data.sources.video.preload=true";
    let limited = fixture.train("out", &[preload, "data.broken_limit=0"]);
    failed_with(&limited, &["s1/00003.jpg", "data.broken_limit"]);
    let output = fixture.train("out", &[preload, "steps=1"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("s1/00003.jpg"), "the image is named");
}

#[test]
fn clips_are_drawn_on_a_contact_sheet() {
    let fixture = Fixture::new();
    fixture.printed("clips --config run.toml --out clips.png --batches 1");
    let sheet = image::open(fixture.path("clips.png")).unwrap();
    assert!(sheet.width() > 640 && sheet.height() > 400);
    let named = fixture.run_line("clips --config run.toml --out clips.jpg");
    failed_with(&named, &["clips.jpg", "ends in .png"]);
    let none = fixture.run_line("clips --config run.toml --out none.png --batches 0");
    failed_with(&none, &["--batches", "0"]);
}

#[test]
fn a_resumed_run_with_critics_equals_an_uninterrupted_run() {
    let fixture = Fixture::with(&[CRITICS]);
    let settings = ["steps=20", "checkpoint_every=10", "report_every=2", "gradients_every=4"];
    succeeded(&fixture.train("whole", &settings));
    succeeded(&fixture.train("parts", &[&settings[..], &["stop_after=10"]].concat()));
    let half = fixture.read("parts/checkpoint.safetensors");
    succeeded(&fixture.train("parts", &settings));
    let [whole, parts] = ["whole", "parts"].map(|run| {
        (fixture.read(&format!("{run}/checkpoint.safetensors")), fixture.text(&format!("{run}/curve.csv")))
    });
    assert!(half != whole.0 && whole.0 == parts.0, "10 + 10 steps = 20 steps, critics and moments too");
    assert_eq!(without_time(&whole.1), without_time(&parts.1));
    assert_eq!(column(&whole.1, "wasserstein/temporal").len(), 10);
    assert_eq!(column(&whole.1, "gradient/spatial").len(), 5);
}

#[test]
fn a_checkpoint_of_a_run_with_other_critics_is_refused() {
    let fixture = Fixture::with(&[CRITICS]);
    succeeded(&fixture.train("out", &["steps=1"]));
    succeeded(&fixture.train("fewer", &["steps=1", "critics.temporal_weight=0"]));
    fixture.copy("out/checkpoint.safetensors", "fewer/checkpoint.safetensors");
    let fewer = fixture.train("fewer", &["steps=1", "critics.temporal_weight=0"]);
    failed_with(&fewer, &["checkpoint.safetensors", "temporal", "other critics"]);
}

#[test]
fn the_smoke_configuration_runs_the_full_objective() {
    let fixture = Fixture::new();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/smoke.toml"), fixture.path("run.toml")).unwrap();
    let settings = [
        "data.sources.video.path=video",
        "validation.data=video",
        "validation.frame_step=1",
        "validation.sequences=['s2']",
        "data.sources.video.exclude=['s2']",
        "threads=1",
    ];
    succeeded(&fixture.train("out", &settings));
    let curve = fixture.text("out/curve.csv");
    for name in ["loss/cross_entropy", "loss/spatial", "loss/temporal", "wasserstein/spatial"] {
        assert_eq!(column(&curve, name).len(), 4, "{name}");
    }
    for part in ["supervised", "spatial", "temporal"] {
        let norms = column(&curve, &format!("gradient/{part}"));
        assert!(norms.iter().all(|norm| *norm > 0.0), "{part} has a gradient on the regressor: {norms:?}");
    }
    assert!(column(&curve, "penalty/temporal").iter().all(|penalty| *penalty >= 0.0));
    assert_eq!(column(&curve, "score/J&F").len(), 2);
    for name in ["best.safetensors", "model.safetensors", "curve.png", "window.png"] {
        assert!(fixture.path("out").join(name).exists(), "{name}");
    }
    let weights = Weights::open(&fixture.path("out/best.safetensors")).unwrap();
    assert!(weights.metadata()["training_config"].contains("video"));
}

/// Starts a run in the folder `out` that does not end, and waits for its first step.
fn start_endless(fixture: &Fixture, stderr: Stdio) -> Child {
    let child = fixture.command(&train("out", &ENDLESS)).stderr(stderr).spawn().unwrap();
    let start = Instant::now();
    while !fixture.path("out/curve.csv").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no step within two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved_and_resumed() {
    let fixture = Fixture::new();
    let child = start_endless(&fixture, Stdio::piped());
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("to resume"), "{message}");
    let words: Vec<&str> = message.lines().last().unwrap().split(' ').collect();
    let done: u64 = words[2].parse().unwrap();

    let until = format!("stop_after={}", done + 1);
    succeeded(&fixture.train("out", &[&ENDLESS[..], &[until.as_str()]].concat()));
    let curve = fixture.text("out/curve.csv");
    let steps: Vec<f64> = (1..=done + 1).map(|step| step as f64).collect();
    assert_eq!(column(&curve, "step"), steps);
}

/// Two runs replaced each other's checkpoints.
#[test]
fn a_second_run_in_the_folder_of_another_is_refused() {
    let fixture = Fixture::new();
    let mut first = start_endless(&fixture, Stdio::null());
    let second = fixture.train("out", &["steps=1"]);
    first.kill().unwrap();
    first.wait().unwrap();
    failed_with(&second, &["another run uses the folder out", "--out"]);
    assert!(!fixture.path("out/checkpoint.safetensors").exists());
    // The lock of a killed run does not stay.
    succeeded(&fixture.train("out", &["steps=1"]));
}

#[test]
fn a_diverging_run_suggests_remedies_and_keeps_its_checkpoint() {
    let fixture = Fixture::with(&[CRITICS]);
    let settings = ["steps=1000", "checkpoint_every=1000"];
    succeeded(&fixture.train("out", &[&settings[..], &["stop_after=2"]].concat()));
    let saved = fixture.read("out/checkpoint.safetensors");
    for (rate, word) in
        [("optimiser.learning_rate=1e30", "diverged"), ("critics.learning_rate=1e30", "critic")]
    {
        let output = fixture.train("out", &[&settings[..], &[rate]].concat());
        failed_with(&output, &[word, "learning_rate", "checkpoint.safetensors"]);
        assert!(saved == fixture.read("out/checkpoint.safetensors"));
    }
}

#[test]
fn weights_out_of_range_do_not_replace_the_last_checkpoint() {
    let fixture = Fixture::new();
    let settings = ["steps=1000", "checkpoint_every=1"];
    succeeded(&fixture.train("out", &[&settings[..], &["stop_after=2"]].concat()));
    let read =
        || ["checkpoint.safetensors", "model.safetensors"].map(|name| fixture.read(&format!("out/{name}")));
    let saved = read();
    // Such weights are finite in float32, but not in half precision.
    for rate in ["optimiser.learning_rate=1e9", "optimiser.learning_rate=1e30"] {
        let output = fixture.train("out", &[&settings[..], &[rate]].concat());
        failed_with(
            &output,
            &[
                "the weights",
                "not finite",
                "lower optimiser.learning_rate",
                "resume from out/checkpoint.safetensors",
                "--out",
            ],
        );
        assert!(saved == read(), "{rate}");
    }
    succeeded(
        &fixture.train("out", &[&settings[..], &["stop_after=3", "optimiser.learning_rate=1e-4"]].concat()),
    );
}

#[test]
fn an_ablation_compares_four_runs() {
    let fixture = Fixture::with(&[CRITICS, &validation(&["s2"], 1)]);
    let line = "ablate --config run.toml --out out --set steps=2 --set report_every=1";
    let table = fixture.printed(line);
    let names: Vec<&str> = table.lines().skip(1).take(4).map(|line| line[..12].trim()).collect();
    assert_eq!(names, ["CE", "CE + S", "CE + T", "CE + S + T"], "{table}");
    assert!(table.lines().nth(4).unwrap().ends_with("81.9"), "{table}");
    let csv = fixture.text("out/ablation.csv");
    assert_eq!(csv.lines().count(), 5);
    assert!(image::open(fixture.path("out/ablation.png")).is_ok());
    // Each run has its own critics.
    let curve = |run: &str| fs::read_to_string(fixture.path("out").join(run).join("curve.csv")).unwrap();
    let first = |run: &str| column(&curve(run), "loss/cross_entropy")[0];
    assert!(["ce-s", "ce-t", "ce-s-t"].iter().all(|run| first(run) > 0.0));
    assert!(curve("ce-s").contains("wasserstein/spatial") && !curve("ce-s").contains("wasserstein/temporal"));
    assert!(!curve("ce").contains("wasserstein"));
    // All runs are complete now, so a second call only prints the table.
    assert_eq!(table, fixture.printed(line));
    failed_with(&fixture.run_line(&format!("{line} --set critics.spatial_weight=0")), &["[critics]"]);
}

/// Its table gave the scores of step 2 as those of step 1.
#[test]
fn an_ablation_with_a_run_beyond_its_end_is_refused() {
    let fixture = Fixture::with(&[CRITICS, &validation(&["s2"], 1)]);
    fs::write(fixture.path("plain.toml"), fixture.config() + &validation(&["s2"], 1)).unwrap();
    fixture.printed("train --config plain.toml --out out/ce --set stop_after=2");
    failed_with(
        &fixture.run_line("ablate --config run.toml --out out --set stop_after=1"),
        &["out/ce/checkpoint.safetensors", "at step 2", "end at step 1", "stop_after"],
    );
    assert!(!fixture.path("out/ablation.csv").exists());
}

#[test]
fn an_ablation_whose_runs_end_without_a_validation_is_refused() {
    let fixture = Fixture::with(&[CRITICS, &validation(&["s2"], 3)]);
    for stop in ["stop_after=2", "stop_after=5"] {
        let line = format!("ablate --config run.toml --out out --set steps=8 --set {stop}");
        let output = fixture.run_line(&line);
        failed_with(&output, &["stop_after", "validation.every = 3"]);
        assert!(!fixture.path("out").exists(), "nothing is trained");
    }
}

#[test]
fn invalid_settings_of_critics_and_lengths_are_refused() {
    let fixture = Fixture::with(&[CRITICS]);
    failed_with(&fixture.train("out", &["data.size=[48, 96]"]), &["data.size", "64x64"]);
    succeeded(&fixture.train("epochs", &["epochs=0.1", "checkpoint_every=1"]));
    failed_with(&fixture.train("out", &["critics.step=3"]), &["run.toml", "step"]);
    failed_with(&fixture.train("out", &["critics.device=gpu"]), &["run.toml", "gpu"]);
    failed_with(&fixture.train("out", &["epochs=2", "steps=3"]), &["run.toml", "steps or epochs"]);
}
