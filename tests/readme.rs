//! Every `gst-launch-1.0` line of the README runs as it stands, on a small clip, with the
//! names of files that it uses and with a stand-in for what needs hardware or a screen.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[allow(dead_code)]
#[path = "../examples/demo_clip.rs"]
mod demo_clip;

/// What the machine under test need not have, and what takes its place.
const STAND_INS: [(&str, &str); 5] = [
    ("v4l2src num-buffers=30", "v4l2src"),
    ("v4l2src device=/dev/video0", "v4l2src"),
    ("v4l2src", "videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=320,height=180,framerate=30/1"),
    ("v4l2sink device=/dev/video10", "fakevideosink"),
    ("autovideosink", "fakevideosink"),
];

/// Longer than any line takes on a slow machine; a line that hangs fails in the end.
const PATIENCE: Duration = Duration::from_secs(180);

/// The commands of the fenced `sh` blocks that start with `gst-launch-1.0`, continued lines joined.
fn launch_lines(markdown: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut fence = None;
    let mut command = String::new();
    for line in markdown.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim().to_owned()) };
        } else if fence.as_deref() == Some("sh") {
            match line.strip_suffix('\\') {
                Some(start) => command.push_str(start),
                None => {
                    command.push_str(line);
                    lines.push(std::mem::take(&mut command));
                }
            }
        }
    }
    lines.retain(|line| line.starts_with("gst-launch-1.0 "));
    lines
}

/// Where cargo puts the plugin that it builds for the tests.
fn plugin_folder() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(deps.join("libgstfastganseg.so").exists(), "there is no plugin in {}", deps.display());
    deps
}

/// Runs one line in `folder`; what it printed, if it failed or did not end.
fn run(line: &str, folder: &Path) -> Result<(), String> {
    let log = folder.join("log.txt");
    let output = std::fs::File::create(&log).unwrap();
    // `exec`, so that what is killed when it hangs is the pipeline and not a shell around it.
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {line}")])
        .current_dir(folder)
        .env("GST_PLUGIN_PATH", plugin_folder())
        .env("GST_REGISTRY", folder.join("registry.bin"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    match status {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("{line}\n{status:?}\n{}", std::fs::read_to_string(&log).unwrap())),
    }
}

#[test]
fn launch_lines_are_found() {
    let text = "```sh\ngst-launch-1.0 a ! \\\n  b\nls\n```\n```text\ngst-launch-1.0 c\n```\n";
    assert_eq!(launch_lines(text), ["gst-launch-1.0 a !   b"]);
}

#[test]
fn every_launch_line_of_the_readme_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents: Vec<PathBuf> = ["README.md", "docs/obs.md"].iter().map(|name| root.join(name)).collect();
    let lines: Vec<String> =
        documents.iter().flat_map(|path| launch_lines(&std::fs::read_to_string(path).unwrap())).collect();
    assert!(lines.len() >= 6, "the README shows how to use the element: {lines:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let clip = demo_clip::Clip { width: 320, height: 180, frames: 20, rate: 30 };
    demo_clip::write(clip, &file("in.mp4"), &file("mask.png")).unwrap();
    demo_clip::write(clip, &file("background.mp4"), &file("unused.png")).unwrap();

    let mut failures = Vec::new();
    for line in lines {
        let line = STAND_INS.iter().fold(line, |line, (what, instead)| line.replace(what, instead));
        let started = Instant::now();
        if let Err(failure) = run(&line, folder.path()) {
            failures.push(failure);
        }
        println!("{:.1} s: {line}", started.elapsed().as_secs_f64());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
