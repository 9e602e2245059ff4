//! Training clips of data sets drawn here, in every layout.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fastganseg_training::clips::{Batch, Data, Loader, Mix};
use fastganseg_training::{LabelMap, Result, indexed_png};
use image::{Rgb, RgbImage};
use tch::{Kind, Tensor};

const WIDTH: u32 = 48;
const HEIGHT: u32 = 32;

/// Every picture as it is.
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

/// The frame `frame` of sequence `sequence`, which the background's colour tells; object 1 on the
/// left in red, object 2 on the right in green if `second`, a column of void between.
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

/// Sequence and frame by the colour of the corner.
fn told(image: &Tensor) -> (i64, i64) {
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

    fn write(&self, picture: &str, mask: &str, (pixels, labels): (RgbImage, LabelMap)) {
        for path in [picture, mask] {
            fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        }
        // Flat colours survive.
        let file = fs::File::create(self.path(picture)).unwrap();
        image::codecs::jpeg::JpegEncoder::new_with_quality(file, 100).encode_image(&pixels).unwrap();
        indexed_png::write(&self.path(mask), &labels).unwrap();
    }

    /// `sequences` of 10 frames each, in the layout of DAVIS; in the last, object 2 comes in frame 4.
    fn davis(sequences: u32) -> Self {
        let folder = Self::new();
        for sequence in 0..sequences {
            for frame in 0..10 {
                let name = format!("480p/s{sequence}/{frame:05}");
                let second = sequence + 1 < sequences || frame >= 4;
                let (picture, mask) = (format!("JPEGImages/{name}.jpg"), format!("Annotations/{name}.png"));
                folder.write(&picture, &mask, draw(sequence, frame, second));
            }
        }
        folder
    }

    /// Two videos in the layout of YouTube-VOS, every fifth frame annotated; object 2 is in the
    /// pictures of v1 all the time, but annotated from the fourth annotated frame on.
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
                let base = format!("v{video}/{}", name(frame));
                folder.write(
                    &format!("JPEGImages/{base}.jpg"),
                    &format!("Annotations/{base}.png"),
                    (picture, labels),
                );
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

    /// `count` photos with one object, or with regions.
    fn photos(count: u32, labels: &str) -> Self {
        let folder = Self::new();
        for photo in 0..count {
            let (picture, mask) = (format!("JPEGImages/p{photo}.jpg"), format!("{labels}/p{photo}.png"));
            let (pixels, map) = draw(photo % 6, 0, true);
            folder.write(&picture, &mask, (pixels, map.without_void()));
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
    Mix::open(&data(text), 11)
}

fn message(text: &str) -> String {
    open(text).unwrap_err().to_string()
}

/// The clips of the first `batches` steps: (2 + K, C, H, W) of images, masks and valid.
fn clips(mix: &Mix, batches: u64) -> Vec<[Tensor; 3]> {
    let of = |batch: Batch| {
        (0..batch.images.size()[1])
            .map(|clip| [&batch.images, &batch.masks, &batch.valid].map(|x| x.select(1, clip)))
            .collect::<Vec<_>>()
    };
    (0..batches).flat_map(|step| of(mix.batch(step).unwrap())).collect()
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

/// Which of the objects of [`draw`] a clip is about, by the colours under the mask of frame `frame`.
fn target(images: &Tensor, masks: &Tensor, frame: i64) -> (bool, bool) {
    let (image, mask) = (images.get(frame), masks.get(frame));
    (mean(&image, &mask, 0) > 0.3, mean(&image, &mask, 1) > 0.3)
}

#[test]
fn each_object_of_davis_2017_is_a_target_of_its_own() {
    let folder = Folder::davis(2);
    let mix = open(&(folder.source("davis", "") + PLAIN)).unwrap();
    let mut targets = BTreeSet::new();
    for [images, masks, _] in clips(&mix, 10) {
        let target = target(&images, &masks, 0);
        targets.insert(target);
        for frame in 1..4 {
            let area = area(&masks.get(frame));
            assert!(area == 192.0 || (area == 0.0 && told(&images.get(frame)).1 < 4), "{area}");
            assert!(area == 0.0 || self::target(&images, &masks, frame) == target, "one object a clip");
        }
    }
    assert_eq!(targets, [(true, false), (false, true)].into(), "both, and never both at once");
}

#[test]
fn the_union_of_objects_is_one_target() {
    let folder = Folder::davis(2);
    let mix = open(&(folder.source("davis", "objects = \"union\"") + PLAIN)).unwrap();
    for [images, masks, _] in clips(&mix, 5) {
        let second = told(&images.get(1)).0 == 0 || told(&images.get(1)).1 >= 4;
        assert_eq!(area(&masks.get(1)), if second { 384.0 } else { 192.0 });
    }
}

#[test]
fn the_truth_is_unknown_in_void() {
    let folder = Folder::davis(1);
    let mix = open(&(folder.source("davis", "") + PLAIN)).unwrap();
    for [_, masks, valid] in clips(&mix, 2) {
        assert_eq!(valid.size(), masks.size());
        assert_eq!(valid.narrow(3, 23, 1).narrow(2, 8, 24).sum(Kind::Double).double_value(&[]), 0.0);
        assert_eq!(valid.sum(Kind::Double).double_value(&[]), 4.0 * (48.0 * 32.0 - 24.0));
    }
}

#[test]
fn the_truth_is_unknown_beyond_a_black_border() {
    let folder = Folder::davis(1);
    let turned = PLAIN.replace("rotated = 0.0", "rotated = 1.0\nrotation = 30.0");
    let black = turned.clone() + "border = \"black\"\n";
    let (mut unknown, mut count) = (0.0, 0.0);
    for [images, _, valid] in clips(&open(&(folder.source("davis", "") + &black)).unwrap(), 4) {
        let beyond = valid.narrow(3, 0, 8).eq(0.0).to_kind(Kind::Float);
        unknown += beyond.sum(Kind::Double).double_value(&[]);
        count += (images.narrow(3, 0, 8).amax([1i64], true) * beyond).max().double_value(&[]);
    }
    assert!(unknown > 0.0 && count == 0.0, "{unknown} pixels, black: {count}");
    let mirrored = clips(&open(&(folder.source("davis", "") + &turned)).unwrap(), 4);
    // Left of the void and above it there is nothing unknown.
    let known = |valid: &Tensor| valid.narrow(3, 0, 8).min().double_value(&[]) == 1.0;
    assert!(mirrored.iter().all(|[_, _, valid]| known(valid)), "the mirror image has its mask");
}

#[test]
fn windows_are_frames_in_a_row_of_one_sequence() {
    let folder = Folder::davis(3);
    let steps = PLAIN
        .replace("frame_steps = [1]", "frame_steps = [1, 3]")
        .replace("reversed = 0.0", "reversed = 0.5");
    let mix = open(&(folder.source("davis", "") + &steps)).unwrap();
    let (mut ways, mut sequences, mut references) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for [images, ..] in clips(&mix, 20) {
        let at: Vec<(i64, i64)> = (0..4).map(|frame| told(&images.get(frame))).collect();
        assert!(at.iter().all(|(sequence, _)| *sequence == at[0].0), "{at:?}");
        assert_eq!(at[2].1 - at[1].1, at[3].1 - at[2].1, "{at:?}");
        ways.insert(at[2].1 - at[1].1);
        sequences.insert(at[0].0);
        references.insert(at[0].1);
    }
    assert_eq!(ways, [-3, -1, 1, 3].into());
    assert_eq!(sequences, [0, 1, 2].into());
    assert!(references.len() > 7, "from the whole sequence: {references:?}");
}

#[test]
fn an_object_is_a_target_only_where_meta_json_has_it() {
    let folder = Folder::youtube(true);
    let mix = open(&(folder.source("youtube", "") + PLAIN)).unwrap();
    let mut late = 0;
    for [images, masks, _] in clips(&mix, 20) {
        let at: Vec<(i64, i64)> = (0..4).map(|frame| told(&images.get(frame))).collect();
        assert!(at[1..].windows(2).all(|pair| pair[1] == (pair[0].0, pair[0].1 + 1)), "{at:?}");
        if at[0].0 == 1 && target(&images, &masks, 0) == (false, true) {
            late += 1;
            assert!(at.iter().all(|(_, frame)| *frame >= 3), "{at:?}");
        }
    }
    assert!(late > 5, "{late}");
}

#[test]
fn youtube_vos_without_its_list_is_an_error_or_davis() {
    let folder = Folder::youtube(false);
    let error = message(&folder.source("youtube", "layout = \"youtube-vos\""));
    assert!(error.contains("meta.json") && error.contains("layout = \"davis\""), "{error}");
    assert!(open(&folder.source("youtube", "")).is_ok(), "the masks tell the objects");
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
        clips(&mix, 8).iter().map(|[images, ..]| told(&images.get(0)).0).collect()
    };
    assert_eq!(sequences("exclude = [\"s1\"]"), [0, 2].into());
    fs::write(folder.path("mine.txt"), "s2\n").unwrap();
    assert_eq!(sequences(&format!("split = {:?}", folder.path("mine.txt"))), [2].into());
    let lists = folder.path("ImageSets/2017");
    fs::create_dir_all(&lists).unwrap();
    fs::write(lists.join("val.txt"), "s0\n").unwrap();
    fs::write(lists.join("train.txt"), "s1\n").unwrap();
    assert_eq!(sequences(""), [1].into(), "the list for training, not that for validation");
    let error = message(&folder.source("davis", "exclude = [\"s7\"]"));
    assert!(error.contains("s7") && error.contains("exclude"), "{error}");
}

/// Three broken frames: no JPEG, no PNG, a mask of another size.
fn with_broken_files() -> Folder {
    let folder = Folder::davis(2);
    fs::write(folder.path("JPEGImages/480p/s0/00001.jpg"), "no picture").unwrap();
    fs::write(folder.path("Annotations/480p/s0/00005.png"), "no mask").unwrap();
    let small = LabelMap::new(2, 2, vec![1, 1, 2, 2]).unwrap();
    indexed_png::write(&folder.path("Annotations/480p/s1/00005.png"), &small).unwrap();
    folder
}

#[test]
fn broken_files_are_left_out() {
    let folder = with_broken_files();
    for preload in ["", "preload = true"] {
        let mix =
            open(&("broken_limit = 3\n".to_owned() + &folder.source("davis", preload) + PLAIN)).unwrap();
        for [images, ..] in clips(&mix, 25) {
            let shown: Vec<_> = (0..4).map(|frame| told(&images.get(frame))).collect();
            let whole = shown.iter().all(|at| ![(0, 1), (0, 5), (1, 5)].contains(at));
            assert!(whole, "{shown:?}");
        }
    }
}

#[test]
fn one_broken_file_too_many_ends_the_run() {
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
    indexed_png::write(&folder.path("Annotations/p2.png"), &small).unwrap();
    fs::remove_file(folder.path("Annotations/p3.png")).unwrap();
    let source = folder.source("photos", "");
    assert!(open(&format!("broken_limit = 2\n{source}")).unwrap().batch(0).is_ok());
    let error = message(&format!("broken_limit = 1\n{source}"));
    assert!(error.contains("p1.jpg") || error.contains("p2.png"), "{error}");
}

#[test]
fn a_step_has_the_same_clips_whoever_makes_them() {
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
    // Video is told by its sequence; clips of stills have no void.
    let mut counts = [0; 3];
    for [images, _, valid] in clips(&open(&(text + PLAIN)).unwrap(), 100) {
        let made = valid.min().double_value(&[]) == 1.0;
        counts[if made { 2 } else { told(&images.get(1)).0 as usize }] += 1;
    }
    // Of 400 clips, four standard deviations.
    assert!((200..=280).contains(&counts[0]), "{counts:?}");
    assert!((48..=112).contains(&counts[1]) && (48..=112).contains(&counts[2]), "{counts:?}");
}

#[test]
fn light_leaves_masks_alone() {
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
fn moving_blurred_bent_objects_have_soft_masks_in_range() {
    let folder = Folder::photos(3, "Labels");
    let all = "[synthetic]\nthin_plate = 1.0\nmotion_blur = 1.0\nlighting = 1.0\nshadow = 1.0\nsecond_object = 1.0\n";
    for [images, masks, valid] in clips(&open(&(folder.source("stills", "") + all)).unwrap(), 4) {
        for x in [&images, &masks] {
            let (least, most) = (x.min().double_value(&[]), x.max().double_value(&[]));
            assert!(least >= -1e-5 && most <= 1.0 + 1e-5 && most > 0.2, "{least} {most}");
        }
        assert_eq!(valid.min().double_value(&[]), 1.0, "the truth of what is made here is known");
    }
}

#[test]
fn the_previous_mask_can_be_the_truth() {
    let folder = Folder::davis(1);
    let text = folder.source("davis", "") + PLAIN;
    let batch = open(&(text.clone() + "[perturbation]\nstrength = 0.0\n")).unwrap().batch(0).unwrap();
    assert!(batch.previous.equal(&batch.masks.get(1)));
    let batch = open(&text).unwrap().batch(0).unwrap();
    assert!(!batch.previous.equal(&batch.masks.get(1)));
}

#[test]
fn a_picture_of_another_shape_can_be_stretched() {
    let folder = Folder::davis(1);
    let text = folder.source("davis", "") + PLAIN;
    let wide = "window = 2\nbatch = 4\nsize = [64, 48]\n";
    let of = |more: &str| {
        let data: Data = toml::from_str(&format!("{wide}{text}{more}")).unwrap();
        let mix = Mix::open(&data, 1).unwrap();
        area(&mix.batch(0).unwrap().masks.get(0))
    };
    assert_eq!(of("fit = \"stretch\"\n"), 4.0 * 2.0 * 192.0, "twice as high");
    let text = text.replace("follow = false", "follow = true");
    let data: Data = toml::from_str(&format!("{wide}{text}")).unwrap();
    let covered = area(&Mix::open(&data, 1).unwrap().batch(0).unwrap().masks.get(0));
    let whole = 4.0 * 4.0 * 192.0;
    assert!(covered > 0.8 * whole && covered <= whole, "twice as large, and nearly all in view: {covered}");
}

#[test]
fn clips_take_the_shapes_that_are_listed() {
    let (video, stills) = (Folder::davis(2), Folder::photos(2, "Labels"));
    let sources = video.source("a", "") + &stills.source("b", "");
    let shapes = [[32, 48], [48, 32], [48, 48]];
    let close_ups = "[augment]\nclose_ups = 1.0\n";
    let mix = open(&format!("shapes = {shapes:?}\n{sources}{close_ups}")).unwrap();
    let mut seen = BTreeSet::new();
    for step in 0..12 {
        let batch = mix.batch(step).unwrap();
        let size = &batch.images.size()[3..];
        assert!(shapes.iter().any(|shape| shape == size) && batch.previous.size()[2..] == *size);
        for frame in 0..2 {
            let least = (0..4).map(|clip| area(&batch.masks.get(frame).get(clip))).fold(f64::MAX, f64::min);
            assert!(least > 0.0, "step {step}, {size:?}: no object in frame {frame}");
        }
        seen.insert(size.to_vec());
        assert!(same(&batch, &mix.batch(step).unwrap()));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let plain = open(&(sources.clone() + close_ups)).unwrap().batch(3).unwrap();
    let one = open(&format!("shapes = [[32, 48]]\n{sources}{close_ups}")).unwrap().batch(3).unwrap();
    assert!(same(&plain, &one), "a list of one shape is that shape");
}

#[test]
fn close_ups_show_all_of_an_object_in_any_shape() {
    let folder = Folder::davis(2);
    for shape in [[32, 48], [48, 32], [48, 48]] {
        let plain = PLAIN.replace("[augment]", "[augment]\nclose_ups = 1.0");
        let text = format!("shapes = [{shape:?}]\n{}{plain}", folder.source("a", ""));
        for [_, masks, _] in clips(&open(&text).unwrap(), 6) {
            // 12 x 16 of 48 x 32 pixels, at the least as large as where the whole picture is as large as the clip.
            let even = f64::from(shape[0] * shape[1]) / (48.0 * 32.0);
            assert!(area(&masks.get(0)) > 0.55 * 192.0 * even, "{shape:?}: {}", area(&masks.get(0)));
        }
    }
}

#[test]
fn intruders_hide_objects_or_are_hidden_by_them() {
    let (video, stills) = (Folder::davis(2), Folder::photos(3, "Annotations"));
    let sources = video.source("a", "") + &stills.source("b", "ratio = 1e-6");
    let with = |distractor: f64, late_distractor: f64| {
        let plain = PLAIN.replace("[augment]", &format!("[augment]\ndistractor = {distractor:.1}"));
        clips(
            &open(&format!("{sources}{plain}[synthetic]\nlate_distractor = {late_distractor:.1}\n")).unwrap(),
            8,
        )
    };
    let (without, with, later) = (with(0.0, 0.0), with(1.0, 0.0), with(1.0, 1.0));
    let (mut hidden, mut behind) = (0, 0);
    for ([images, masks, valid], [changed, left, same_valid]) in without.iter().zip(&with) {
        assert!(valid.equal(same_valid));
        assert!((masks - left).min().double_value(&[]) >= -1e-5, "a distractor is no part of the object");
        let object = masks.gt(0.999).logical_and(&left.gt(0.999)).to_kind(Kind::Float);
        let difference = ((images - changed) * &object).abs().max().double_value(&[]);
        assert!(difference < 2e-3, "what is left of the object looks as before: {difference}");
        hidden += i32::from(!masks.equal(left));
        behind += i32::from(masks.equal(left) && !images.equal(changed));
    }
    assert!(hidden > 4 && behind > 4, "{hidden} in front, {behind} behind of {}", with.len());
    for ([images, ..], [changed, ..]) in without.iter().zip(&later) {
        assert!(images.get(0).equal(&changed.get(0)), "the reference is without it");
    }
    assert!(without.iter().zip(&later).any(|(a, b)| !a[0].get(1).equal(&b[0].get(1))));
}

#[test]
fn newcomers_are_not_in_the_reference() {
    let folder = Folder::photos(3, "Annotations");
    let with = |second: f64, late_distractor: f64| {
        let text =
            format!("[synthetic]\nsecond_object = {second:.1}\nlate_distractor = {late_distractor:.1}\n");
        clips(&open(&(folder.source("stills", "") + &text)).unwrap(), 6)
    };
    let of = |clips: &[[Tensor; 3]], frame: i64| -> Vec<Tensor> {
        clips.iter().map(|[_, masks, _]| masks.get(frame)).collect()
    };
    let (always, later) = (with(1.0, 0.0), with(1.0, 1.0));
    assert_eq!(always.len(), later.len());
    // The object is the same, and whole in the reference; later it is hidden as often as ever.
    let whole = |masks: &[Tensor]| masks.iter().map(area).sum::<f64>();
    assert!(whole(&of(&later, 0)) > whole(&of(&always, 0)));
    assert!(whole(&of(&later, 1)) < whole(&of(&later, 0)));
}

#[test]
fn the_papers_augmentation_can_be_said() {
    let text = r#"
[sources.youtube]
kind = "video"
layout = "youtube-vos"
path = "data/youtube-vos/train"

[augment]
flip = 0.5
scale = [0.75, 1.25]
rotated = 1.0
rotation = 30.0
shift = 0.0
shear = 0.0
follow = false
colour = 0.0
fit = "stretch"
border = "black"
reversed = 0.0
frame_steps = [1]
first_reference = 0.0
reference = "independent"
"#;
    data(text);
}

#[test]
fn values_out_of_range_are_named() {
    let folder = Folder::davis(1);
    let fault = |text: String| -> String {
        let text = format!("window = 2\nbatch = 4\nsize = [32, 48]\n{text}");
        toml::from_str::<Data>(&text).unwrap().check().unwrap_err()
    };
    let source = |more: &str| folder.source("a", more);
    assert!(fault(source("ratio = -1.0")).contains("data.sources.a.ratio"));
    assert!(fault(source("ratio = 0.0")).contains("ratio"));
    assert!(fault(source("size = [0, 4]")).contains("data.sources.a.size"));
    assert!(fault("[sources]\n".into()).contains("data.sources"));
    assert!(fault("shapes = [[32, 40]]\n".to_owned() + &source("")).contains("data.shapes"));
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
        let error = fault(source("") + &format!("[{section}]\n{text}\n"));
        assert!(error.contains(&format!("data.{key}")), "{error}");
    }
    let stills = source("preload = true").replace("\"video\"", "\"stills\"");
    assert!(fault(stills).contains("kind = \"video\""));
}

#[test]
fn folders_of_nothing_are_named() {
    let folder = Folder::new();
    let stills = format!("[sources.x]\nkind = \"stills\"\npath = {:?}\n", folder.0.path());
    assert!(message(&stills).contains("neither Annotations nor Labels"));
    let gone = stills.replace("stills", "video").replace("path = \"", "path = \"/nonexistent");
    assert!(message(&gone).contains("/nonexistent"));
}
