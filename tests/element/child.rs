//! Tests that need a process to themselves: for its memory, or for GStreamer's tracers.

use std::process::{Command, Output};

/// Runs a test of this binary that is marked as ignored.
pub fn run(test: &str, environment: &[(&str, &str)]) -> Output {
    // A registry that is there already: the making of one would be traced, too.
    crate::util::init();
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        // Threads that wait for each other tell nothing about memory.
        .env("OMP_NUM_THREADS", "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// As [`run`], and the test must pass; what it printed.
#[track_caller]
pub fn passes(test: &str, environment: &[(&str, &str)]) -> String {
    let output = run(test, environment);
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{text}");
    assert!(output.status.success(), "{test}: {}", output.status);
    assert!(text.contains("1 passed"), "there is no test {test}");
    text
}
