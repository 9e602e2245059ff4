// SPDX-License-Identifier: MPL-2.0

//! Action signals.

use std::sync::LazyLock;

use glib::prelude::*;
use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gstreamer as gst;

use super::FastGanSeg;

pub fn signals() -> &'static [Signal] {
    static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(|| {
        vec![
            // Arguments: mask, and the image that it belongs to or NULL. Returns whether the mask is accepted.
            Signal::builder("set-reference")
                .action()
                .run_last()
                .param_types([gst::Sample::static_type(), gst::Sample::static_type()])
                .return_type::<bool>()
                .class_handler(|values| {
                    let sample = |index: usize| values.get(index)?.get::<Option<gst::Sample>>().ok()?;
                    let accepted = element(values)
                        .is_some_and(|element| element.imp().give_reference(sample(1), sample(2)));
                    Some(accepted.to_value())
                })
                .build(),
            // Restarts tracking from the reference at the next buffer, and removes the references of other streams.
            Signal::builder("reset")
                .action()
                .run_last()
                .class_handler(|values| {
                    if let Some(element) = element(values) {
                        element.imp().reset();
                    }
                    None
                })
                .build(),
        ]
    });
    &SIGNALS
}

fn element(values: &[glib::Value]) -> Option<FastGanSeg> {
    values.first()?.get().ok()
}
