// SPDX-License-Identifier: MPL-2.0

//! Training and evaluation on several ranks, connected over the loopback interface, with a generated data set and a
//! tiny network.

#![cfg(target_os = "linux")]

mod util;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gstfastganseg::torch::model::weights::Weights;
use tch::Tensor;
use util::{CRITICS, ENDLESS, Fixture, PROGRAM, column, failed_with, succeeded, train, validation};

/// Time within which the other ranks end after one has.
const LIMIT: Duration = Duration::from_secs(30);

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Starts one rank as launchers do.
fn start(
    fixture: &Fixture,
    program: &Path,
    (rank, ranks): (usize, usize),
    port: u16,
    arguments: &[&str],
) -> Child {
    Command::new(program)
        .current_dir(fixture.folder.path())
        .env("RANK", rank.to_string())
        .env("LOCAL_RANK", rank.to_string())
        .env("WORLD_SIZE", ranks.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string())
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts two ranks of a training run.
fn start_two(fixture: &Fixture, out: &str, settings: &[&str]) -> [Child; 2] {
    let port = port();
    let arguments = train(out, settings);
    [0, 1].map(|rank| start(fixture, Path::new(PROGRAM), (rank, 2), port, &arguments))
}

/// Trains on two ranks that `--ranks` starts.
fn train_on_two(fixture: &Fixture, out: &str, settings: &[&str]) -> Output {
    fixture.run(&[&train(out, settings)[..], &["--ranks", "2"]].concat())
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits for a process and returns its output; fails after `limit`.
fn wait(mut child: Child, limit: Duration) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > limit {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("still running after {limit:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Waits until the curve of a run has `rows` rows.
fn wait_for_rows(fixture: &Fixture, out: &str, rows: usize) {
    let (path, begun) = (fixture.path(out).join("curve.csv"), Instant::now());
    while fs::read_to_string(&path).map_or(0, |curve| curve.lines().count()) <= rows {
        assert!(begun.elapsed() < Duration::from_secs(180), "no {rows} steps within three minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn checkpoint(fixture: &Fixture, out: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture.path(out).join("checkpoint.safetensors")).unwrap().into_iter().collect()
}

fn step(fixture: &Fixture, out: &str) -> i64 {
    checkpoint(fixture, out)["step"].int64_value(&[0])
}

/// Differences between the weights of all networks of two runs.
fn differences(fixture: &Fixture, one: &str, other: &str) -> Tensor {
    let [one, other] = [one, other].map(|run| checkpoint(fixture, run));
    assert!(one.keys().eq(other.keys()));
    assert!(one.keys().any(|key| key.starts_with("regressor.weight.")));
    let weights = one.iter().filter(|(key, _)| key.contains(".weight."));
    Tensor::cat(&weights.map(|(key, one)| (one - &other[key]).flatten(0, -1)).collect::<Vec<_>>(), 0)
}

/// The root mean square of the differences between the weights of two runs. With Adam, a weight whose gradient is
/// nothing but rounding moves by up to the learning rate, so their maximum is no measure at larger rates.
fn difference(fixture: &Fixture, one: &str, other: &str) -> f64 {
    differences(fixture, one, other).square().mean(tch::Kind::Double).sqrt().double_value(&[])
}

/// Asserts that two runs have the same weights and the same curve, apart from rounding and elapsed time.
fn assert_same_run(fixture: &Fixture, one: &str, other: &str) {
    let mean = difference(fixture, one, other);
    assert!(mean < 1e-6, "{mean}");
    let [one, other] = [one, other].map(|run| fixture.text(&format!("{run}/curve.csv")));
    let header = one.lines().next().unwrap();
    assert_eq!(header, other.lines().next().unwrap());
    for name in header.split(',').filter(|name| *name != "seconds") {
        let [one, other] = [&one, &other].map(|curve| column(curve, name));
        assert_eq!(one.len(), other.len(), "{name}");
        for (one, other) in one.iter().zip(&other) {
            assert!((one - other).abs() <= 1e-3 * one.abs() + 1e-5, "{name}: {one} and {other}");
        }
    }
}

/// Four clips a step, and the paper's learning rate.
const COMPARED: [&str; 4] = [
    "data.batch=4",
    "data.remember=0.5",
    "optimiser.learning_rate=1e-5",
    "optimiser.encoder_learning_rate=1e-5",
];

#[test]
fn two_ranks_train_as_one_process_with_all_their_clips() {
    let fixture = Fixture::with(&[CRITICS]);
    let settings =
        [&COMPARED[..], &["steps=20", "checkpoint_every=20", "gradients_every=4", "report_every=2"]];
    let settings = [&settings.concat()[..], &["critics.learning_rate=1e-5"]].concat();
    succeeded(&fixture.train("one", &settings));
    succeeded(&train_on_two(&fixture, "two", &settings));
    assert_same_run(&fixture, "one", "two");
    // The weights have moved by far more than the tolerance.
    succeeded(&fixture.train("start", &[&settings[..], &["stop_after=1"]].concat()));
    let moved = difference(&fixture, "one", "start");
    assert!(moved > 2e-5, "{moved}");

    // At a rate at which rounding moves weights less than that, each of them is equal to 1e-6.
    let rates = ["optimiser.learning_rate", "optimiser.encoder_learning_rate", "critics.learning_rate"];
    let slow = rates.map(|key| format!("{key}=5e-7"));
    let slow = [&settings[..], &slow.each_ref().map(String::as_str)[..]].concat();
    succeeded(&fixture.train("slow-one", &slow));
    succeeded(&train_on_two(&fixture, "slow-two", &slow));
    let largest = differences(&fixture, "slow-one", "slow-two").abs().max().double_value(&[]);
    assert!(largest < 1e-6, "{largest}");
}

#[test]
fn a_run_continues_on_another_number_of_ranks() {
    let fixture = Fixture::with(&[CRITICS]);
    let length = ["steps=12", "checkpoint_every=4", "report_every=2"];
    let critics = ["critics.learning_rate=1e-5", "critics.fresh_batches=false"];
    let settings = [&COMPARED[..], &length, &critics].concat();
    succeeded(&fixture.train("whole", &settings));
    succeeded(&train_on_two(&fixture, "parts", &[&settings[..], &["stop_after=4"]].concat()));
    succeeded(&fixture.train("parts", &[&settings[..], &["stop_after=8"]].concat()));
    succeeded(&train_on_two(&fixture, "parts", &settings));
    assert_same_run(&fixture, "whole", "parts");
}

#[test]
fn when_a_rank_is_killed_the_others_end_and_the_run_resumes() {
    let fixture = Fixture::new();
    let endless = [&COMPARED[2..], &["steps=1000000", "report_every=1", "checkpoint_every=3"]].concat();
    for (out, killed, other) in [("first", 1, 0), ("second", 0, 1)] {
        let mut ranks = start_two(&fixture, out, &endless).map(Some);
        wait_for_rows(&fixture, out, 7);
        signal(ranks[killed].as_ref().unwrap(), "-KILL");
        let output = wait(ranks[other].take().unwrap(), LIMIT);
        failed_with(&output, &[&format!("rank {killed}")]);
        ranks[killed].take().unwrap().wait().unwrap();
        let saved = step(&fixture, out);
        assert!(saved >= 6, "{saved}");
        let until = format!("stop_after={}", saved + 2);
        let settings = [&endless[..], &[until.as_str()]].concat();
        succeeded(&train_on_two(&fixture, out, &settings));
        let whole = format!("{out}-whole");
        succeeded(&fixture.train(&whole, &settings));
        assert_same_run(&fixture, out, &whole);
    }
}

#[test]
fn a_rank_that_is_stopped_ends_the_others() {
    let fixture = Fixture::new();
    let [first, second] = start_two(&fixture, "out", &["steps=1000000", "report_every=1"]);
    wait_for_rows(&fixture, "out", 1);
    signal(&second, "-STOP");
    let output = wait(first, LIMIT);
    signal(&second, "-KILL");
    failed_with(&output, &["rank 1 has not responded"]);
    wait(second, LIMIT);
}

#[test]
fn an_error_on_one_rank_ends_all_with_its_message() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let (port, arguments) = (port(), train("out", &["steps=1000000"]));
    for fixture in [&fixture, &other] {
        let relative = fixture.config().replace(&format!("{}/", fixture.folder.path().display()), "");
        fs::write(fixture.path("run.toml"), relative).unwrap();
    }
    fs::remove_file(other.path("photos/JPEGImages/p1.jpg")).unwrap();
    fs::remove_file(other.path("photos/Annotations/p1.png")).unwrap();
    let first = start(&fixture, Path::new(PROGRAM), (0, 2), port, &arguments);
    let second = start(&other, Path::new(PROGRAM), (1, 2), port, &arguments);
    failed_with(&wait(second, 2 * LIMIT), &["rank 1", "frames and stills", "same data"]);
    failed_with(&wait(first, LIMIT), &["rank 1 ended with an error", "frames and stills"]);
    assert!(!other.path("out").exists(), "only rank 0 writes");
}

#[test]
fn ranks_with_another_configuration_or_build_are_refused() {
    let fixture = Fixture::new();
    let other_build = fixture.path("fastganseg-train");
    let mut program = fs::read(PROGRAM).unwrap();
    program.push(0);
    fs::write(&other_build, program).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&other_build, executable).unwrap();
    let same = Path::new(PROGRAM);
    let cases: [(&Path, &[&str], &str); 3] = [
        (same, &["seed=8"], "seed (8, rank 0 7)"),
        (same, &["data.window=1"], "data.window (1, rank 0 2)"),
        (&other_build, &[], "another build"),
    ];
    for (program, settings, words) in cases {
        let port = port();
        let first = start(&fixture, same, (0, 2), port, &train("out", &[]));
        let second = start(&fixture, program, (1, 2), port, &train("out", settings));
        failed_with(&wait(second, LIMIT), &["rank 1", words]);
        failed_with(&wait(first, LIMIT), &["rank 1", words]);
        assert!(!fixture.path("out").exists(), "nothing is trained");
    }
    // Speed and device may differ.
    let port = port();
    let first = start(&fixture, same, (0, 2), port, &train("out", &["steps=1"]));
    let second = start(&fixture, same, (1, 2), port, &train("out", &["steps=1", "loader_threads=1"]));
    succeeded(&wait(first, 4 * LIMIT));
    succeeded(&wait(second, 4 * LIMIT));
}

#[test]
fn an_interrupt_on_any_rank_saves_once_and_ends_all() {
    let fixture = Fixture::new();
    let [first, second] = start_two(&fixture, "out", &ENDLESS);
    wait_for_rows(&fixture, "out", 2);
    signal(&second, "-INT");
    let [first, second] = [first, second].map(|child| wait(child, LIMIT));
    succeeded(&first);
    succeeded(&second);
    let curve = fixture.text("out/curve.csv");
    assert_eq!(*column(&curve, "step").last().unwrap() as i64, step(&fixture, "out"));
    let count = |output: &Output| String::from_utf8_lossy(&output.stderr).matches("to resume").count();
    assert_eq!((count(&first), count(&second)), (1, 0));
}

#[test]
fn the_launcher_passes_signals_on_and_names_a_rank_that_dies() {
    let fixture = Fixture::new();
    let launch = |out: &str| {
        let launcher = fixture
            .command(&train(out, &ENDLESS))
            .args(["--ranks", "2"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_rows(&fixture, out, 2);
        launcher
    };
    let launcher = launch("interrupted");
    signal(&launcher, "-INT");
    succeeded(&wait(launcher, LIMIT));
    assert!(step(&fixture, "interrupted") >= 2);

    let launcher = launch("killed");
    let id = launcher.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let second = children.split_whitespace().nth(1).unwrap();
    assert!(Command::new("kill").args(["-KILL", second]).status().unwrap().success());
    failed_with(&wait(launcher, LIMIT + LIMIT), &["rank 1 was killed by signal 9", "rank 0: error: rank 1"]);
}

#[test]
fn validation_is_shared_and_written_once() {
    let fixture = Fixture::with(&[&validation(&["s2", "s0", "s1"], 2)]);
    // The weights stay equal: those of two ranks would be rounded differently, and the scores of these networks are near zero.
    let settings = ["steps=4", "optimiser.learning_rate=1e-12"];
    succeeded(&fixture.train("one", &settings));
    succeeded(&train_on_two(&fixture, "two", &settings));
    let [one, two] = ["one", "two"].map(|run| {
        let curve = fixture.text(&format!("{run}/curve.csv"));
        let best = Weights::open(&fixture.path(run).join("best.safetensors")).unwrap();
        (column(&curve, "score/J&F"), best.metadata()["validation_by_sequence"].clone())
    });
    assert_eq!(one.0.len(), 2);
    assert!(one.0.iter().zip(&two.0).all(|(one, two)| (one - two).abs() < 1e-6), "{one:?} {two:?}");
    let names: Vec<&str> = two.1.split('"').skip(1).step_by(2).collect();
    assert_eq!(names, ["s0", "s1", "s2"]);
    let files = |run: &str| fs::read_dir(fixture.path(run)).unwrap().count();
    assert_eq!(files("one"), files("two"), "one file of events");
}

#[test]
fn evaluation_and_scores_on_two_ranks_equal_those_of_one() {
    let fixture = Fixture::new();
    let csv = |path: &str| -> Vec<String> {
        // Without the speed.
        let text = fixture.text(path);
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let speed = header.iter().position(|name| name.contains("fps")).unwrap_or(header.len());
        text.lines().map(|line| line.split(',').take(speed).collect::<Vec<_>>().join(",")).collect()
    };
    for (out, ranks) in [("one", "1"), ("two", "2")] {
        let eval =
            format!("eval --data video --out {out} --device cpu --confidence {out}.csv --ranks {ranks}");
        let table = fixture.printed(&eval);
        assert_eq!(table.lines().filter(|line| line.starts_with("global")).count(), 1, "{table}");
        let files = format!("--masks {out}/masks --csv {out}-scores.csv");
        fixture.printed(&format!("score --data video {files} --ranks {ranks}"));
        assert!(fixture.path(out).join("sheets/s1.png").exists());
    }
    assert_eq!(csv("one/scores.csv"), csv("two/scores.csv"));
    assert_eq!(csv("one-scores.csv"), csv("two-scores.csv"));
    assert_eq!(csv("one.csv"), csv("two.csv"));
    // The sequences are too short for a cover, on any rank.
    for ranks in ["1", "2"] {
        let cover = "eval --data video --device cpu --cover black --cover-length 1";
        failed_with(&fixture.run_line(&format!("{cover} --ranks {ranks}")), &["frames", "needed"]);
    }
}

#[test]
fn impossible_numbers_of_ranks_are_refused() {
    let fixture = Fixture::new();
    let three = fixture.run(&[&train("out", &["data.batch=4"])[..], &["--ranks", "3"]].concat());
    failed_with(&three, &["data.batch = 4", "multiple of the 3 ranks", "data.batch = 6"]);
    let output = fixture
        .command(&train("out", &[]))
        .args(["--ranks", "2"])
        .env("WORLD_SIZE", "4")
        .env("RANK", "1")
        .env("LOCAL_RANK", "1")
        .env("MASTER_ADDR", "127.0.0.1")
        .output()
        .unwrap();
    failed_with(&output, &["--ranks 2", "4 ranks of the launcher"]);
}

/// Runs with the launcher of PyTorch.
#[test]
#[ignore = "needs PyTorch: TORCHRUN=/path/to/torchrun cargo test -p fastganseg-training -- --ignored torchrun"]
fn torchrun_starts_the_ranks() {
    let torchrun = std::env::var("TORCHRUN").expect("set TORCHRUN to the path of torchrun");
    let length = ["steps=6", "checkpoint_every=6", "critics.learning_rate=1e-5"];
    let settings = [&COMPARED[..], &length].concat();
    let fixture = Fixture::with(&[CRITICS]);
    let port = port().to_string();
    let output = Command::new(torchrun)
        .current_dir(fixture.folder.path())
        .args(["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--local-addr", "127.0.0.1"])
        .args(["--master-port", &port, "--no-python", PROGRAM])
        .args(train("two", &settings))
        .output()
        .unwrap();
    succeeded(&output);
    succeeded(&fixture.train("one", &settings));
    assert_same_run(&fixture, "one", "two");
}
