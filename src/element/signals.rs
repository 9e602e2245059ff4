// SPDX-License-Identifier: MPL-2.0

//! Action signals.

use std::sync::LazyLock;

use glib::prelude::*;
use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gstreamer as gst;

use super::FastGanSeg;
use super::stream::Host;
use crate::model::prompt::{Point, Rect};

/// A signal that gives a reference.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReferenceSignal {
    /// `set-reference`: tracking starts anew.
    Set,
    /// `add-reference`: earlier references stay in use.
    Add,
}

impl ReferenceSignal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Set => "set-reference",
            Self::Add => "add-reference",
        }
    }
}

pub fn signals() -> &'static [Signal] {
    static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(|| {
        vec![
            reference_signal(ReferenceSignal::Set),
            reference_signal(ReferenceSignal::Add),
            // Arguments: x, y, width, height in pixels of the next buffer.
            Signal::builder("select-box")
                .action()
                .run_last()
                .param_types([f64::static_type(); 4])
                .class_handler(|values| {
                    let [x, y, width, height] = [1, 2, 3, 4].map(|index| number(values, index));
                    element(values)?.imp().shared().request_more(Some(Rect { x, y, width, height }), None);
                    None
                })
                .build(),
            // Arguments: x, y in pixels of the next buffer; whether the point is on the object.
            Signal::builder("select-point")
                .action()
                .run_last()
                .param_types([f64::static_type(), f64::static_type(), bool::static_type()])
                .class_handler(|values| {
                    let [x, y] = [1, 2].map(|index| number(values, index));
                    let positive = values.get(3).is_some_and(|value| value.get() == Ok(true));
                    element(values)?.imp().shared().request_more(None, Some(Point { x, y, positive }));
                    None
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

/// Arguments: mask, and the image that it belongs to or NULL. Returns whether the mask is accepted.
fn reference_signal(signal: ReferenceSignal) -> Signal {
    Signal::builder(signal.name())
        .action()
        .run_last()
        .param_types([gst::Sample::static_type(), gst::Sample::static_type()])
        .return_type::<bool>()
        .class_handler(move |values| {
            let sample = |index: usize| values.get(index)?.get::<Option<gst::Sample>>().ok()?;
            let accepted = element(values)
                .is_some_and(|element| element.imp().give_reference(signal, sample(1), sample(2)));
            Some(accepted.to_value())
        })
        .build()
}

fn element(values: &[glib::Value]) -> Option<FastGanSeg> {
    values.first()?.get().ok()
}

fn number(values: &[glib::Value], index: usize) -> f64 {
    values.get(index).and_then(|value| value.get().ok()).unwrap_or(f64::NAN)
}
