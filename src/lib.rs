// SPDX-License-Identifier: MPL-2.0

//! Segments any object of a video, given one mask of it in one frame.
//!
//! The crate is a GStreamer plugin with the element [`fastganseg`](element). Applications link it and call
//! [`element::register_static`], or load the plugin. Without the default feature `plugin` it is a library that does not
//! depend on GStreamer:
//!
//! ```
//! use gstfastganseg::image::{Picture, PlaneMut};
//! use gstfastganseg::mask::ReferenceMask;
//! use gstfastganseg::tracker::{Options, Tracker};
//!
//! # fn main() -> gstfastganseg::Result<()> {
//! let (width, height) = (96, 64);
//! // Packed RGB: a bright square on a dark ground.
//! let inside = |i: usize| (30..60).contains(&(i % width)) && (20..44).contains(&(i / width));
//! let pixels: Vec<u8> = (0..width * height).flat_map(|i| [if inside(i) { 230 } else { 40 }; 3]).collect();
//! let mut frame = Picture { data: &pixels, width, height, stride: 3 * width };
//! let alpha = (0..width * height).map(|i| if inside(i) { 255 } else { 0 }).collect();
//!
//! let mut tracker = Tracker::new(&Options::default())?;
//! tracker.set_reference(&mut frame, &ReferenceMask::from_soft(width, height, alpha)?)?;
//! // Call this for every later frame.
//! let matte = tracker.step(&mut frame)?;
//!
//! let mut alpha = vec![0; width * height];
//! // None: all objects together.
//! matte.write_alpha(None, &mut PlaneMut { data: &mut alpha, width, height, stride: width })?;
//! assert!(alpha[32 * width + 45] > 127 && alpha[0] < 128);
//! # Ok(())
//! # }
//! ```
//!
//! [`tracker`] follows objects, [`matte`] turns its masks into alpha, [`mask`] and [`image`] read files. [`torch`] is
//! for training: only there do tensors appear.

// Public for `torch`, which documents them.
#[doc(hidden)]
pub mod cuda;
pub mod device;
#[cfg(feature = "plugin")]
pub mod element;
mod error;
mod gpu;
pub mod image;
mod malloc;
pub mod mask;
pub mod matte;
#[doc(hidden)]
pub mod model;
mod team;
mod threads;
pub mod tracker;

pub use error::{Error, Result};

/// The networks and their weights, for training and measurements. The API uses types of the crate `tch`.
pub mod torch {
    #[doc(inline)]
    pub use crate::cuda;
    use crate::device::{self, DeviceChoice, Precision};
    #[doc(inline)]
    pub use crate::model;

    /// Opens a device. Also returns the reason if `auto` selected the CPU.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the CUDA device of `choice` is not available.
    pub fn open_device(choice: DeviceChoice) -> crate::Result<(tch::Device, Option<String>)> {
        device::open(choice)
    }

    /// Returns the tensor kind of a precision on a device.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for float16 on the CPU.
    pub fn kind(precision: Precision, device: tch::Device) -> crate::Result<tch::Kind> {
        precision.kind(device)
    }
}

#[cfg(feature = "plugin")]
mod plugin {
    use gstreamer as gst;

    fn init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
        crate::element::register(plugin)
    }

    gst::plugin_define!(
        fastganseg,
        env!("CARGO_PKG_DESCRIPTION"),
        init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MPL-2.0",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("BUILD_REL_DATE")
    );
}
