// SPDX-License-Identifier: MPL-2.0

//! Runs every `gst-launch-1.0` line of the README on a small clip with the file names that the line uses; elements
//! that need hardware or a display are replaced. Also runs the scripts of `pipelines/`.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;

#[allow(dead_code)]
#[path = "../examples/demo_clip.rs"]
mod demo_clip;
mod phone_video;

/// Elements that need hardware or a display, and their replacements.
const REPLACEMENTS: [(&str, &str); 5] = [
    ("v4l2src num-buffers=30", "v4l2src"),
    ("v4l2src device=/dev/video0", "v4l2src"),
    ("v4l2src", "videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=320,height=180,framerate=30/1"),
    ("v4l2sink device=/dev/video10", "fakevideosink"),
    ("autovideosink", "fakevideosink"),
];

/// Time limit of one command, for slow machines.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Returns the `gst-launch-1.0` commands of fenced `sh` blocks, with continued lines joined.
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

/// Folder of the plugin that cargo builds for the tests.
fn plugin_folder() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(deps.join("libgstfastganseg.so").exists(), "libgstfastganseg.so is not in {}", deps.display());
    deps
}

/// Runs one line in `folder`. An error has the output of a command that failed or timed out, and where its threads were
/// then, if gdb is installed.
fn run(line: &str, folder: &Path) -> Result<(), String> {
    let log = folder.join("log.txt");
    let output = std::fs::File::create(&log).unwrap();
    // With `exec` a kill reaches the pipeline, not a shell around it.
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {line}")])
        .current_dir(folder)
        .env("GST_PLUGIN_PATH", plugin_folder())
        .env("GST_REGISTRY", folder.join("registry.bin"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if started.elapsed() > TIMEOUT {
            let gdb = ["60", "gdb", "-batch", "-ex", "thread apply all backtrace 20", "-p"];
            let gdb =
                Command::new("timeout").args(gdb).arg(child.id().to_string()).stdin(Stdio::null()).output();
            if let Ok(stacks) = gdb {
                (&output).write_all(&[stacks.stdout, stacks.stderr].concat()).unwrap();
            }
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
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents =
        docs.chain([root.join("README.md")]).filter(|path| path.extension() == Some("md".as_ref()));
    let lines: Vec<String> =
        documents.flat_map(|path| launch_lines(&std::fs::read_to_string(path).unwrap())).collect();
    assert!(lines.len() >= 12, "too few launch lines in the README: {lines:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let clip = demo_clip::Clip { width: 320, height: 180, frames: 20, rate: 30 };
    demo_clip::write(clip, &file("in.mp4"), &file("mask.png")).unwrap();
    demo_clip::write(clip, &file("background.mp4"), &file("unused.png")).unwrap();

    let mut failures = Vec::new();
    for line in lines {
        let line = REPLACEMENTS.iter().fold(line, |line, (what, instead)| line.replace(what, instead));
        let started = Instant::now();
        if let Err(failure) = run(&line, folder.path()) {
            failures.push(failure);
        }
        println!("{:.1} s: {line}", started.elapsed().as_secs_f64());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Properties of a written video: size and number of frames, and caps after decoding.
#[derive(Debug, Default)]
struct Video {
    size: (i32, i32),
    frames: usize,
    caps: String,
}

fn video(path: &Path) -> Video {
    use gst::prelude::*;
    gst::init().unwrap();
    let pipeline =
        gst::parse::launch(&format!("filesrc location={} ! decodebin ! fakesink name=sink", path.display()));
    let pipeline = pipeline.unwrap().downcast::<gst::Bin>().unwrap();
    let pad = |element: &str, pad: &str| pipeline.by_name(element).unwrap().static_pad(pad).unwrap();
    let seen = Arc::new(Mutex::new(Video::default()));
    pad("sink", "sink").add_probe(gst::PadProbeType::BUFFER, {
        let seen = seen.clone();
        move |pad, _| {
            let mut seen = seen.lock().unwrap();
            seen.frames += 1;
            let caps = pad.current_caps().unwrap();
            let structure = caps.structure(0).unwrap();
            seen.size = (structure.get("width").unwrap(), structure.get("height").unwrap());
            seen.caps = caps.to_string();
            gst::PadProbeReturn::Ok
        }
    });
    let bus = pipeline.bus().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(end.as_ref().is_some_and(|end| end.type_() == gst::MessageType::Eos), "{path:?}: {end:?}");
    std::mem::take(&mut *seen.lock().unwrap())
}

/// A folder with a small clip `in.mp4` and its `mask.png`.
fn clip_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let clip = demo_clip::Clip { width: 320, height: 180, frames: 20, rate: 30 };
    demo_clip::write(clip, &folder.path().join("in.mp4"), &folder.path().join("mask.png")).unwrap();
    folder
}

/// Runs a script of `pipelines/` with arguments.
fn script(arguments: &str, folder: &Path) -> Result<(), String> {
    run(&format!("{}/pipelines/{arguments}", env!("CARGO_MANIFEST_DIR")), folder)
}

#[test]
fn scripts_turn_videos_with_a_rotation_tag_upright() {
    let folder = clip_folder();
    let folder = folder.path();
    std::fs::write(
        folder.join("phone.mp4"),
        phone_video::rotated(&std::fs::read(folder.join("in.mp4")).unwrap()),
    )
    .unwrap();
    let mask = image::open(folder.join("mask.png")).unwrap();
    mask.rotate90().save(folder.join("upright.png")).unwrap();
    for (arguments, output) in [
        ("cut-out.sh phone.mp4 upright.png cut.mp4", "cut.mp4"),
        ("export-alpha.sh phone.mp4 upright.png alpha.mkv", "alpha.mkv"),
        ("mask-to-file.sh phone.mp4 upright.png mask.mkv", "mask.mkv"),
        ("replace-background.sh phone.mp4 upright.png in.mp4 replaced.mp4", "replaced.mp4"),
    ] {
        script(arguments, folder).unwrap();
        let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
        assert!(!log.contains("WARNING"), "{arguments}\n{log}");
        let video = video(&folder.join(output));
        assert_eq!((video.size, video.frames), ((180, 320), 20), "{arguments}");
    }
}

#[test]
fn scripts_write_every_frame() {
    let folder = clip_folder();
    let folder = folder.path();
    let long = demo_clip::Clip { width: 320, height: 180, frames: 25, rate: 30 };
    demo_clip::write(long, &folder.join("long.mp4"), &folder.join("unused.png")).unwrap();
    let short = demo_clip::Clip { frames: 8, ..long };
    demo_clip::write(short, &folder.join("short.mp4"), &folder.join("unused.png")).unwrap();
    for background in ["in.mp4", "long.mp4", "short.mp4"] {
        script(&format!("replace-background.sh in.mp4 mask.png {background} out.mp4"), folder).unwrap();
        assert_eq!(video(&folder.join("out.mp4")).frames, 20, "in front of {background}");
    }
    script("cut-out.sh in.mp4 mask.png out.mp4", folder).unwrap();
    assert_eq!(video(&folder.join("out.mp4")).frames, 20);
    script("export-alpha.sh in.mp4 mask.png out.MOV", folder).unwrap();
    assert_eq!(video(&folder.join("out.MOV")).frames, 20);
    run("gst-discoverer-1.0 out.MOV", folder).unwrap();
    let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
    assert!(log.contains("audio #"), "{log}");
    // The time of the last frame is rounded up to milliseconds: compositor repeats that frame.
    run(
        "gst-launch-1.0 videotestsrc num-buffers=18 ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! \
         vp8enc deadline=1 ! webmmux ! filesink location=in.webm",
        folder,
    )
    .unwrap();
    script("cut-out.sh in.webm mask.png out.mp4", folder).unwrap();
    assert_eq!(video(&folder.join("out.mp4")).frames, 18);
}

/// An input that was named as output, and the output of an earlier run, were emptied.
#[test]
fn scripts_keep_their_inputs_and_earlier_outputs() {
    let folder = clip_folder();
    let folder = folder.path();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let clip = read("in.mp4");
    symlink("in.mp4", folder.join("link.mp4")).unwrap();
    for (arguments, part) in [
        ("cut-out.sh in.mp4 mask.png in.mp4", "is an input"),
        ("cut-out.sh in.mp4 mask.png link.mp4", "is an input"),
        ("replace-background.sh in.mp4 mask.png in.mp4 in.mp4", "is an input"),
        ("export-alpha.sh in.mp4 mask.png nowhere/out.mov", "cannot write"),
        ("export-alpha.sh in.mp4 mask.png %s-%d.png", "one pattern"),
        ("mask-to-file.sh in.mp4 mask.png out.png", "must end in"),
        ("cut-out.sh in.mp4 mask.png out.mkv", "must end in .mp4"),
    ] {
        let error = script(arguments, folder).unwrap_err();
        assert!(error.contains(part), "{arguments}: {error}");
    }
    std::fs::write(folder.join("keep.mp4"), "earlier").unwrap();
    std::fs::write(folder.join("bad.png"), "no mask").unwrap();
    assert!(script("cut-out.sh in.mp4 bad.png keep.mp4", folder).unwrap_err().contains("bad.png"));
    assert_eq!(read("keep.mp4"), b"earlier");
    assert_eq!(read("in.mp4"), clip);
    let hidden = std::fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'));
    assert_eq!(hidden.count(), 0, "no partial files stay");
}

/// `gst-launch-1.0` reports success when it is interrupted: a part of the clip replaced an earlier output. A signal to the
/// script alone had no effect until the end of the clip.
#[test]
fn an_interrupted_script_keeps_the_earlier_output() {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let folder = clip_folder();
    let folder = folder.path();
    let long = demo_clip::Clip { width: 320, height: 180, frames: 200, rate: 30 };
    demo_clip::write(long, &folder.join("long.mp4"), &folder.join("mask.png")).unwrap();
    let hidden = || {
        let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.any(|name| name.to_str().unwrap().ends_with(".part"))
    };
    for (signal, number, to) in [
        ("INT", 2, "group"),
        ("TERM", 15, "group"),
        ("INT", 2, "script"),
        ("TERM", 15, "script"),
        ("HUP", 1, "script"),
    ] {
        std::fs::write(folder.join("keep.mp4"), "earlier").unwrap();
        let mut script = Command::new(format!("{}/pipelines/cut-out.sh", env!("CARGO_MANIFEST_DIR")));
        // Commands in the background of a shell ignore INT, and those of nohup HUP. This test may be one.
        let heed_signals = || {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                // SAFETY: the default action has no handler.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            Ok(())
        };
        // SAFETY: `signal` may be called between fork and exec.
        unsafe { script.pre_exec(heed_signals) };
        let mut child = script
            .args(["long.mp4", "mask.png", "keep.mp4"])
            .current_dir(folder)
            .env("GST_PLUGIN_PATH", plugin_folder())
            .env("GST_REGISTRY", folder.join("registry.bin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !hidden() {
            let running = child.try_wait().unwrap().is_none();
            assert!(running && started.elapsed() < TIMEOUT, "no partial file");
            std::thread::sleep(Duration::from_millis(20));
        }
        // A terminal signals the group.
        let target = if to == "group" { format!("-{}", child.id()) } else { child.id().to_string() };
        let kill = Command::new("kill").args([&format!("-{signal}"), "--", &target]).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(number), "{signal} to the {to}");
        assert_eq!(std::fs::read(folder.join("keep.mp4")).unwrap(), b"earlier", "{signal}");
        assert!(!hidden(), "{signal}");
    }
}

/// The frames overwrote a mask whose name matched, and a shorter run left frames of the one before.
#[test]
fn scripts_do_not_mix_frames_with_existing_files() {
    let folder = clip_folder();
    let folder = folder.path();
    std::fs::copy(folder.join("mask.png"), folder.join("mask-00000.png")).unwrap();
    for (arguments, part) in [
        ("mask-to-file.sh in.mp4 mask-00000.png mask-%05d.png", "matches the input"),
        ("export-alpha.sh in.mp4 mask-00000.png ./mask-%05d.png", "matches the input"),
        ("mask-to-file.sh in.mp4 mask.png mask-%05d.png", "remove the earlier frames"),
    ] {
        let error = script(arguments, folder).unwrap_err();
        assert!(error.contains(part), "{arguments}: {error}");
    }
    script("mask-to-file.sh in.mp4 mask.png mask-%03d.png", folder).unwrap();
    assert!(folder.join("mask-019.png").exists());
}

/// The end of videos that start after their sound was lost. The scripts refused videos without a
/// frame rate and sound without channel positions.
#[test]
fn scripts_accept_late_videos_without_a_rate_and_channels_without_positions() {
    let folder = clip_folder();
    let folder = folder.path();
    for (name, video_part, sound, mux) in [
        (
            "late.mkv",
            "videotestsrc num-buffers=20 timestamp-offset=500000000 ! \
             video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! \
             capssetter caps='video/x-raw,framerate=(fraction)0/1' ! vp8enc deadline=1",
            "channels=2",
            "matroskamux",
        ),
        (
            "camera.mov",
            "filesrc location=in.mp4 ! decodebin ! videoconvert ! x264enc",
            "channels=4,channel-mask=(bitmask)0x0",
            "qtmux",
        ),
    ] {
        run(
            &format!(
                "gst-launch-1.0 {video_part} ! queue ! mux. \
                 audiotestsrc num-buffers=25 ! 'audio/x-raw,format=S16LE,rate=48000,{sound}' ! queue ! mux. \
                 {mux} name=mux ! filesink location={name}"
            ),
            folder,
        )
        .unwrap();
        for arguments in
            ["cut-out.sh {} mask.png out.mp4", "replace-background.sh {} mask.png in.mp4 out.mp4"]
        {
            let arguments = arguments.replace("{}", name);
            script(&arguments, folder).unwrap();
            assert_eq!(video(&folder.join("out.mp4")).frames, 20, "{arguments}");
            // Half a second before the first of the frames, if the video is late.
            run("gst-discoverer-1.0 out.mp4", folder).unwrap();
            let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
            let duration = if name == "late.mkv" { "Duration: 0:00:01.1" } else { "Duration: 0:00:00.6" };
            assert!(log.contains(duration), "{arguments}: {log}");
        }
    }
}

/// gst-launch-1.0 -v may leave out lines if two threads change properties at the same time: sound channels without positions
/// were not recognised then, and the beginning of the video was not known.
#[test]
fn scripts_read_the_facts_of_a_file_if_verbose_output_is_incomplete() {
    let folder = clip_folder();
    let folder = folder.path();
    run(
        "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! x264enc ! queue ! mux. \
         audiotestsrc num-buffers=25 ! 'audio/x-raw,format=S16LE,rate=48000,channels=4,channel-mask=(bitmask)0x0' ! queue ! \
         mux. qtmux name=mux ! filesink location=camera.mov",
        folder,
    )
    .unwrap();
    // Every second verbose run of this gst-launch-1.0 prints no caps and no segments of fakesink.
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).unwrap();
    let wrapper = programs.join("gst-launch-1.0");
    std::fs::write(
        &wrapper,
        "#!/bin/sh\nPATH=${PATH#*:}\n[ \"$1\" = -v ] || exec gst-launch-1.0 \"$@\"\n\
         if rm odd 2>/dev/null; then exec gst-launch-1.0 \"$@\"; fi\n\
         touch odd\ngst-launch-1.0 \"$@\" | sed -E '/FakeSink.*(: caps =|type: segment)/d'\n",
    )
    .unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!("{}/pipelines/cut-out.sh camera.mov mask.png out.mp4", env!("CARGO_MANIFEST_DIR"));
    run(&format!("env PATH={}:\"$PATH\" {script}", programs.display()), folder).unwrap();
    assert_eq!(video(&folder.join("out.mp4")).frames, 20);
}

/// The first frame of a Matroska file got the time 0 if its block is before that of the sound, which starts earlier: it was
/// repeated. Needs the B-frames and the order of blocks of ffmpeg.
#[test]
fn scripts_do_not_repeat_a_late_first_frame_of_matroska() {
    if !has_ffmpeg() {
        return;
    }
    let folder = clip_folder();
    let folder = folder.path();
    run(
        "ffmpeg -v error -i in.mp4 -filter_complex '[0:v]setpts=PTS+0.03/TB[v]' -map '[v]' -map 0:a -c:v libx264 \
         -c:a copy late.mkv",
        folder,
    )
    .unwrap();
    for arguments in
        ["cut-out.sh late.mkv mask.png out.mp4", "replace-background.sh late.mkv mask.png in.mp4 out.mp4"]
    {
        script(arguments, folder).unwrap();
        assert_eq!(video(&folder.join("out.mp4")).frames, 20, "{arguments}");
    }
}

/// Encoders refused odd sizes, and quotes ended names.
#[test]
fn scripts_accept_odd_and_anamorphic_sizes_and_any_name() {
    let folder = clip_folder();
    let folder = folder.path();
    for (name, caps, size) in [
        ("odd \\\" $x.mkv", "width=321,height=181", (322, 182)),
        ("-wide.mkv", "width=240,height=180,pixel-aspect-ratio=4/3", (320, 180)),
    ] {
        run(
            &format!(
                "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvertscale ! \
                 video/x-raw,format=I420,{caps} ! avenc_ffv1 ! matroskamux ! filesink location=made.mkv"
            ),
            folder,
        )
        .unwrap();
        std::fs::rename(folder.join("made.mkv"), folder.join(name)).unwrap();
        for arguments in
            ["cut-out.sh {} mask.png out.mp4", "replace-background.sh {} mask.png in.mp4 out.mp4"]
        {
            script(&arguments.replace("{}", &format!("'{name}'")), folder).unwrap();
            let video = video(&folder.join("out.mp4"));
            assert_eq!((video.size, video.frames), (size, 20), "{name}, {arguments}");
        }
    }
}

/// The first frame of a video, in grey.
fn first_frame(name: &str, folder: &Path) -> image::GrayImage {
    run(
        &format!(
            "gst-launch-1.0 filesrc location={name} ! decodebin ! videoconvert ! video/x-raw,format=GRAY8 ! \
             queue max-size-buffers=1 ! imagefreeze num-buffers=1 ! pngenc ! filesink location=first.png"
        ),
        folder,
    )
    .unwrap();
    image::open(folder.join("first.png")).unwrap().into_luma8()
}

/// The mean of the absolute differences of the values of two pictures.
fn mean_difference(a: &image::GrayImage, b: &image::GrayImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a.iter().zip(b.iter()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / a.len() as f64
}

/// The object was stretched by the pixel aspect ratio twice, and its right part was cut off.
#[test]
fn scripts_show_anamorphic_video_as_players_do() {
    let folder = clip_folder();
    let folder = folder.path();
    run(
        "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvertscale ! \
         video/x-raw,format=I420,width=240,height=180,pixel-aspect-ratio=4/3 ! avenc_ffv1 ! matroskamux ! \
         filesink location=wide.mkv",
        folder,
    )
    .unwrap();
    for arguments in
        ["cut-out.sh {} mask.png out.mp4 black", "replace-background.sh {} mask.png in.mp4 out.mp4"]
    {
        let [square, wide] = ["in.mp4", "wide.mkv"].map(|name| {
            script(&arguments.replace("{}", name), folder).unwrap();
            first_frame("out.mp4", folder)
        });
        let difference = mean_difference(&square, &wide);
        assert!(difference < 1.0, "{arguments}: {difference}");
    }
}

/// Only `replace-background.sh` deinterlaced: the films of the others combed.
#[test]
fn films_of_interlaced_video_do_not_comb() {
    let folder = clip_folder();
    let folder = folder.path();
    // One field of each frame is black, the other one white.
    run(
        "gst-launch-1.0 videotestsrc pattern=blink num-buffers=20 ! \
         video/x-raw,format=I420,width=320,height=180,framerate=60/1 ! interlace field-pattern=1:1 ! \
         x264enc interlaced=true ! h264parse ! mp4mux ! filesink location=fields.mp4",
        folder,
    )
    .unwrap();
    let fields = video(&folder.join("fields.mp4"));
    assert!(fields.frames == 10 && fields.caps.contains("interlace-mode=(string)interleaved"), "{fields:?}");
    for (arguments, output) in [
        ("cut-out.sh fields.mp4 mask.png cut.mp4 black", "cut.mp4"),
        ("export-alpha.sh fields.mp4 mask.png alpha.mkv", "alpha.mkv"),
        ("mask-to-file.sh fields.mp4 mask.png mask.mkv", "mask.mkv"),
        ("replace-background.sh fields.mp4 mask.png in.mp4 replaced.mp4", "replaced.mp4"),
    ] {
        script(arguments, folder).unwrap();
        let video = video(&folder.join(output));
        assert_eq!(video.frames, 10, "{arguments}");
        assert!(video.caps.contains("interlace-mode=(string)progressive"), "{arguments}: {video:?}");
        let frame = first_frame(output, folder);
        let (width, height) = frame.dimensions();
        let rows = |top| image::imageops::crop_imm(&frame, 0, top, width, height - 1).to_image();
        let difference = mean_difference(&rows(0), &rows(1));
        // Combs of the object alone make 17.
        assert!(difference < 5.0, "{arguments}: {difference}");
    }
}

/// Scripts hung without a message: GStreamer reads the end of a GIF for ever.
#[test]
fn scripts_refuse_gif_with_a_remedy() {
    let folder = clip_folder();
    let folder = folder.path();
    std::fs::write(folder.join("a loop.gif"), b"GIF89a").unwrap();
    for arguments in [
        "cut-out.sh 'a loop.gif' mask.png out.mp4",
        "export-alpha.sh 'a loop.gif' mask.png out.mkv",
        "mask-to-file.sh 'a loop.gif' mask.png out.mkv",
        "replace-background.sh in.mp4 mask.png 'a loop.gif' out.mp4",
    ] {
        let error = script(arguments, folder).unwrap_err();
        let parts = ["a loop.gif is a GIF", r"ffmpeg -i ./a\ loop.gif -c:v ffv1 ./a\ loop.mkv"];
        assert!(parts.iter().all(|part| error.contains(part)), "{arguments}: {error}");
    }
}

#[test]
fn the_picking_script_plays_a_clip_without_a_mask() {
    let folder = clip_folder();
    let pick = format!("env SINK=fakesink {}/pipelines/pick.sh in.mp4", env!("CARGO_MANIFEST_DIR"));
    run(&pick, folder.path()).unwrap();
}

#[test]
fn scripts_that_open_a_window_ask_for_a_display() {
    let folder = clip_folder();
    for arguments in ["pick.sh in.mp4", "preview.sh in.mp4 mask.png"] {
        let root = env!("CARGO_MANIFEST_DIR");
        let line = format!("env -u DISPLAY -u WAYLAND_DISPLAY -u SINK {root}/pipelines/{arguments}");
        let error = run(&line, folder.path()).unwrap_err();
        assert!(error.contains("needs a display"), "{arguments}: {error}");
    }
}

#[test]
fn lossless_export_keeps_ten_bits_and_colours() {
    let folder = clip_folder();
    let folder = folder.path();
    run(
        "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! \
         video/x-raw,format=I420_10LE,colorimetry=bt2100-pq ! avenc_ffv1 ! matroskamux ! filesink location=hdr.mkv",
        folder,
    )
    .unwrap();
    script("export-alpha.sh hdr.mkv mask.png out.mkv", folder).unwrap();
    let video = video(&folder.join("out.mkv"));
    assert!(video.caps.contains("A420_10LE") && video.caps.contains("bt2100-pq"), "{video:?}");
}

/// Whether `ffmpeg` is there; it must be with `FASTGANSEG_REQUIRE_ALL`.
fn has_ffmpeg() -> bool {
    let found = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status().is_ok();
    assert!(
        found || std::env::var_os("FASTGANSEG_REQUIRE_ALL").is_none(),
        "ffmpeg is missing: run scripts/setup.sh"
    );
    found
}

#[test]
fn webm_export_keeps_alpha_and_asks_for_ffmpeg_if_missing() {
    let folder = clip_folder();
    let folder = folder.path();
    let export = "export-alpha.sh in.mp4 mask.png out.webm";
    // A PATH with all programs but ffmpeg.
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for entry in std::env::split_paths(&path).filter_map(|folder| std::fs::read_dir(folder).ok()).flatten() {
        let entry = entry.unwrap();
        if entry.file_name() != "ffmpeg" {
            // The first program of a name wins; later links fail.
            let _ = symlink(entry.path(), programs.join(entry.file_name()));
        }
    }
    let error = run(
        &format!("env PATH={} {}/pipelines/{export}", programs.display(), env!("CARGO_MANIFEST_DIR")),
        folder,
    )
    .unwrap_err();
    assert!(error.contains("out.webm") && error.contains("apt install ffmpeg"), "{error}");
    if !has_ffmpeg() {
        return;
    }
    script(export, folder).unwrap();
    let packets = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-count_packets"])
        .args(["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"])
        .arg(folder.join("out.webm"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&packets.stdout).trim(), "20");
    let video = video(&folder.join("out.webm"));
    // GStreamer 1.26 decodes one frame less of WebM with alpha than the file has.
    assert!((19..=20).contains(&video.frames) && video.caps.contains("A420"), "{video:?}");
}

/// A space in the path made `make uninstall` remove other folders, and the folder of the libraries was removed whatever was in
/// it.
#[test]
fn uninstall_removes_only_what_was_installed() {
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("jane doe/share");
    let installed = ["gstreamer-1.0/plugins/libgstfastganseg.so", "gstreamer-1.0/fastganseg/libtorch_cpu.so"];
    let others = ["gstreamer-1.0/plugins/libother.so", "gstreamer-1.0/fastganseg/Cargo.toml", "other"]
        .map(|name| share.join(name));
    let others = others.into_iter().chain(["jane", "doe/file"].map(|name| folder.path().join(name)));
    let others: Vec<PathBuf> = others.collect();
    let installed: Vec<PathBuf> = installed.map(|name| share.join(name)).into();
    for path in installed.iter().chain(&others) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    std::fs::write(share.join("gstreamer-1.0/fastganseg/.installed"), "libtorch_cpu.so\n").unwrap();
    let status = Command::new("make")
        .arg("uninstall")
        .env("XDG_DATA_HOME", &share)
        // Variables of a surrounding make would name another folder.
        .env_remove("MAKEFLAGS")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(installed.iter().all(|path| !path.exists()), "not removed");
    assert!(others.iter().all(|path| path.exists()), "removed another file");
}
