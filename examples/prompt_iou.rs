//! Measures the selection of objects in the first frames of DAVIS 2016: IoU from the box of the true mask and from 1, 3
//! and 5 simulated clicks. The first click is the point of the object farthest from its border, each later one that of
//! the largest error.
//!
//! ```sh
//! cargo run --release --example prompt_iou -- DAVIS [SEQUENCE...]
//! ```
//!
//! `DAVIS` has the folders `JPEGImages` and `Annotations`, with one folder per sequence, at 480p or directly. Without
//! sequences, all are measured.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstfastganseg::image::{OwnedPicture, Picture};
use gstfastganseg::mask::Labels;
use gstfastganseg::model::prompt::{Embedding, Point, Prompt, PromptNetwork, Rect};
use tch::{Device, Kind};

const CLICKS: usize = 5;
/// Numbers of clicks in the table.
const REPORTED: [usize; 3] = [1, 3, 5];

/// Squared distance of each position to the nearest one with `value` 0 along a line (Felzenszwalb and Huttenlocher).
fn distances_along(values: &[f64]) -> Vec<f64> {
    let crossing = |p: usize, q: usize| {
        let (a, b) = (p as f64, q as f64);
        (values[q] + b * b - values[p] - a * a) / (2.0 * (b - a))
    };
    // Parabolas of the lower envelope and where each begins.
    let mut hull: Vec<(usize, f64)> = vec![(0, f64::NEG_INFINITY)];
    for q in 1..values.len() {
        while hull.last().is_some_and(|&(p, start)| crossing(p, q) <= start) {
            hull.pop();
        }
        let start = hull.last().map_or(f64::NEG_INFINITY, |&(p, _)| crossing(p, q));
        hull.push((q, start));
    }
    let mut at = 0;
    let position = |x: usize| {
        while at + 1 < hull.len() && hull[at + 1].1 < x as f64 {
            at += 1;
        }
        let p = hull[at].0;
        (x as f64 - p as f64).powi(2) + values[p]
    };
    (0..values.len()).map(position).collect()
}

/// Centre of the pixel of `region` that is farthest from its border or that of the picture, and the squared distance.
fn farthest(region: &[bool], width: usize) -> (f64, f64) {
    const FAR: f64 = 1e9;
    let height = region.len() / width;
    // A border of one pixel around the picture.
    let (columns, rows) = (width + 2, height + 2);
    let mut squares = vec![0.0; columns * rows];
    for (index, _) in region.iter().enumerate().filter(|(_, inside)| **inside) {
        squares[(index / width + 1) * columns + index % width + 1] = FAR;
    }
    for x in 0..columns {
        let line: Vec<f64> = (0..rows).map(|y| squares[y * columns + x]).collect();
        distances_along(&line).into_iter().enumerate().for_each(|(y, d)| squares[y * columns + x] = d);
    }
    let lines = squares.chunks_exact(columns).map(distances_along);
    let (mut best, mut most) = ((0, 0), -1.0);
    for (y, line) in lines.enumerate() {
        for (x, distance) in line.into_iter().enumerate() {
            if distance > most {
                (best, most) = ((x, y), distance);
            }
        }
    }
    (best.0 as f64 - 0.5, best.1 as f64 - 0.5)
}

/// The largest connected region of `mask`, and its number of pixels.
fn largest_region(mask: &[bool], width: usize) -> (Vec<bool>, usize) {
    let mut left = mask.to_vec();
    let (mut best, mut size) = (Vec::new(), 0);
    for start in 0..mask.len() {
        if !std::mem::replace(&mut left[start], false) {
            continue;
        }
        let mut region = vec![start];
        let mut next = 0;
        while let Some(&at) = region.get(next) {
            next += 1;
            let x = at % width;
            let neighbours = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then_some(at + 1),
                at.checked_sub(width),
                (at + width < mask.len()).then_some(at + width),
            ];
            for near in neighbours.into_iter().flatten() {
                if std::mem::replace(&mut left[near], false) {
                    region.push(near);
                }
            }
        }
        if region.len() > size {
            (best, size) = (region, next);
        }
    }
    let mut region = vec![false; mask.len()];
    best.into_iter().for_each(|at| region[at] = true);
    (region, size)
}

/// The next click on the largest error of a mask.
fn click(mask: &[bool], truth: &[bool], width: usize) -> Option<Point> {
    let errors = |missing: bool| -> Vec<bool> {
        mask.iter()
            .zip(truth)
            .map(|(&mask, &truth)| if missing { truth && !mask } else { mask && !truth })
            .collect()
    };
    let (missing, surplus) = (largest_region(&errors(true), width), largest_region(&errors(false), width));
    let positive = missing.1 >= surplus.1;
    let (region, size) = if positive { missing } else { surplus };
    let (x, y) = farthest(&region, width);
    (size > 0).then_some(Point { x, y, positive })
}

fn iou(mask: &[bool], truth: &[bool]) -> f64 {
    let count = |both: fn(bool, bool) -> bool| mask.iter().zip(truth).filter(|(a, b)| both(**a, **b)).count();
    count(|a, b| a && b) as f64 / count(|a, b| a || b).max(1) as f64
}

fn bounds(mask: &[bool], width: usize) -> Option<Rect> {
    let inside = || (0..mask.len()).filter(|&index| mask[index]);
    let (left, right) = (inside().map(|at| at % width).min()?, inside().map(|at| at % width).max()?);
    let (top, bottom) = (inside().next()? / width, inside().next_back()? / width);
    Some(Rect {
        x: left as f64,
        y: top as f64,
        width: (right + 1 - left) as f64,
        height: (bottom + 1 - top) as f64,
    })
}

/// A picture whose objects are selected, and the time that each selection takes once the picture is encoded.
struct Meter<'a> {
    network: &'a PromptNetwork,
    picture: Picture<'a>,
    embedding: Embedding,
    times: &'a mut Vec<Duration>,
}

impl Meter<'_> {
    fn select(&mut self, prompt: &Prompt) -> Result<Vec<bool>, Box<dyn Error>> {
        let start = Instant::now();
        let selection = self.network.select_encoded(&self.picture, &self.embedding, prompt)?;
        self.times.push(start.elapsed());
        Ok(selection.alpha.into_iter().map(|alpha| alpha > 127).collect())
    }
}

fn first_file(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let files =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    Ok(files.into_iter().min().ok_or_else(|| format!("{} is empty", folder.display()))?)
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| 1e3 * time.as_secs_f64())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: prompt_iou DAVIS [SEQUENCE...]")?);
    let folder = |name: &str| {
        let small = root.join(name).join("480p");
        if small.is_dir() { small } else { root.join(name) }
    };
    let (pictures, masks) = (folder("JPEGImages"), folder("Annotations"));
    let mut sequences: Vec<String> = arguments.collect();
    if sequences.is_empty() {
        for entry in fs::read_dir(&pictures)? {
            sequences.push(entry?.file_name().to_string_lossy().into_owned());
        }
        sequences.sort();
    }

    let device = if tch::Cuda::is_available() { Device::Cuda(0) } else { Device::Cpu };
    let start = Instant::now();
    let network = PromptNetwork::load(device, Kind::Float)?;
    println!(
        "{device:?}, {} threads, loaded in {:.0} ms",
        tch::get_num_threads(),
        1e3 * start.elapsed().as_secs_f64()
    );
    println!("| sequence | box | 1 click | 3 clicks | 5 clicks |\n|---|---|---|---|---|");
    let mut sums = [0.0; 1 + REPORTED.len()];
    let (mut encode, mut decode, mut select) = (Vec::new(), Vec::new(), Vec::new());
    for sequence in &sequences {
        let picture = OwnedPicture::open(&first_file(&pictures.join(sequence))?)?;
        let labels = Labels::open(&first_file(&masks.join(sequence))?)?;
        let (picture, width) = (picture.as_picture(), labels.width);
        let truth: Vec<bool> = labels.ids.iter().map(|&id| id != 0).collect();
        let start = Instant::now();
        let embedding = network.encode(&picture)?;
        encode.push(start.elapsed());
        let start = Instant::now();
        let rect = bounds(&truth, width);
        network.decode(&embedding, &Prompt { rect, ..Prompt::default() })?;
        decode.push(start.elapsed());

        let mut meter = Meter { network: &network, picture, embedding, times: &mut select };
        let mask = meter.select(&Prompt { rect, ..Prompt::default() })?;
        let mut scores = vec![iou(&mask, &truth)];
        let (mut points, mut mask) = (Vec::new(), vec![false; truth.len()]);
        for count in 1..=CLICKS {
            points.extend(click(&mask, &truth, width));
            mask = meter.select(&Prompt { points: points.clone(), ..Prompt::default() })?;
            if REPORTED.contains(&count) {
                scores.push(iou(&mask, &truth));
            }
        }
        let cells: Vec<String> = scores.iter().map(|score| format!("{score:.3}")).collect();
        println!("| {sequence} | {} |", cells.join(" | "));
        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
    }
    let means: Vec<String> = sums.iter().map(|sum| format!("{:.3}", sum / sequences.len() as f64)).collect();
    println!("| mean | {} |", means.join(" | "));
    println!(
        "median times in ms: encode {:.0}, decode {:.0}, select in an encoded picture {:.0}",
        median(&mut encode),
        median(&mut decode),
        median(&mut select)
    );
    Ok(())
}
