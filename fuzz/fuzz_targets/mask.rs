// SPDX-License-Identifier: MPL-2.0

//! Decoding a mask from any bytes gives a valid mask or an error.

#![no_main]

use std::path::Path;

use gstfastganseg::mask::ReferenceMask;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mask) = ReferenceMask::from_bytes(bytes, Path::new("fuzz")) {
        assert!(!mask.objects().is_empty());
        for object in mask.objects() {
            assert_eq!(object.alpha.len(), mask.width() * mask.height());
            assert!(object.alpha.iter().any(|&alpha| alpha > 0));
            assert!((1..=254).contains(&object.id));
        }
    }
});
