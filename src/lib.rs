//! Cuts any object out of live video from one mask in one frame.

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
pub mod model;
mod threads;
pub mod tracker;

pub use error::{Error, Result};

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
