// SPDX-License-Identifier: MPL-2.0

//! Training clips from generated data sets in every layout.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fastganseg_training::clips::{Batch, Data, Loader, Mix};
use fastganseg_training::{LabelMap, Result};
use image::{Rgb, RgbImage};
use tch::{Kind, Tensor};

const WIDTH: u32 = 48;
const HEIGHT: u32 = 32;

/// No augmentation.
const PLAIN: &str = "
[augment]
flip = 0.0
scale = [1.0, 1.0]
rotated = 0.0
shift = 0.0
shear = 0.0
follow = false
colour = 0.0
reversed = 0.0
frame_steps = [1]
first_reference = 0.0
reference = \"independent\"
";

/// Frame `frame` of sequence `sequence`, both encoded in the colour of the background. Object 1 is red on the
/// left, object 2 is green on the right if `second`, with a column of void in between.
fn draw(sequence: u32, frame: u32, second: bool) -> (RgbImage, LabelMap) {
    let id = |x: u32, y: u32| match (x, y) {
        (4..16, 12..28) => 1,
        (23, 8..) => LabelMap::VOID,
        (32..44, 12..28) if second => 2,
        _ => 0,
    };
    let picture = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| match id(x, y) {
        1 => Rgb([250, 10, 10]),
        2 => Rgb([10, 250, 10]),
        _ => Rgb([20 + 40 * sequence as u8, 12 * frame as u8, 128]),
    });
    let ids = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| id(x, y))).collect();
    (picture, LabelMap::new(WIDTH as usize, HEIGHT as usize, ids).unwrap())
}

/// Decodes sequence and frame from the colour of the corner.
fn sequence_and_frame(image: &Tensor) -> (i64, i64) {
    let value = |channel: i64| image.double_value(&[channel, 1, 1]) * 255.0;
    (((value(0) - 20.0) / 40.0).round() as i64, (value(1) / 12.0).round() as i64)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.0.path().join(inner)
    }

    /// Writes a picture and its labels in the folder `masks`.
    fn write(&self, name: &str, masks: &str, (pixels, labels): (RgbImage, LabelMap)) {
        let [picture, mask] =
            [format!("JPEGImages/{name}.jpg"), format!("{masks}/{name}.png")].map(|path| self.path(&path));
        for path in [&picture, &mask] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        // At this quality flat colours survive.
        let file = fs::File::create(picture).unwrap();
        image::codecs::jpeg::JpegEncoder::new_with_quality(file, 100).encode_image(&pixels).unwrap();
        labels.save(&mask).unwrap();
    }

    /// `sequences` of 10 frames each in the layout of DAVIS. In the last one, object 2 appears in frame 4.
    fn davis(sequences: u32) -> Self {
        let folder = Self::new();
        for sequence in 0..sequences {
            for frame in 0..10 {
                let second = sequence + 1 < sequences || frame >= 4;
                let name = format!("480p/s{sequence}/{frame:05}");
                folder.write(&name, "Annotations", draw(sequence, frame, second));
            }
        }
        folder
    }

    /// Two videos in the layout of YouTube-VOS, every fifth frame annotated. Object 2 of v1 is in all images, but
    /// annotated from the fourth annotated frame only.
    fn youtube(meta: bool) -> Self {
        let folder = Self::new();
        let mut videos = serde_json::Map::new();
        for video in 0..2u32 {
            let name = |frame: u32| format!("{:05}", 5 * frame);
            let frames = |from: u32| (from..9).map(name).collect::<Vec<_>>();
            for frame in 0..9 {
                let (picture, mut labels) = draw(video, frame, true);
                if video == 1 && frame < 3 {
                    labels.ids_mut().iter_mut().filter(|id| **id == 2).for_each(|id| *id = 0);
                }
                folder.write(&format!("v{video}/{}", name(frame)), "Annotations", (picture, labels));
            }
            let object = |from| serde_json::json!({ "category": "toy", "frames": frames(from) });
            let objects = serde_json::json!({ "1": object(0), "2": object(3 * video) });
            videos.insert(format!("v{video}"), serde_json::json!({ "objects": objects }));
        }
        if meta {
            let text = serde_json::json!({ "videos": videos }).to_string();
            fs::write(folder.path("meta.json"), text).unwrap();
        }
        folder
    }

    /// `count` stills with masks in the folder `labels`, "Annotations" for objects or "Labels" for regions.
    fn photos(count: u32, labels: &str) -> Self {
        let folder = Self::new();
        for photo in 0..count {
            let (pixels, map) = draw(photo % 6, 0, true);
            folder.write(&format!("p{photo}"), labels, (pixels, map.without_void()));
        }
        folder
    }

    fn source(&self, name: &str, more: &str) -> String {
        let kind = if self.path("JPEGImages/p0.jpg").exists() { "stills" } else { "video" };
        format!("[sources.{name}]\nkind = {kind:?}\npath = {:?}\n{more}\n", self.0.path())
    }
}

fn data(text: &str) -> Data {
    let common = "window = 2\nbatch = 4\nsize = [32, 48]\n";
    let data: Data = toml::from_str(&format!("{common}{text}")).unwrap();
    data.check().unwrap();
    data
}

fn open(text: &str) -> Result<Mix> {
    Mix::open(&data(text), 11, false)
}

fn message(text: &str) -> String {
    open(text).unwrap_err().to_string()
}

/// The clips of the first `batches` steps: (2 + K, C, H, W) of images, masks and valid.
fn clips(mix: &Mix, batches: u64) -> Vec<[Tensor; 3]> {
    let split = |batch: Batch| {
        (0..batch.images.size()[1])
            .map(|clip| [&batch.images, &batch.masks, &batch.valid].map(|x| x.select(1, clip)))
            .collect::<Vec<_>>()
    };
    (0..batches).flat_map(|step| split(mix.batch(step).unwrap())).collect()
}

fn same(a: &Batch, b: &Batch) -> bool {
    a.images.equal(&b.images)
        && a.masks.equal(&b.masks)
        && a.valid.equal(&b.valid)
        && a.previous.equal(&b.previous)
}

fn area(mask: &Tensor) -> f64 {
    mask.gt(0.5).sum(Kind::Double).double_value(&[])
}

fn mean(image: &Tensor, mask: &Tensor, channel: i64) -> f64 {
    let mask = mask.get(0);
    let inside = (image.get(channel) * &mask).sum(Kind::Double) / mask.sum(Kind::Double);
    inside.double_value(&[])
}

/// Whether the mask of frame `frame` contains object 1 and object 2 of [`draw`], by the colours under it.
fn target(images: &Tensor, masks: &Tensor, frame: i64) -> (bool, bool) {
    let (image, mask) = (images.get(frame), masks.get(frame));
    (mean(&image, &mask, 0) > 0.3, mean(&image, &mask, 1) > 0.3)
}

#[test]
fn each_object_of_davis_2017_is_a_separate_target() {
    let folder = Folder::davis(2);
    let mix = open(&(folder.source("davis", "") + PLAIN)).unwrap();
    let mut targets = BTreeSet::new();
    for [images, masks, _] in clips(&mix, 10) {
        let target = target(&images, &masks, 0);
        targets.insert(target);
        for frame in 1..4 {
            let area = area(&masks.get(frame));
            assert!(area == 192.0 || (area == 0.0 && sequence_and_frame(&images.get(frame)).1 < 4), "{area}");
            assert!(area == 0.0 || self::target(&images, &masks, frame) == target, "one object per clip");
        }
    }
    assert_eq!(targets, [(true, false), (false, true)].into(), "each object, never both together");
}

#[test]
fn the_union_of_objects_is_one_target() {
    let folder = Folder::davis(2);
    let mix = open(&(folder.source("davis", "objects = \"union\"") + PLAIN)).unwrap();
    for [images, masks, _] in clips(&mix, 5) {
        let second = sequence_and_frame(&images.get(1)).0 == 0 || sequence_and_frame(&images.get(1)).1 >= 4;
        assert_eq!(area(&masks.get(1)), if second { 384.0 } else { 192.0 });
    }
}

#[test]
fn void_pixels_are_not_valid() {
    let folder = Folder::davis(1);
    let mix = open(&(folder.source("davis", "") + PLAIN)).unwrap();
    for [_, masks, valid] in clips(&mix, 2) {
        assert_eq!(valid.size(), masks.size());
        assert_eq!(valid.narrow(3, 23, 1).narrow(2, 8, 24).sum(Kind::Double).double_value(&[]), 0.0);
        assert_eq!(valid.sum(Kind::Double).double_value(&[]), 4.0 * (48.0 * 32.0 - 24.0));
    }
}

#[test]
fn pixels_beyond_a_black_border_are_not_valid() {
    let folder = Folder::davis(1);
    let rotated = PLAIN.replace("rotated = 0.0", "rotated = 1.0\nrotation = 30.0");
    let black = rotated.clone() + "border = \"black\"\n";
    let (mut invalid, mut brightest) = (0.0, 0.0);
    for [images, _, valid] in clips(&open(&(folder.source("davis", "") + &black)).unwrap(), 4) {
        let beyond = valid.narrow(3, 0, 8).eq(0.0).to_kind(Kind::Float);
        invalid += beyond.sum(Kind::Double).double_value(&[]);
        brightest += (images.narrow(3, 0, 8).amax([1i64], true) * beyond).max().double_value(&[]);
    }
    assert!(invalid > 0.0 && brightest == 0.0, "{invalid} pixels, brightest: {brightest}");
    let mirrored = clips(&open(&(folder.source("davis", "") + &rotated)).unwrap(), 4);
    // The void column does not reach these columns.
    let all_valid = |valid: &Tensor| valid.narrow(3, 0, 8).min().double_value(&[]) == 1.0;
    assert!(mirrored.iter().all(|[_, _, valid]| all_valid(valid)), "the mirrored border has a mask");
}

#[test]
fn windows_are_equally_spaced_frames_of_one_sequence() {
    let folder = Folder::davis(3);
    let steps = PLAIN
        .replace("frame_steps = [1]", "frame_steps = [1, 3]")
        .replace("reversed = 0.0", "reversed = 0.5");
    let mix = open(&(folder.source("davis", "") + &steps)).unwrap();
    let (mut strides, mut sequences, mut references) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for [images, ..] in clips(&mix, 20) {
        let at: Vec<(i64, i64)> = (0..4).map(|frame| sequence_and_frame(&images.get(frame))).collect();
        assert!(at.iter().all(|(sequence, _)| *sequence == at[0].0), "{at:?}");
        assert_eq!(at[2].1 - at[1].1, at[3].1 - at[2].1, "{at:?}");
        strides.insert(at[2].1 - at[1].1);
        sequences.insert(at[0].0);
        references.insert(at[0].1);
    }
    assert_eq!(strides, [-3, -1, 1, 3].into());
    assert_eq!(sequences, [0, 1, 2].into());
    assert!(references.len() > 7, "references are from the whole sequence: {references:?}");
}

#[test]
fn jumps_show_a_previous_frame_outside_of_the_window() {
    let folder = Folder::davis(3);
    let plain = PLAIN.replace("reversed = 0.0", "reversed = 0.0\njump = 1.0");
    let mut distances = BTreeSet::new();
    for [images, ..] in clips(&open(&(folder.source("davis", "") + &plain)).unwrap(), 20) {
        let at: Vec<(i64, i64)> = (1..4).map(|frame| sequence_and_frame(&images.get(frame))).collect();
        assert!(at.iter().all(|(sequence, _)| *sequence == at[0].0), "{at:?}");
        assert_eq!(at[2].1 - at[1].1, 1, "{at:?}");
        distances.insert(at[1].1 - at[0].1);
    }
    assert!(!distances.contains(&1) && !distances.contains(&0) && !distances.contains(&-1), "{distances:?}");
    assert!(distances.len() > 6, "{distances:?}");
}

#[test]
fn synthetic_objects_jump_before_the_first_predicted_frame() {
    let photos = Folder::photos(3, "Annotations");
    let moved = |jump: f64| {
        let text =
            photos.source("b", "") + &format!("[synthetic]\nmotion = 0.0\nwave = 0.0\njump = {jump:.1}\n");
        let change = |masks: &Tensor, frame: i64| {
            (masks.get(frame) - masks.get(frame - 1)).abs().sum(Kind::Double).double_value(&[])
        };
        let clips = clips(&open(&text).unwrap(), 6);
        [1, 2, 3].map(|frame| clips.iter().map(|[_, masks, _]| change(masks, frame)).sum::<f64>())
    };
    let ([_, without, _], [before, jump, after]) = (moved(0.0), moved(1.0));
    assert!(
        jump > 20.0 * without.max(1.0) && jump > 5.0 * before.max(after),
        "{without} {before} {jump} {after}"
    );
}

#[test]
fn the_soft_truth_of_synthetic_clips_has_softer_edges() {
    let photos = Folder::photos(3, "Annotations");
    let soft_pixels = |soft: bool| {
        let text = photos.source("b", "") + &format!("[synthetic]\nmotion = 0.0\nsoft_truth = {soft}\n");
        let soft = |masks: &Tensor| {
            (masks.gt(0.05).logical_and(&masks.lt(0.95))).sum(Kind::Double).double_value(&[])
        };
        clips(&open(&text).unwrap(), 6).iter().map(|[_, masks, _]| soft(masks)).sum::<f64>()
    };
    let (outline, alpha) = (soft_pixels(false), soft_pixels(true));
    assert!(alpha > 1.3 * outline, "{outline} {alpha}");
}

#[test]
fn an_absent_object_needs_another_sequence() {
    let folder = Folder::davis(1);
    let plain = PLAIN.replace("reversed = 0.0", "reversed = 0.0\nabsent = 1.0");
    let error = message(&(folder.source("davis", "") + &plain));
    assert!(error.contains("data.augment.absent") && error.contains("two sequences"), "{error}");
    let other = Folder::davis(2);
    let unused = folder.source("davis", "") + &other.source("unused", "ratio = 0.0") + &plain;
    assert!(message(&unused).contains("data.augment.absent"), "other sources are not drawn");
}

#[test]
fn a_distractor_needs_stills() {
    let (video, stills) = (Folder::davis(1), Folder::photos(1, "Annotations"));
    let plain = PLAIN.replace("reversed = 0.0", "reversed = 0.0\ndistractor = 0.1");
    let error = message(&(video.source("a", "") + &plain));
    assert!(error.contains("data.augment.distractor") && error.contains("stills"), "{error}");
    assert!(open(&(video.source("a", "") + &stills.source("b", "ratio = 0.0") + &plain)).is_ok());
    assert!(open(&(stills.source("b", "") + &plain)).is_ok(), "clips of stills have none");
}

/// Clips of video with `augment`, beside stills that are hardly drawn.
fn augmented(video: &Folder, augment: &str) -> Vec<[Tensor; 3]> {
    let stills = Folder::photos(3, "Annotations");
    let sources = video.source("a", "") + &stills.source("b", "ratio = 1e-6");
    clips(&open(&format!("{sources}{PLAIN}{augment}\n")).unwrap(), 12)
}

fn is_one_colour(image: &Tensor) -> bool {
    image.max().double_value(&[]) == image.min().double_value(&[])
}

#[test]
fn interruptions_hide_the_previous_frame_and_some_first_ones() {
    let folder = Folder::davis(2);
    let (without, with) = (augmented(&folder, ""), augmented(&folder, "interrupted = 1.0"));
    let (mut two, mut plain, mut black) = (0, 0, 0);
    for ([images, masks, valid], [shown, seen, known]) in without.iter().zip(&with) {
        assert!(images.get(0).equal(&shown.get(0)) && masks.get(0).equal(&seen.get(0)), "the reference");
        let is_hidden = |frame: i64| !images.get(frame).equal(&shown.get(frame));
        assert!(is_hidden(1) && !is_hidden(3));
        two += i32::from(is_hidden(2));
        for frame in 1..4 {
            if !is_hidden(frame) {
                assert!(
                    masks.get(frame).equal(&seen.get(frame)) && valid.get(frame).equal(&known.get(frame))
                );
                continue;
            }
            assert_eq!(seen.get(frame).max().double_value(&[]), 0.0, "an empty mask");
            if is_one_colour(&shown.get(frame)) {
                assert_eq!(known.get(frame).min().double_value(&[]), 1.0);
            } else {
                let other = sequence_and_frame(&shown.get(frame)).0;
                assert_ne!(other, sequence_and_frame(&images.get(0)).0, "another sequence");
            }
        }
        plain += i32::from(is_one_colour(&shown.get(1)));
        black += i32::from(shown.get(1).max().double_value(&[]) == 0.0);
    }
    // 48 clips, within four standard deviations of a half, 30 % and 15 %.
    assert!(
        (11..=37).contains(&two) && (2..=27).contains(&plain) && black > 0 && black < plain,
        "{two} with two hidden frames, {plain} of one colour, {black} black"
    );
}

#[test]
fn interruptions_without_another_sequence_show_one_colour() {
    for [images, masks, _] in augmented(&Folder::davis(1), "interrupted = 1.0") {
        assert!(is_one_colour(&images.get(1)) && !is_one_colour(&images.get(3)));
        assert_eq!(area(&masks.get(1)), 0.0);
    }
}

#[test]
fn absent_and_interrupted_objects_have_no_distractor() {
    let folder = Folder::davis(2);
    for key in ["absent = 1.0", "interrupted = 1.0", "absent = 1.0\ninterrupted = 1.0"] {
        let (plain, with) =
            (augmented(&folder, key), augmented(&folder, &format!("{key}\ndistractor = 1.0")));
        for ([images, masks, _], [same_images, same_masks, _]) in plain.iter().zip(&with) {
            assert!(images.equal(same_images) && masks.equal(same_masks), "{key}");
            let hidden = key.starts_with("absent").then(|| area(&masks.get(3)));
            assert_eq!(hidden.unwrap_or(0.0), 0.0, "absent has precedence");
        }
    }
}

#[test]
fn an_object_is_a_target_only_in_frames_listed_in_meta_json() {
    let folder = Folder::youtube(true);
    let mix = open(&(folder.source("youtube", "") + PLAIN)).unwrap();
    let mut late_targets = 0;
    for [images, masks, _] in clips(&mix, 20) {
        let at: Vec<(i64, i64)> = (0..4).map(|frame| sequence_and_frame(&images.get(frame))).collect();
        assert!(at[1..].windows(2).all(|pair| pair[1] == (pair[0].0, pair[0].1 + 1)), "{at:?}");
        if at[0].0 == 1 && target(&images, &masks, 0) == (false, true) {
            late_targets += 1;
            assert!(at.iter().all(|(_, frame)| *frame >= 3), "{at:?}");
        }
    }
    assert!(late_targets > 5, "{late_targets}");
}

#[test]
fn youtube_vos_without_a_valid_meta_json_is_an_error_unless_read_as_davis() {
    let folder = Folder::youtube(false);
    let error = message(&folder.source("youtube", "layout = \"youtube-vos\""));
    assert!(error.contains("meta.json") && error.contains("layout = \"davis\""), "{error}");
    assert!(open(&folder.source("youtube", "")).is_ok(), "objects are taken from the masks");
    fs::write(folder.path("meta.json"), "{\"videos\": {\"v0\": {\"objects\": {}}}}").unwrap();
    let error = message(&folder.source("youtube", ""));
    assert!(error.contains("meta.json") && error.contains("v1") && error.contains("exclude"), "{error}");
    fs::write(folder.path("meta.json"), "[]").unwrap();
    let error = message(&folder.source("youtube", ""));
    assert!(error.contains("meta.json") && error.contains("again"), "{error}");
}

#[test]
fn sequences_are_chosen_by_list_and_by_name() {
    let folder = Folder::davis(3);
    let sequences = |more: &str| -> BTreeSet<i64> {
        let mix = open(&(folder.source("davis", more) + PLAIN)).unwrap();
        clips(&mix, 8).iter().map(|[images, ..]| sequence_and_frame(&images.get(0)).0).collect()
    };
    assert_eq!(sequences("exclude = [\"s1\"]"), [0, 2].into());
    fs::write(folder.path("mine.txt"), "s2\n").unwrap();
    assert_eq!(sequences(&format!("split = {:?}", folder.path("mine.txt"))), [2].into());
    let lists = folder.path("ImageSets/2017");
    fs::create_dir_all(&lists).unwrap();
    fs::write(lists.join("val.txt"), "s0\n").unwrap();
    fs::write(lists.join("train.txt"), "s1\n").unwrap();
    assert_eq!(sequences(""), [1].into(), "the training list, not the validation list");
    let error = message(&folder.source("davis", "exclude = [\"s7\"]"));
    assert!(error.contains("s7") && error.contains("exclude"), "{error}");
}

/// A data set with three broken frames: an invalid JPEG, an invalid PNG, a mask of another size.
fn with_broken_files() -> Folder {
    let folder = Folder::davis(2);
    fs::write(folder.path("JPEGImages/480p/s0/00001.jpg"), "no picture").unwrap();
    fs::write(folder.path("Annotations/480p/s0/00005.png"), "no mask").unwrap();
    let small = LabelMap::new(2, 2, vec![1, 1, 2, 2]).unwrap();
    small.save(&folder.path("Annotations/480p/s1/00005.png")).unwrap();
    folder
}

#[test]
fn broken_frames_are_left_out() {
    let folder = with_broken_files();
    for preload in ["", "preload = true"] {
        let mix =
            open(&("broken_limit = 3\n".to_owned() + &folder.source("davis", preload) + PLAIN)).unwrap();
        for [images, ..] in clips(&mix, 25) {
            let shown: Vec<_> = (0..4).map(|frame| sequence_and_frame(&images.get(frame))).collect();
            let intact = shown.iter().all(|at| ![(0, 1), (0, 5), (1, 5)].contains(at));
            assert!(intact, "{shown:?}");
        }
    }
}

#[test]
fn more_broken_files_than_the_limit_are_an_error() {
    let folder = with_broken_files();
    let text = |limit: usize, more: &str| {
        format!("broken_limit = {limit}\n") + &folder.source("davis", more) + PLAIN
    };
    let named = |error: &str| {
        ["s0/00001.jpg", "s0/00005.png", "s1/00005.png"].iter().any(|name| error.contains(name))
    };
    let error = message(&text(2, "preload = true"));
    assert!(named(&error) && error.contains("data.broken_limit"), "{error}");
    let mix = open(&text(2, "")).unwrap();
    let error = (0..200).find_map(|step| mix.batch(step).err()).unwrap().to_string();
    assert!(named(&error) && error.contains("3 broken files"), "{error}");
}

#[test]
fn broken_stills_are_left_out() {
    let folder = Folder::photos(4, "Annotations");
    fs::write(folder.path("JPEGImages/p1.jpg"), "no picture").unwrap();
    let small = LabelMap::new(2, 2, vec![1, 1, 2, 2]).unwrap();
    small.save(&folder.path("Annotations/p2.png")).unwrap();
    fs::remove_file(folder.path("Annotations/p3.png")).unwrap();
    let source = folder.source("photos", "");
    assert!(open(&format!("broken_limit = 2\n{source}")).unwrap().batch(0).is_ok());
    let error = message(&format!("broken_limit = 1\n{source}"));
    assert!(error.contains("p1.jpg") || error.contains("p2.png"), "{error}");
}

/// Their values were read as shades of grey.
#[test]
fn stills_with_masks_of_other_formats_are_read_by_their_meaning() {
    let folder = Folder::photos(2, "Annotations");
    let opaque = |x: u32, y: u32| (4..16).contains(&x) && (12..28).contains(&y);
    let mask = image::RgbaImage::from_fn(WIDTH, HEIGHT, |x, y| {
        image::Rgba([255, 255, 255, if opaque(x, y) { 255 } else { 0 }])
    });
    mask.save(folder.path("Annotations/p0.png")).unwrap();
    fs::remove_file(folder.path("JPEGImages/p1.jpg")).unwrap();
    let masks = |mix: &Mix| mix.batch(0).unwrap().masks;
    let covered = masks(&open(&folder.source("b", "")).unwrap()).mean(Kind::Double).double_value(&[]);
    assert!(covered < 0.6, "the object is not the whole picture: {covered}");
    let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(WIDTH, HEIGHT, image::Luma([200 * 256]));
    deep.save(folder.path("Annotations/p0.png")).unwrap();
    let error = message(&("broken_limit = 0\n".to_owned() + &folder.source("b", "")));
    assert!(error.contains("p0.png") && error.contains("199"), "{error}");
}

#[test]
fn clips_do_not_depend_on_cache_preloading_and_threads() {
    let (video, stills) = (Folder::davis(3), Folder::photos(3, "Labels"));
    let motion = "[synthetic]\nthin_plate = 0.5\nmotion_blur = 0.5\nlighting = 0.5\nshadow = 0.5\n";
    let text = |cache: u64, preload: bool| {
        let video = video.source("video", &format!("preload = {preload}"));
        format!("cache = {cache}\n{video}{}{motion}", stills.source("stills", ""))
    };
    let expected: Vec<Batch> =
        (0..6).map(|step| open(&text(64, false)).unwrap().batch(step).unwrap()).collect();
    assert!(!same(&expected[0], &expected[1]));
    for (cache, preload, threads, first) in
        [(64, false, 1, 0), (0, false, 2, 0), (64, false, 4, 0), (64, true, 2, 0), (64, false, 4, 3)]
    {
        let mut loader = Loader::start(open(&text(cache, preload)).unwrap(), threads, first as u64);
        for (step, expected) in expected.iter().enumerate().skip(first) {
            let batch = loader.batch().unwrap();
            assert!(same(&batch, expected), "step {step}, {threads} threads, cache {cache}, from {first}");
        }
    }
}

#[test]
fn sources_are_mixed_by_their_ratios() {
    let (one, other) = (Folder::davis(1), Folder::youtube(true));
    let stills = Folder::photos(2, "Annotations");
    let text = one.source("a", "ratio = 6.0")
        + &other.source("b", "ratio = 2.0\nexclude = [\"v0\"]")
        + &stills.source("c", "ratio = 2.0");
    // Clips from stills have no void; the videos differ by their sequence.
    let mut counts = [0; 3];
    for [images, _, valid] in clips(&open(&(text + PLAIN)).unwrap(), 100) {
        let synthetic = valid.min().double_value(&[]) == 1.0;
        counts[if synthetic { 2 } else { sequence_and_frame(&images.get(1)).0 as usize }] += 1;
    }
    // 400 clips, within four standard deviations.
    assert!((200..=280).contains(&counts[0]), "{counts:?}");
    assert!((48..=112).contains(&counts[1]) && (48..=112).contains(&counts[2]), "{counts:?}");
}

#[test]
fn lighting_does_not_change_masks() {
    let folder = Folder::photos(3, "Annotations");
    let with = |light: f64| {
        let light = format!("[synthetic]\nlighting = {light:.1}\nshadow = {light:.1}\n");
        clips(&open(&(folder.source("stills", "") + &light)).unwrap(), 2)
    };
    for ([images, masks, _], [lit, same_masks, _]) in with(0.0).iter().zip(&with(1.0)) {
        assert!(masks.equal(same_masks));
        assert!(!images.equal(lit));
    }
}

#[test]
fn masks_of_moving_blurred_and_bent_objects_are_in_range() {
    let folder = Folder::photos(3, "Labels");
    let all = "[synthetic]\nthin_plate = 1.0\nmotion_blur = 1.0\nlighting = 1.0\nshadow = 1.0\nsecond_object = 1.0\n";
    for [images, masks, valid] in clips(&open(&(folder.source("stills", "") + all)).unwrap(), 4) {
        for x in [&images, &masks] {
            let (low, high) = (x.min().double_value(&[]), x.max().double_value(&[]));
            assert!(low >= -1e-5 && high <= 1.0 + 1e-5 && high > 0.2, "{low} {high}");
        }
        assert_eq!(valid.min().double_value(&[]), 1.0, "synthetic clips are valid everywhere");
    }
}

#[test]
fn the_previous_mask_without_perturbation_is_the_true_mask() {
    let folder = Folder::davis(1);
    let text = folder.source("davis", "") + PLAIN;
    let batch = open(&(text.clone() + "[perturbation]\nstrength = 0.0\n")).unwrap().batch(0).unwrap();
    assert!(batch.previous.equal(&batch.masks.get(1)));
    let batch = open(&text).unwrap().batch(0).unwrap();
    assert!(!batch.previous.equal(&batch.masks.get(1)));
}

#[test]
fn images_of_another_shape_are_stretched_or_cropped() {
    let folder = Folder::davis(1);
    let text = folder.source("davis", "") + PLAIN;
    let wide = "window = 2\nbatch = 4\nsize = [64, 48]\n";
    let area_with = |text: &str| {
        let data: Data = toml::from_str(&format!("{wide}{text}")).unwrap();
        area(&Mix::open(&data, 1, false).unwrap().batch(0).unwrap().masks.get(0))
    };
    let stretched = area_with(&(text.clone() + "fit = \"stretch\"\n"));
    assert_eq!(stretched, 4.0 * 2.0 * 192.0, "twice as high");
    let covered = area_with(&text.replace("follow = false", "follow = true"));
    let complete = 4.0 * 4.0 * 192.0;
    assert!(covered > 0.8 * complete && covered <= complete, "twice as large, almost complete: {covered}");
}

#[test]
fn clips_have_the_listed_shapes() {
    let (video, stills) = (Folder::davis(2), Folder::photos(2, "Labels"));
    let sources = video.source("a", "") + &stills.source("b", "");
    let shapes = [[32, 48], [48, 32], [48, 48]];
    let close_ups = "[augment]\nclose_ups = 1.0\n";
    let mix = open(&format!("shapes = {shapes:?}\n{sources}{close_ups}")).unwrap();
    let mut sizes = BTreeSet::new();
    for step in 0..12 {
        let batch = mix.batch(step).unwrap();
        let size = &batch.images.size()[3..];
        assert!(shapes.iter().any(|shape| shape == size) && batch.previous.size()[2..] == *size);
        for frame in 0..2 {
            let smallest =
                (0..4).map(|clip| area(&batch.masks.get(frame).get(clip))).fold(f64::MAX, f64::min);
            assert!(smallest > 0.0, "step {step}, {size:?}: no object in frame {frame}");
        }
        sizes.insert(size.to_vec());
        assert!(same(&batch, &mix.batch(step).unwrap()));
    }
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    let plain = open(&(sources.clone() + close_ups)).unwrap().batch(3).unwrap();
    let one = open(&format!("shapes = [[32, 48]]\n{sources}{close_ups}")).unwrap().batch(3).unwrap();
    assert!(same(&plain, &one), "a list of one shape equals none");
}

#[test]
fn close_ups_contain_the_whole_object_in_any_shape() {
    let folder = Folder::davis(2);
    for shape in [[32, 48], [48, 32], [48, 48]] {
        let plain = PLAIN.replace("[augment]", "[augment]\nclose_ups = 1.0");
        let text = format!("shapes = [{shape:?}]\n{}{plain}", folder.source("a", ""));
        for [_, masks, _] in clips(&open(&text).unwrap(), 6) {
            // The object has 12 x 16 of 48 x 32 pixels. A close-up must not show it smaller than the whole image
            // would.
            let scale = f64::from(shape[0] * shape[1]) / (48.0 * 32.0);
            assert!(area(&masks.get(0)) > 0.55 * 192.0 * scale, "{shape:?}: {}", area(&masks.get(0)));
        }
    }
}

#[test]
fn distractors_pass_in_front_of_the_object_or_behind_it() {
    let (video, stills) = (Folder::davis(2), Folder::photos(3, "Annotations"));
    let sources = video.source("a", "") + &stills.source("b", "ratio = 1e-6");
    let with = |distractor: f64, late_distractor: f64| {
        let synthetic = format!("[synthetic]\nlate_distractor = {late_distractor:.1}\n");
        clips(&open(&format!("{sources}{PLAIN}distractor = {distractor:.1}\n{synthetic}")).unwrap(), 8)
    };
    let (without, with, late) = (with(0.0, 0.0), with(1.0, 0.0), with(1.0, 1.0));
    let (mut in_front, mut behind) = (0, 0);
    for ([images, masks, valid], [changed, visible, same_valid]) in without.iter().zip(&with) {
        assert!(valid.equal(same_valid));
        assert!((masks - visible).min().double_value(&[]) >= -1e-5, "a distractor never enlarges the mask");
        let object = masks.gt(0.999).logical_and(&visible.gt(0.999)).to_kind(Kind::Float);
        let difference = ((images - changed) * &object).abs().max().double_value(&[]);
        assert!(difference < 2e-3, "the visible part of the object is unchanged: {difference}");
        in_front += i32::from(!masks.equal(visible));
        behind += i32::from(masks.equal(visible) && !images.equal(changed));
    }
    assert!(in_front > 4 && behind > 4, "{in_front} in front, {behind} behind of {}", with.len());
    for ([images, ..], [changed, ..]) in without.iter().zip(&late) {
        assert!(images.get(0).equal(&changed.get(0)), "a late distractor is not in the reference");
    }
    assert!(without.iter().zip(&late).any(|(a, b)| !a[0].get(1).equal(&b[0].get(1))));
}

#[test]
fn late_distractors_do_not_hide_the_object_in_the_reference() {
    let folder = Folder::photos(3, "Annotations");
    let with = |second: f64, late_distractor: f64| {
        let text =
            format!("[synthetic]\nsecond_object = {second:.1}\nlate_distractor = {late_distractor:.1}\n");
        clips(&open(&(folder.source("stills", "") + &text)).unwrap(), 6)
    };
    let total_area = |clips: &[[Tensor; 3]], frame: i64| {
        clips.iter().map(|[_, masks, _]| area(&masks.get(frame))).sum::<f64>()
    };
    let (early, late) = (with(1.0, 0.0), with(1.0, 1.0));
    assert_eq!(early.len(), late.len());
    assert!(total_area(&late, 0) > total_area(&early, 0), "not hidden in the reference");
    assert!(total_area(&late, 1) < total_area(&late, 0), "hidden in later frames");
}

/// Batches of four clips in pairs, in which probability 1 makes every window have two objects.
fn pairs(sources: &str, look_alike: f64) -> Vec<Batch> {
    let text = format!("{sources}{PLAIN}[multi_object]\nprobability = 1.0\nlook_alike = {look_alike:.1}\n");
    let mix = open(&text).unwrap();
    (0..4).map(|step| mix.batch(step).unwrap()).collect()
}

/// Checks that both clips of each pair show the same pictures, that their masks do not overlap, and that the reference
/// shows both objects.
fn check_pairs(batches: &[Batch]) {
    for batch in batches {
        assert_eq!(batch.objects, [2, 2]);
        for pair in [0, 2] {
            let of = |x: &Tensor, clip: i64| x.select(1, pair + clip);
            assert!(of(&batch.images, 0).equal(&of(&batch.images, 1)));
            let both = of(&batch.masks, 0) + of(&batch.masks, 1);
            assert!(both.max().double_value(&[]) <= 1.0 + 1e-3, "{}", both.max().double_value(&[]));
            for clip in 0..2 {
                assert!(area(&of(&batch.masks, clip).get(0)) > 4.0);
            }
        }
    }
}

#[test]
fn windows_of_two_objects_show_those_of_the_video() {
    let folder = Folder::davis(3);
    // Without stills, objects are copied whatever the probability.
    let batches = pairs(&folder.source("a", ""), 0.0);
    check_pairs(&batches);
    // Object 1 is on the left and object 2 on the right, except in the last sequence, where it may be a copy.
    let columns = |mask: &Tensor, from: i64| area(&mask.narrow(2, from, 24));
    let (mut left_and_right, mut pairs) = (0, 0);
    for batch in &batches {
        for pair in [0, 2] {
            let mask = |clip: i64| batch.masks.get(0).get(pair + clip);
            let on_left = |clip: i64| columns(&mask(clip), 0) > columns(&mask(clip), 24);
            pairs += 1;
            left_and_right += i32::from(on_left(0) != on_left(1));
        }
    }
    assert!(2 * left_and_right > pairs, "{left_and_right} of {pairs}");
}

#[test]
fn objects_are_added_to_windows_with_fewer() {
    let stills = Folder::photos(3, "Annotations");
    for look_alike in [0.0, 1.0] {
        check_pairs(&pairs(&stills.source("b", ""), look_alike));
    }
}

#[test]
fn a_batch_must_hold_whole_windows() {
    let folder = Folder::davis(1);
    let text = |batch: usize| {
        let source = folder.source("a", "");
        format!(
            "window = 2\nbatch = {batch}\nsize = [32, 48]\n{source}[multi_object]\nprobability = 0.5\nobjects = 3\n"
        )
    };
    let check = |batch| toml::from_str::<Data>(&text(batch)).unwrap().check();
    assert!(check(6).is_ok());
    assert!(check(4).unwrap_err().contains("data.multi_object.objects"));
}

#[test]
fn errors_name_values_out_of_range() {
    let folder = Folder::davis(1);
    let error = |text: String| -> String {
        let text = format!("window = 2\nbatch = 4\nsize = [32, 48]\n{text}");
        toml::from_str::<Data>(&text).unwrap().check().unwrap_err()
    };
    let source = |more: &str| folder.source("a", more);
    assert!(error(source("ratio = -1.0")).contains("data.sources.a.ratio"));
    assert!(error(source("ratio = 0.0")).contains("ratio"));
    assert!(error(source("size = [0, 4]")).contains("data.sources.a.size"));
    assert!(error("[sources]\n".into()).contains("data.sources"));
    assert!(error("shapes = [[32, 40]]\n".to_owned() + &source("")).contains("data.shapes"));
    for (key, text) in [
        ("augment.scale", "scale = [1.2, 0.8]"),
        ("augment.rotation", "rotation = 300.0"),
        ("augment.flip", "flip = 1.5"),
        ("augment.frame_steps", "frame_steps = []"),
        ("synthetic.bend", "bend = 0.9"),
        ("synthetic.shutter", "shutter = [0.5, nan]"),
        ("perturbation", "exact = 0.9\nempty = 0.2"),
    ] {
        let section = key.split('.').next().unwrap();
        let message = error(source("") + &format!("[{section}]\n{text}\n"));
        assert!(message.contains(&format!("data.{key}")), "{message}");
    }
    let stills = source("preload = true").replace("\"video\"", "\"stills\"");
    assert!(error(stills).contains("kind = \"video\""));
}

#[test]
fn errors_name_empty_and_missing_folders() {
    let folder = Folder::new();
    let stills = format!("[sources.x]\nkind = \"stills\"\npath = {:?}\n", folder.0.path());
    assert!(message(&stills).contains("neither Annotations nor Labels"));
    let missing = stills.replace("stills", "video").replace("path = \"", "path = \"/nonexistent");
    assert!(message(&missing).contains("/nonexistent"));
}
