// SPDX-License-Identifier: MPL-2.0

//! Runs tests in a process of their own: for memory measurements or GStreamer's tracers.

use std::process::{Command, Output};

/// Runs an ignored test of this binary.
pub fn run(test: &str, environment: &[(&str, &str)]) -> Output {
    // Creates the registry here, so that the child does not trace that.
    crate::util::init();
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        // Memory does not depend on OpenMP threads; one is enough.
        .env("OMP_NUM_THREADS", "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// Like [`run`], but asserts that the test passes. Returns its output.
#[track_caller]
pub fn passes(test: &str, environment: &[(&str, &str)]) -> String {
    let output = run(test, environment);
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{text}");
    assert!(output.status.success(), "{test}: {}", output.status);
    assert!(text.contains("1 passed"), "test {test} does not exist");
    text
}
