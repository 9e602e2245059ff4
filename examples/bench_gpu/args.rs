//! The command line.

use std::path::PathBuf;

use gstfastganseg::device::Precision;

pub const USAGE: &str = "\
usage: bench_gpu [OPTIONS]
  --device DEVICE    cpu, cuda or cuda:N (default cuda)
  --out FOLDER       where results.csv, results.json and golden-*.safetensors go (default bench-gpu)
  --model NAME       lite or resnet50 alone
  --precision NAME   bfloat16, float16 or float32 alone (default: bfloat16 and float16; float32 on the CPU)
  --runs N           runs of everything that is timed (default 300)
  --frames N         frames that are compared with the CPU's (default 200)
  --long N           frames that half precision is followed over (default 1000)
  --tiny             networks and videos of a size that a CPU gets through in a minute";

pub struct Args {
    pub device: String,
    pub out: PathBuf,
    pub model: Option<String>,
    pub precisions: Vec<Precision>,
    pub runs: usize,
    pub frames: usize,
    pub long: usize,
    pub tiny: bool,
}

impl Args {
    /// Nothing if help was asked for.
    pub fn parse(mut from: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut args = Self {
            device: "cuda".into(),
            out: "bench-gpu".into(),
            model: None,
            precisions: Vec::new(),
            runs: 300,
            frames: 200,
            long: 1000,
            tiny: false,
        };
        while let Some(option) = from.next() {
            let mut value = || from.next().ok_or(format!("{option} needs a value"));
            let count = |text: String| match text.parse() {
                Ok(count) if count > 0 => Ok(count),
                _ => Err(format!("{text:?} is not a positive number")),
            };
            match option.as_str() {
                "-h" | "--help" => return Ok(None),
                "--device" => args.device = value()?,
                "--out" => args.out = value()?.into(),
                "--model" => args.model = Some(value()?),
                "--precision" => {
                    args.precisions = vec![value()?.parse().map_err(|error| format!("{error}"))?]
                }
                "--runs" => args.runs = count(value()?)?,
                "--frames" => args.frames = count(value()?)?,
                "--long" => args.long = count(value()?)?,
                "--tiny" => args.tiny = true,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        if let Some(name) = args.model.as_deref().filter(|name| !["lite", "resnet50"].contains(name)) {
            return Err(format!("unknown model {name}"));
        }
        if args.precisions.is_empty() {
            args.precisions = if args.device == "cpu" {
                vec![Precision::Float32]
            } else {
                vec![Precision::Bfloat16, Precision::Float16]
            };
        }
        Ok(Some(args))
    }

    /// Names and sizes of videos.
    pub fn sizes(&self) -> &'static [(&'static str, usize, usize)] {
        if self.tiny {
            &[("tiny", 320, 180)]
        } else {
            &[("720p", 1280, 720), ("1080p", 1920, 1080), ("2160p", 3840, 2160)]
        }
    }

    pub fn objects(&self) -> &'static [usize] {
        if self.tiny { &[1, 2] } else { &[1, 4, 16] }
    }
}
