// SPDX-License-Identifier: MPL-2.0

//! Random property changes from several threads while the pipeline changes state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glib::ParamSpec;
use gst::prelude::*;
use gstreamer as gst;

use crate::random::Random;
use crate::stress::{self, Watched, launches};
use crate::util::*;
use crate::watchdog;

const CHANGES: usize = 800;

/// Writable properties of this element that are mutable while playing. Others may make a start fail; inherited ones
/// such as `name` and `parent` are left out.
fn properties(element: &gst::Element) -> Vec<ParamSpec> {
    element
        .list_properties()
        .iter()
        .filter(|pspec| pspec.owner_type() == element.type_())
        .filter(|pspec| pspec.flags().contains(glib::ParamFlags::WRITABLE))
        .filter(|pspec| pspec.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING))
        .cloned()
        .collect()
}

/// Returns a random value in a property's range; `None` for types without random values, such as strings.
fn value(pspec: &ParamSpec, random: &mut Random) -> Option<glib::Value> {
    fn integer(random: &mut Random, min: i128, max: i128) -> i128 {
        let small = |random: &mut Random| random.below(20) as i128;
        match random.below(4) {
            0 => min,
            1 => max,
            2 => (min + small(random)).min(max),
            _ => min + (random.unit() * (max - min) as f64) as i128,
        }
        .clamp(min, max)
    }
    if pspec.downcast_ref::<glib::ParamSpecBoolean>().is_some() {
        return Some(random.one_in(2).to_value());
    }
    if let Some(pspec) = pspec.downcast_ref::<glib::ParamSpecUInt>() {
        return Some((integer(random, pspec.minimum().into(), pspec.maximum().into()) as u32).to_value());
    }
    if let Some(pspec) = pspec.downcast_ref::<glib::ParamSpecInt>() {
        return Some((integer(random, pspec.minimum().into(), pspec.maximum().into()) as i32).to_value());
    }
    if let Some(pspec) = pspec.downcast_ref::<glib::ParamSpecUInt64>() {
        return Some((integer(random, pspec.minimum().into(), pspec.maximum().into()) as u64).to_value());
    }
    if let Some(pspec) = pspec.downcast_ref::<glib::ParamSpecInt64>() {
        return Some((integer(random, pspec.minimum().into(), pspec.maximum().into()) as i64).to_value());
    }
    if let Some(pspec) = pspec.downcast_ref::<glib::ParamSpecDouble>() {
        let (min, max) = (pspec.minimum(), pspec.maximum());
        return Some((min + random.unit() * (max - min)).clamp(min, max).to_value());
    }
    if let Some(pspec) = pspec.downcast_ref::<glib::ParamSpecFloat>() {
        let (min, max) = (pspec.minimum(), pspec.maximum());
        return Some((min + random.unit() as f32 * (max - min)).clamp(min, max).to_value());
    }
    let class = glib::EnumClass::with_type(pspec.value_type())?;
    let value = random.pick(class.values());
    class.to_value(value.value())
}

#[test]
fn any_property_at_any_time_from_any_thread() {
    watchdog::ends(|| {
        let (files, mask) = mask_file(disc);
        let masks: Vec<String> = [
            &mask,
            &files.mask("other.png", (96, 64), ramp),
            &files.png("ids.png", (3, 1), png::ColorType::Indexed, png::BitDepth::Eight, &[0, 1, 2]),
        ]
        .iter()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
        for (index, launch) in launches(&mask).iter().enumerate() {
            let watched = Watched::new(launch);
            let element = watched.pipeline.by_name("f").unwrap();
            let pspecs = properties(&element);
            let names: Vec<&str> = pspecs.iter().map(|pspec| pspec.name()).collect();
            println!("{names:?}");
            assert!(names.contains(&"threshold") && names.contains(&"output"));
            let over = Arc::new(AtomicBool::new(false));
            let threads: Vec<_> = (0..3)
                .map(|thread| {
                    let (element, pspecs, masks) = (element.clone(), pspecs.clone(), masks.clone());
                    let mut random = Random::new(40 + 10 * index as u64 + thread);
                    std::thread::spawn(move || {
                        for _ in 0..CHANGES {
                            let pspec = random.pick(&pspecs);
                            if let Some(value) = value(pspec, &mut random) {
                                element.set_property_from_value(pspec.name(), &value);
                            } else if pspec.name() == "ref-mask" && random.one_in(10) {
                                element.set_property("ref-mask", random.pick(&masks));
                            }
                            for pspec in element.list_properties().iter().filter(|_| random.one_in(10)) {
                                let _ = element.property_value(pspec.name());
                            }
                        }
                    })
                })
                .collect();
            let stopper = {
                let (pipeline, over) = (watched.pipeline.clone(), over.clone());
                let mut random = Random::new(40 + 10 * index as u64 + 9);
                std::thread::spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        let states =
                            [gst::State::Playing, gst::State::Playing, gst::State::Paused, gst::State::Ready];
                        pipeline.set_state(*random.pick(&states)).unwrap();
                        if random.one_in(2) {
                            stress::settle(&pipeline);
                        }
                    }
                })
            };
            for thread in threads {
                thread.join().unwrap();
            }
            over.store(true, Ordering::SeqCst);
            stopper.join().unwrap();
            watched.assert_no_errors(launch);
            watched.pipeline.set_state(gst::State::Playing).unwrap();
            stress::settle(&watched.pipeline);
            watched.pipeline.set_state(gst::State::Null).unwrap();
            watched.assert_no_errors(launch);
        }
    });
}
