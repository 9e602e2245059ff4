// SPDX-License-Identifier: MPL-2.0

//! Decoding a picture from any bytes gives a valid picture or an error.

#![no_main]

use std::path::Path;

use gstfastganseg::image::OwnedPicture;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = OwnedPicture::from_bytes(bytes, Path::new("fuzz")) {
        let view = picture.as_picture();
        assert!(view.width > 0 && view.height > 0);
        assert_eq!(view.data.len(), 3 * view.width * view.height);
    }
});
