// SPDX-License-Identifier: MPL-2.0

//! Messages about an object that is covered for some frames.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::VideoFormat;

use crate::util::*;

const WIDTH: usize = 480;
const HEIGHT: usize = 270;
const COVERED: std::ops::Range<u64> = 4..12;

fn inside(x: usize, y: usize) -> u8 {
    if (x as f64 - 200.0).hypot(y as f64 - 130.0) < 45.0 { 255 } else { 0 }
}

/// A striped orange disk on a textured green background, or a grey frame; RGB.
fn picture(number: u64) -> gst::Buffer {
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        if COVERED.contains(&number) {
            [128; 3]
        } else if inside(x, y) == 255 {
            if x / 9 % 2 == 0 { [235, 140, 30] } else { [190, 90, 20] }
        } else {
            let shade = ((x / 23 * 31 + y / 17 * 57) % 40) as u8;
            [40 + shade, 95 + shade, 50 + shade / 2]
        }
    };
    let data: Vec<u8> = (0..WIDTH * HEIGHT).flat_map(pixel).collect();
    let mut buffer = gst::Buffer::from_mut_slice(data);
    stamp(&mut buffer, number);
    buffer
}

/// Id and (x, y, width, height) of each region of interest.
fn regions(buffer: &gst::BufferRef) -> Vec<(i32, (u32, u32, u32, u32))> {
    let regions = buffer.iter_meta::<gstreamer_video::VideoRegionOfInterestMeta>();
    regions
        .filter(|region| region.roi_type() == "fastganseg")
        .map(|region| (region.id(), region.rect()))
        .collect()
}

#[test]
fn present_objects_have_a_region_of_interest() {
    let files = Files::new();
    let element = with_mask(&files.mask("mask.png", (WIDTH, HEIGHT), inside));
    let info = info(VideoFormat::Rgb, WIDTH as u32, HEIGHT as u32);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    harness.push(picture(0)).unwrap();
    assert!(regions(&harness.pull().unwrap()).is_empty(), "off by default");
    element.set_property("roi-meta", true);
    for number in 1..9 {
        if number == 2 {
            // The reference frame itself.
            element.set_property("ref-mask", files.path("mask.png").to_str().unwrap());
        }
        harness.push(picture(number)).unwrap();
        let regions = regions(&harness.pull().unwrap());
        if number >= COVERED.start + 2 {
            assert!(regions.is_empty(), "frame {number}: {regions:?}");
        } else if number < COVERED.start {
            let &[(1, (x, y, width, height))] = &regions[..] else { panic!("frame {number}: {regions:?}") };
            let near = |a: u32, b: u32| a.abs_diff(b) <= 8;
            assert!(near(x, 155) && near(y, 85) && near(width, 90) && near(height, 90), "{regions:?}");
        }
    }
}

/// Held frames had the boxes and the mask of the size before.
#[test]
fn frames_of_another_size_are_not_held() {
    let files = Files::new();
    let element = with_mask(&files.mask("mask.png", (WIDTH, HEIGHT), inside));
    element.set_property("inference-interval", 30u32);
    let (large, small) =
        (info(VideoFormat::Rgb, WIDTH as u32, HEIGHT as u32), info(VideoFormat::Rgb, 96, 64));
    let mut harness = harness(&element, &large.to_caps().unwrap());
    for number in 0..2 {
        harness.push(picture(number)).unwrap();
    }
    assert_eq!(count(&element, "held"), 1);
    harness.set_src_caps(small.to_caps().unwrap());
    harness.push(frame(&small, 2)).unwrap();
    assert_eq!(count(&element, "held"), 1);
    harness.push(frame(&small, 3)).unwrap();
    assert_eq!(count(&element, "held"), 2);
}

#[cfg(feature = "v1_24")]
#[test]
fn present_objects_are_object_detections() {
    use gstreamer_analytics::prelude::*;
    use gstreamer_analytics::{AnalyticsODMtd, AnalyticsRelationMeta};

    let files = Files::new();
    let element = with_mask(&files.mask("mask.png", (WIDTH, HEIGHT), inside));
    let info = info(VideoFormat::Rgb, WIDTH as u32, HEIGHT as u32);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    harness.push(picture(0)).unwrap();
    assert!(harness.pull().unwrap().meta::<AnalyticsRelationMeta>().is_none(), "off by default");
    element.set_property("roi-meta", true);
    for number in 1..9 {
        let mut picture = picture(number);
        let detected_upstream = number == 2;
        if detected_upstream {
            let mut meta = AnalyticsRelationMeta::add(picture.get_mut().unwrap());
            meta.add_od_mtd(glib::Quark::from_str("dog"), 1, 2, 3, 4, 0.5).unwrap();
        }
        harness.push(picture).unwrap();
        let buffer = harness.pull().unwrap();
        let mut kinds = Vec::new();
        if let Some(meta) = buffer.meta::<AnalyticsRelationMeta>() {
            for detection in meta.iter::<AnalyticsODMtd>() {
                kinds.push(detection.obj_type().unwrap().as_str().to_owned());
                if kinds.last().unwrap() == "object-1" {
                    let at = detection.location().unwrap();
                    let near = |a: i32, b: i32| (a - b).abs() <= 8;
                    assert!(near(at.x, 155) && near(at.y, 85) && near(at.w, 90) && near(at.h, 90), "{at:?}");
                    assert!(at.loc_conf_lvl > 0.3 && at.loc_conf_lvl <= 1.0, "{at:?}");
                }
            }
        }
        if number >= COVERED.start + 2 {
            assert!(kinds.is_empty(), "frame {number}: {kinds:?}");
        } else if number < COVERED.start {
            let expected: &[&str] = if detected_upstream { &["dog", "object-1"] } else { &["object-1"] };
            assert_eq!(kinds, expected, "frame {number}");
        }
    }
}

#[test]
fn a_covered_object_is_announced_as_lost_and_recovered() {
    let files = Files::new();
    let element = with_mask(&files.mask("mask.png", (WIDTH, HEIGHT), inside));
    let bus = bus(&element);
    let info = info(VideoFormat::Rgb, WIDTH as u32, HEIGHT as u32);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    let truth: Vec<u8> = (0..WIDTH * HEIGHT).map(|i| inside(i % WIDTH, i / WIDTH)).collect();
    for number in 0..18 {
        harness.push(picture(number)).unwrap();
        let alpha = alpha(&harness.pull().unwrap(), &src_info(&harness));
        let count = |f: &dyn Fn(u8, u8) -> bool| alpha.iter().zip(&truth).filter(|&(&a, &b)| f(a, b)).count();
        if COVERED.contains(&number) {
            assert_eq!(count(&|a, _| a > 127), 0, "frame {number}: the object is covered");
        } else if number != COVERED.end {
            let (both, either) = (count(&|a, b| a > 127 && b > 127), count(&|a, b| a > 127 || b > 127));
            assert!(both as f64 > 0.8 * either as f64, "frame {number}: {both} of {either}");
        }
        let state = if (COVERED.start + 2..COVERED.end).contains(&number) { "lost" } else { "other" };
        assert_eq!(reference_state(&element) == "lost", state == "lost", "frame {number}");
    }
    let expected = ["armed", "seeded", "lost 1", "lost", "recovered 1", "recovered"];
    assert_eq!([(); 6].map(|()| next_message(&bus)), expected);
    assert_no_messages(&bus);
}
