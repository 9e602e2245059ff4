// SPDX-License-Identifier: MPL-2.0

//! The command line.

use std::path::PathBuf;

use gstfastganseg::device::Precision;

pub const USAGE: &str = "\
usage: bench_gpu [OPTIONS]
  --stage NAME       check (a few frames of each model and launch mode against the CPU; ends at the first failure),
                     table (all measurements), or all (default)
  --device DEVICE    cpu, cuda or cuda:N (default cuda)
  --out FOLDER       folder of results.csv, results.json and golden-*.safetensors (default bench-gpu)
  --model NAME       only lite, only large or only resnet50
  --precision NAME   only bfloat16, float16 or float32 (default: bfloat16 and float16; float32 on the CPU)
  --runs N           timed runs (default 300)
  --frames N         frames to compare with the CPU (default 200)
  --long N           frames of the drift check of half precision (default 1000)
  --tiny             small networks and videos, for about a minute on a CPU";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Check,
    Table,
    All,
}

pub struct Args {
    pub stage: Stage,
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
    /// Parses the arguments. `None` for `--help`.
    pub fn parse(mut from: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut args = Self {
            stage: Stage::All,
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
                "--stage" => {
                    args.stage = match value()?.as_str() {
                        "check" => Stage::Check,
                        "table" => Stage::Table,
                        "all" => Stage::All,
                        name => return Err(format!("unknown stage {name}")),
                    }
                }
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
        if let Some(name) = args.model.as_deref().filter(|name| !crate::weights::MODELS.contains(name)) {
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

    /// Names, widths and heights of the videos.
    pub fn sizes(&self) -> &'static [(&'static str, usize, usize)] {
        if self.tiny {
            &[("tiny", 320, 180)]
        } else {
            &[("720p", 1280, 720), ("1080p", 1920, 1080), ("2160p", 3840, 2160)]
        }
    }

    /// Numbers of objects.
    pub fn objects(&self) -> &'static [usize] {
        if self.tiny { &[1, 2] } else { &[1, 4, 16] }
    }
}
