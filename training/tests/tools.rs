//! The commands around training, as a user runs them: a data set drawn here, a tiny network.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use fastganseg_training::{LabelMap, indexed_png};
use gstfastganseg::model::{Config, Lite, weights};
use image::{Rgb, RgbImage};
use tch::nn::VarStore;
use tch::{Device, Kind};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Two sequences of six frames with two objects, and the weights of a network that was never trained.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let folders =
                ["JPEGImages", "Annotations"].map(|kind| folder.path().join("data").join(kind).join(name));
            folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
            for frame in 0..6usize {
                let id = |x: usize, y: usize| match (x, y) {
                    _ if (8 + 2 * frame..32 + 2 * frame).contains(&x) && (8..40).contains(&y) => 1,
                    _ if (60..90).contains(&x) && (20..60).contains(&y) => 2,
                    _ => 0,
                };
                let picture = RgbImage::from_fn(96, 64, |x, y| match id(x as usize, y as usize) {
                    1 => Rgb([220, 190, 60]),
                    2 => Rgb([40, 60, 230]),
                    _ => Rgb([30, 90, 50 + 10 * (x % 3) as u8]),
                });
                picture.save(folders[0].join(format!("{frame:05}.jpg"))).unwrap();
                let labels =
                    LabelMap::new(96, 64, (0..96 * 64).map(|i| id(i % 96, i / 96)).collect()).unwrap();
                indexed_png::write(&folders[1].join(format!("{frame:05}.png")), &labels).unwrap();
            }
        }
        let bench = Self { folder };
        let config = Config { width: 0.125, network_size: [64, 96], ..Config::lite() };
        let store = VarStore::new(Device::Cpu);
        {
            // libtorch's random numbers are one for the process: another test's draws must not come in between.
            static TURN: Mutex<()> = Mutex::new(());
            let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            tch::manual_seed(5);
            Lite::new(&store.root(), &config).unwrap();
        }
        let metadata = BTreeMap::from([("licence".to_owned(), "CC0-1.0".to_owned())]);
        weights::save(&bench.path("tiny.safetensors"), &store, &config, &metadata, Kind::Half).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fastganseg-train"))
            .current_dir(self.folder.path())
            .args(line.split_whitespace())
            .output()
            .unwrap()
    }

    /// What it prints, for it succeeds.
    fn printed(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it complains of, for it fails.
    fn complaint(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.status.success(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }
}

const MODEL: &str = "--data data --model tiny.safetensors --device cpu --precision float32";

fn columns(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let own = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
    let header = own(reader.headers().unwrap());
    (header, reader.records().map(|record| own(&record.unwrap())).collect())
}

#[test]
fn info_tells_what_a_file_holds() {
    let bench = Bench::new();
    let text = bench.printed("info tiny.safetensors");
    for word in ["architecture   lite", "64x96", "licence: CC0-1.0", "encoder", "matching", "total"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&bench.printed("info --built-in --json")).unwrap();
    assert_eq!(json["total"]["parameters"], 1_079_495);
    assert_eq!(json["config"]["network_size"], serde_json::json!([192, 336]));
    assert_eq!(json["metadata"]["format"], "1");
    let blocks = json["blocks"].as_array().unwrap();
    let sum: f64 = blocks.iter().map(|block| block["frame"].as_f64().unwrap()).sum();
    assert!((sum - json["total"]["frame"].as_f64().unwrap()).abs() < 1.0);
}

#[test]
fn the_cost_of_a_network_is_known_without_weights() {
    let bench = Bench::new();
    let json: serde_json::Value =
        serde_json::from_str(&bench.printed("info --architecture lite --json")).unwrap();
    let built_in: serde_json::Value = serde_json::from_str(&bench.printed("info --built-in --json")).unwrap();
    assert_eq!(json["blocks"], built_in["blocks"]);
    assert_eq!(json["metadata"], serde_json::json!({}));
}

#[test]
fn info_refuses_what_are_no_weights() {
    let bench = Bench::new();
    assert!(bench.complaint("info nowhere.safetensors").contains("cannot read nowhere.safetensors"));
    let picture = bench.complaint("info data/JPEGImages/a/00000.jpg");
    assert!(picture.contains("00000.jpg") && picture.contains("not a safetensors file"), "{picture}");
    let bytes = fs::read(bench.path("tiny.safetensors")).unwrap();
    fs::write(bench.path("cut.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let cut = bench.complaint("info cut.safetensors");
    assert!(cut.contains("cut.safetensors") && cut.contains("truncated"), "{cut}");
    assert!(bench.complaint("info").contains("FILE"));
    assert!(bench.complaint("info tiny.safetensors --built-in").contains("--built-in"));
}

#[test]
fn long_loops_are_played_and_reported() {
    let bench = Bench::new();
    let text = bench.printed(&format!("loop {MODEL} --length 25 --csv returns.csv"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[1].starts_with("a ") && lines[1].contains(" 20 "), "two tours of ten frames: {text}");
    assert!(lines[3].contains("of 2 collapsed"), "{text}");
    let (header, rows) = columns(&bench.path("returns.csv"));
    assert_eq!(header, ["sequence", "frame", "J"]);
    let returns: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(returns, [("a", "10"), ("a", "20"), ("b", "10"), ("b", "20")]);
    assert!(rows.iter().all(|row| (0.0..=1.0).contains(&row[2].parse::<f64>().unwrap())));
    assert!(bench.complaint(&format!("loop {MODEL} --length 9")).contains("at least"));
}

#[test]
fn confidence_is_compared_with_truth() {
    let bench = Bench::new();
    let text = bench.printed(&format!("calibrate {MODEL} --csv c.csv --plot c.png"));
    assert!(text.contains("expected calibration error") && text.contains("no mask:"), "{text}");
    let (header, rows) = columns(&bench.path("c.csv"));
    assert_eq!(header[..4], ["sequence", "frame", "object", "confidence"]);
    assert_eq!(rows.len(), 2 * 2 * 4, "two sequences, two objects, all frames but the first and the last");
    let masks = rows.iter().filter(|row| row[6] == "1").count();
    assert!(text.contains(&format!("{masks} masks;")), "{text}");
    for row in rows.iter().filter(|row| row[6] == "1") {
        let [confidence, area] = [&row[3], &row[5]].map(|field| field.parse::<f64>().unwrap());
        // Among several objects one may be the likeliest somewhere without being likely.
        let unlikely = area == 0.0 && confidence == 0.0;
        assert!(unlikely || area > 0.0 && confidence > 0.0 && confidence <= 1.0, "{row:?}");
    }
    assert!(image::open(bench.path("c.png")).unwrap().width() > 300);
    assert!(bench.complaint(&format!("calibrate {MODEL} --bins 2")).contains("bins"));
}

#[test]
fn evaluation_at_several_scales_with_the_background() {
    let bench = Bench::new();
    let text = bench.printed(&format!("eval {MODEL} --out out --scales 0.5,0.75,1 --background"));
    assert!(text.contains("global"), "{text}");
    let mask = indexed_png::read(&bench.path("out/masks/b/00005.png")).unwrap();
    assert_eq!((mask.width(), mask.height()), (96, 64));
    let again = bench.printed("score --data data --masks out/masks");
    let row = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("global")).unwrap();
        line.split_whitespace().take(5).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(&text), row(&again), "what is written is what is scored");
    assert!(bench.complaint(&format!("eval {MODEL} --out out --scales 0")).contains("scale 0"));
    let both = bench.complaint(&format!("eval {MODEL} --out out --background --edges refine"));
    assert!(both.contains("--background") && both.contains("--edges"), "{both}");
    let other = bench.complaint("eval --data data --out out --method frozen --background");
    assert!(other.contains("--method model"), "{other}");
}

#[test]
fn methods_are_drawn_from_csv() {
    let bench = Bench::new();
    fs::write(bench.path("m.csv"), "name,ms,J&F,group\na,15,80,x\nb,500,85,y\n").unwrap();
    bench.printed("plot m.csv --out m.png --title both");
    let picture = image::open(bench.path("m.png")).unwrap().into_rgb8();
    assert!(picture.pixels().any(|pixel| pixel.0 != [255; 3]));
    fs::write(bench.path("m.csv"), "name,J&F\na,80\n").unwrap();
    assert!(bench.complaint("plot m.csv --out m.png").contains("m.csv"));
    assert!(bench.complaint("plot none.csv --out m.png").contains("none.csv"));
}
