// SPDX-License-Identifier: MPL-2.0

//! Drives `docs/mask.html` in headless Chromium through the WebDriver protocol, as a user does: opens a file, paints
//! with mouse, touch and keyboard, and saves. Reads the saved masks, and runs the command that the page prints.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gstfastganseg::mask::{self, Interpretation, Labels, ReferenceMask};
use gstreamer as gst;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "../examples/demo_clip.rs"]
mod demo_clip;
mod phone_video;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Keys of the WebDriver protocol.
const ENTER: char = '\u{e007}';
const SHIFT: char = '\u{e008}';
const CONTROL: char = '\u{e009}';
const RIGHT: char = '\u{e014}';
const DOWN: char = '\u{e015}';

/// A browser that shows the page; saved files go to `folder`.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    folder: tempfile::TempDir,
}

impl Browser {
    /// `None` if chromedriver is missing and may be.
    fn open() -> Option<Self> {
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn();
        let Ok(mut driver) = driver else {
            assert!(
                std::env::var_os("FASTGANSEG_REQUIRE_ALL").is_none(),
                "chromedriver is missing: run `make setup` for tests (`FASTGANSEG_REQUIRE_ALL=1 scripts/setup.sh`)"
            );
            println!("skipped: chromedriver is missing");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        // Read on, so that the driver never waits for the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self {
            driver,
            port: port.expect("chromedriver prints its port"),
            session: String::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        let folder = browser.folder.path();
        let mut options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--force-device-scale-factor=1", "--window-size=1200,800",
                format!("--user-data-dir={}", folder.join("profile").display())],
            "prefs": {"download.default_directory": folder, "download.prompt_for_download": false},
        });
        let programs = std::env::var_os("PATH").unwrap_or_default();
        let chromium = std::env::split_paths(&programs).map(|path| path.join("chromium"));
        if let Some(chromium) = chromium.into_iter().find(|path| path.exists()) {
            options["binary"] = json!(chromium);
        }
        let capabilities = json!({"alwaysMatch": {"goog:chromeOptions": options}});
        let session = browser.request("POST", "session", &json!({"capabilities": capabilities}));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mask.html");
        browser.post("url", &json!({"url": format!("file://{}", page.display())}));
        Some(browser)
    }

    /// Sends one command of the protocol and returns its answer.
    fn send(&self, method: &str, path: &str, body: &Value) -> io::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "{method} /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                None if line.trim_end().is_empty() => break,
                _ => (),
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Sends one command of the protocol and returns its value.
    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, body).unwrap();
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        self.request("POST", &format!("session/{}/{command}", self.session), body)
    }

    /// Evaluates an expression in the page.
    fn eval(&self, expression: &str) -> Value {
        self.post("execute/sync", &json!({"script": format!("return {expression}"), "args": []}))
    }

    fn text(&self, id: &str) -> String {
        self.eval(&format!("document.getElementById('{id}').textContent")).as_str().unwrap().to_owned()
    }

    fn until(&self, condition: &str) {
        let started = Instant::now();
        while self.eval(condition) != true {
            assert!(
                started.elapsed() < TIMEOUT,
                "{condition}: {} {}",
                self.text("status"),
                self.text("error-text")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs actions of one input device.
    fn act(&self, actions: Value) {
        self.post("actions", &json!({"actions": actions}));
    }

    fn mouse(&self, actions: Vec<Value>) {
        self.act(json!([{"type": "pointer", "id": "mouse", "actions": actions}]));
    }

    /// Presses keys one after the other; `CONTROL` and `SHIFT` are held to the end.
    fn keys(&self, keys: impl IntoIterator<Item = char>) {
        let mut actions = Vec::new();
        let mut held = Vec::new();
        for key in keys {
            actions.push(json!({"type": "keyDown", "value": key.to_string()}));
            if [CONTROL, SHIFT].contains(&key) {
                held.push(key);
            } else {
                actions.push(json!({"type": "keyUp", "value": key.to_string()}));
            }
        }
        actions.extend(held.iter().map(|key| json!({"type": "keyUp", "value": key.to_string()})));
        self.act(json!([{"type": "key", "id": "keyboard", "actions": actions}]));
    }

    fn click(&self, selector: &str) {
        let element = self.post("element", &json!({"using": "css selector", "value": selector}));
        let id = element.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.post(&format!("element/{id}/click"), &json!({}));
    }

    /// Opens a file with the page's file input.
    fn choose(&self, path: &Path) {
        let element = self.post("element", &json!({"using": "css selector", "value": "#file"}));
        let id = element.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.post(&format!("element/{id}/value"), &json!({"text": path}));
    }

    /// Sets the range input of the brush so that the brush has about this size.
    fn brush(&self, size: usize) {
        self.eval(&format!(
            "($('size').value = Math.round(100 * Math.log({size}) / Math.log(MAX_BRUSH)), $('size').oninput())"
        ));
    }

    /// Move of a pointer to the centre of a pixel of the frame.
    fn to(&self, (x, y): (usize, usize)) -> Value {
        let at = self.eval(&format!(
            "(([x, y], box) => [x + box.left, y + box.top])(toStage({{x: {x}.5, y: {y}.5}}), \
             stage.getBoundingClientRect())"
        ));
        let round = |value: &Value| value.as_f64().unwrap().round() as i64;
        json!({"type": "pointerMove", "duration": 0, "x": round(&at[0]), "y": round(&at[1])})
    }

    fn drag(&self, points: &[(usize, usize)]) {
        let mut actions = vec![self.to(points[0]), down()];
        actions.extend(points[1..].iter().map(|&point| self.to(point)));
        actions.push(up());
        self.mouse(actions);
    }

    /// Waits for a saved file.
    fn saved(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let started = Instant::now();
        // The browser creates the file before it has written all of it.
        while fs::read(&path).map_or(true, |bytes| !bytes.ends_with(b"IEND\xae\x42\x60\x82")) {
            let files: Vec<_> =
                fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert!(
                started.elapsed() < TIMEOUT,
                "{name} was not saved: {files:?}, {}",
                self.text("error-text")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser outlives its driver, unless the session is ended.
        if !self.session.is_empty() {
            let _ = self.send("DELETE", &format!("session/{}", self.session), &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn down() -> Value {
    json!({"type": "pointerDown", "button": 0})
}

fn up() -> Value {
    json!({"type": "pointerUp", "button": 0})
}

/// A picture of 64x48 pixels.
fn picture(path: &Path) {
    RgbImage::from_fn(64, 48, |x, y| Rgb([4 * x as u8, 5 * y as u8, 90])).save(path).unwrap();
}

#[test]
fn the_saved_mask_has_the_painted_objects() {
    let Some(browser) = Browser::open() else { return };
    let path = browser.folder.path().join("a picture.png");
    picture(&path);
    browser.choose(&path);
    browser.until("source !== null");

    // Object 3 with the mouse, in a horizontal line.
    browser.keys(['3']);
    browser.brush(5);
    browser.drag(&[(10, 8), (20, 8), (30, 8)]);
    // Object 5 as a triangle, closed at its first corner.
    browser.keys(['p', '5']);
    browser.mouse(
        [(8, 20), (28, 20), (8, 40), (8, 20)].iter().flat_map(|&at| [browser.to(at), down(), up()]).collect(),
    );
    // Object 16 with the keyboard: the cursor begins at the centre.
    browser.click("input[name=object][value='16']");
    browser.keys(['b']);
    browser.brush(1);
    browser.eval("stage.focus()");
    browser.keys([' ']);
    browser.keys([SHIFT, RIGHT]);
    browser.keys([' ']);
    // Object 2 as a triangle with the keyboard.
    browser.keys(['2', 'p', ' ']);
    browser.keys([SHIFT, RIGHT]);
    browser.keys([' ']);
    browser.keys([SHIFT, DOWN]);
    browser.keys([' ', ENTER, 'b']);
    // Object 1, undone. The eraser, redone.
    browser.keys(['1']);
    browser.brush(9);
    browser.drag(&[(50, 40), (55, 40)]);
    browser.keys([CONTROL, 'z']);
    browser.keys(['e']);
    browser.drag(&[(20, 0), (20, 14)]);
    browser.keys([CONTROL, 'z']);
    browser.keys([CONTROL, 'y']);
    browser.keys(['s']);

    let mask = browser.saved("a_picture-mask.png");
    let labels = Labels::open(&mask).unwrap();
    assert_eq!((labels.width, labels.height), (64, 48));
    let at = |x: usize, y: usize| labels.ids[64 * y + x];
    assert_eq!([at(10, 8), at(30, 8), at(14, 9), at(32, 8)], [3; 4]);
    assert_eq!([at(12, 12), at(34, 8), at(20, 8), at(20, 3), at(50, 40), at(40, 40)], [0; 6]);
    assert_eq!([at(9, 21), at(20, 25), at(9, 37), at(25, 22)], [5; 4]);
    assert_eq!([at(26, 30), at(7, 30), at(20, 19)], [0; 3]);
    assert_eq!([at(44, 25), at(51, 24), at(51, 32)], [2; 3]);
    assert_eq!([at(44, 32), at(54, 30), at(50, 36)], [0; 3]);
    let keyboard: Vec<usize> = (0..labels.ids.len()).filter(|&i| labels.ids[i] == 16).collect();
    assert_eq!(keyboard, (24 * 64 + 32..24 * 64 + 42).collect::<Vec<_>>());

    let reference = ReferenceMask::open(&mask).unwrap();
    assert_eq!(reference.interpretation(), Interpretation::Ids);
    assert_eq!(reference.objects().iter().map(|object| object.id).collect::<Vec<_>>(), [2, 3, 5, 16]);
    let decoder = png::Decoder::new(BufReader::new(fs::File::open(&mask).unwrap()));
    let reader = decoder.read_info().unwrap();
    let palette: Vec<u8> = (0..=255).flat_map(mask::color).collect();
    assert_eq!(reader.info().palette.as_deref(), Some(&palette[..]));

    // PNG and JPEG files are reference images themselves; the frame can be saved all the same.
    assert!(
        browser.text("command").contains(r#"'ref-image="./a picture.png"'"#),
        "{}",
        browser.text("command")
    );
    browser.keys(['f']);
    let frame = image::open(browser.saved("a_picture-frame.png")).unwrap().into_rgb8();
    assert_eq!(frame, image::open(&path).unwrap().into_rgb8());
}

#[test]
fn two_fingers_zoom_and_do_not_paint() {
    let Some(browser) = Browser::open() else { return };
    let path = browser.folder.path().join("picture.png");
    picture(&path);
    browser.choose(&path);
    browser.until("source !== null");
    let before = browser.eval("view.scale").as_f64().unwrap();
    let finger = |id: &str, from: (usize, usize), to: (usize, usize)| {
        let mut end = browser.to(to);
        end["duration"] = json!(100);
        json!({"type": "pointer", "id": id, "parameters": {"pointerType": "touch"},
            "actions": [browser.to(from), down(), end, up()]})
    };
    browser.act(json!([finger("first", (30, 24), (20, 24)), finger("second", (34, 24), (44, 24))]));
    let after = browser.eval("view.scale").as_f64().unwrap();
    assert!(after > 3.0 * before, "{before} {after}");
    assert_eq!(browser.eval("used().length"), 0);
    // One finger paints.
    browser.keys(['0']);
    browser.act(json!([finger("first", (30, 24), (34, 24))]));
    assert_eq!(browser.eval("ids[24 * 64 + 32]"), 1);
}

#[test]
fn files_that_cannot_be_decoded_are_named() {
    let Some(browser) = Browser::open() else { return };
    for (name, remedy) in [
        ("no video.mp4", "gst-launch-1.0 filesrc 'location=\"./no video.mp4\"' !"),
        ("no.png", "PNG or JPEG"),
    ] {
        let path = browser.folder.path().join(name);
        fs::write(&path, "neither a video nor a picture").unwrap();
        browser.choose(&path);
        browser.until("!$('error').hidden");
        let text = browser.text("error-text");
        assert!(text.starts_with(&format!("{name} cannot be opened")) && text.contains(remedy), "{text}");
        assert_eq!(browser.eval("source"), Value::Null);
    }
}

/// Runs a command of the page in the folder of the browser.
fn run(browser: &Browser, command: &str) {
    let plugin = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(browser.folder.path())
        .env("GST_PLUGIN_PATH", plugin)
        .env("GST_REGISTRY", browser.folder.path().join("registry.bin"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("WARNING"), "{command}\n{errors}");
}

fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a.iter().zip(b.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

/// Browsers skip frames that the display cannot show: the page took 120 frames a second for 60.
#[test]
fn skipped_frames_count_for_the_rate() {
    let Some(browser) = Browser::open() else { return };
    run(
        &browser,
        "gst-launch-1.0 -q videotestsrc num-buffers=63 ! \
         video/x-raw,format=I420,width=320,height=180,framerate=120/1 ! x264enc ! h264parse ! mp4mux ! \
         filesink location=fast.mp4",
    );
    browser.choose(&browser.folder.path().join("fast.mp4"));
    browser.until("source !== null");
    assert_eq!(browser.eval("[source.fps, source.frames]"), json!([120, 63]));
    assert!(browser.text("status").contains("about 63 frames"), "{}", browser.text("status"));
}

#[test]
fn the_printed_command_runs_with_the_saved_files_of_a_rotated_video() {
    let Some(browser) = Browser::open() else { return };
    let folder = browser.folder.path();
    let clip = demo_clip::Clip { width: 320, height: 180, frames: 20, rate: 30 };
    demo_clip::write(clip, &folder.join("in.mp4"), &folder.join("unused.png")).unwrap();
    // As phones store upright videos, with a name that shells and gst-launch-1.0 would take apart.
    let name = r#"it's a "clip" \ $HOME `id` ! x.mp4"#;
    gst::init().unwrap();
    fs::write(folder.join(name), phone_video::rotated(&fs::read(folder.join("in.mp4")).unwrap())).unwrap();
    run(
        &browser,
        "gst-launch-1.0 -q filesrc location=in.mp4 ! decodebin ! videoconvert ! videoflip video-direction=90r ! \
         pngenc ! multifilesink location=true-%02d.png",
    );

    browser.choose(&folder.join(name));
    browser.until("source !== null");
    assert_eq!(browser.eval("[source.width, source.height, source.fps]"), json!([180, 320, 30]));
    // The sound may be longer than the picture.
    assert!([20, 21].map(Value::from).contains(&browser.eval("source.frames")));
    for _ in 0..6 {
        browser.keys(['.']);
    }
    browser.until("source.frame === 7 && target === null");
    browser.brush(60);
    browser.drag(&[(90, 120), (90, 160)]);
    browser.keys(['s']);
    let stem = "it_s_a_clip_HOME_id_x";
    let labels = Labels::open(&browser.saved(&format!("{stem}-mask.png"))).unwrap();
    assert_eq!((labels.width, labels.height, labels.ids[140 * 180 + 90]), (180, 320, 1));

    // Only now: browsers ask before a page saves two files for one key.
    browser.keys(['f']);
    let frame = image::open(browser.saved(&format!("{stem}-frame-00007.png"))).unwrap().into_rgb8();
    let differences: Vec<f64> = (0..20)
        .map(|i| {
            difference(&frame, &image::open(folder.join(format!("true-{i:02}.png"))).unwrap().into_rgb8())
        })
        .collect();
    let closest = (0..20).min_by(|&a, &b| differences[a].total_cmp(&differences[b]));
    assert_eq!(closest, Some(6), "{differences:?}");

    // The mask stays with its frame.
    browser.keys(['.']);
    browser.until("source.frame === 8 && target === null");
    assert_eq!(browser.eval("$('moved').hidden || !$('save-mask').disabled"), false);
    browser.click("#moved-back");
    browser.until("source.frame === 7 && target === null");
    assert_eq!(browser.eval("$('moved').hidden && !$('save-mask').disabled"), true);

    // Also if the rate is corrected.
    for rate in [60, 30] {
        browser.eval(&format!("($('fps').value = {rate}, $('fps').onchange())"));
        browser.until("target === null");
        assert_eq!(
            browser.eval("[source.fps, maskFrame - source.frame, done.at(-1).frame]"),
            json!([rate, 0, null])
        );
    }

    run(&browser, &browser.text("command"));
    let cut_out = fs::metadata(folder.join(format!("{stem}-cutout.mp4"))).unwrap();
    assert!(cut_out.len() > 1000, "{cut_out:?}");

    browser.eval("goTo(1)");
    browser.until("source.frame === 1 && target === null");
    assert!(browser.text("command").contains("-frame-00007.png"), "{}", browser.text("command"));
    browser.click("#moved-use");
    assert!(!browser.text("command").contains("ref-image"), "{}", browser.text("command"));

    // Browsers rename a second file of the same name, but the command would use the first.
    browser.keys(['s']);
    browser.saved(&format!("{stem}-mask-2.png"));
    browser.until("$('command').textContent.includes('-mask-2.png')");
}
