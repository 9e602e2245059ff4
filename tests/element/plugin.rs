// SPDX-License-Identifier: MPL-2.0

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::util::*;

/// Path of the plugin built with this test, copied into a folder of its own.
pub fn path() -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let name = format!("{DLL_PREFIX}gstfastganseg{DLL_SUFFIX}");
    // It lies beside target/debug/deps/element-…, among libraries that GStreamer should not load.
    let built = std::env::current_exe().unwrap().with_file_name(&name);
    assert!(built.exists(), "{} does not exist: run cargo test, which builds it", built.display());
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
        std::fs::create_dir_all(&folder).unwrap();
        // Rename atomically: another process may be reading the file.
        let part = folder.join(format!("{}.part", std::process::id()));
        std::fs::copy(&built, &part).unwrap();
        std::fs::rename(&part, folder.join(&name)).unwrap();
        folder
    });
    folder.join(name)
}

#[test]
fn gst_inspect_shows_every_property() {
    let plugin = path();
    let files = Files::new();
    let output = Command::new("gst-inspect-1.0")
        .arg("fastganseg")
        .env("GST_REGISTRY", files.path("registry.bin"))
        .env("GST_PLUGIN_PATH", plugin.parent().unwrap())
        .env_remove("LD_LIBRARY_PATH")
        .output();
    let Ok(output) = output else { return skip("gst-inspect-1.0 is not installed") };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Filter/Effect/Video") && text.contains("MPL-2.0") && text.contains("none (0)"));
    for (name, flags) in [
        ("ref-mask", "changeable in NULL, READY, PAUSED or PLAYING state"),
        ("ref-image", "changeable in NULL, READY, PAUSED or PLAYING state"),
        ("model-file", "changeable only in NULL or READY state"),
        ("device", "changeable only in NULL or READY state"),
        ("active-device", "readable"),
        ("precision", "changeable only in NULL or READY state"),
        ("output", "changeable in NULL, READY, PAUSED or PLAYING state"),
        ("object", "controllable, changeable in NULL, READY, PAUSED or PLAYING state"),
        ("threshold", "controllable, changeable in NULL, READY, PAUSED or PLAYING state"),
        ("invert", "controllable, changeable in NULL, READY, PAUSED or PLAYING state"),
        ("feather", "controllable, changeable in NULL, READY, PAUSED or PLAYING state"),
        ("expand", "controllable, changeable in NULL, READY, PAUSED or PLAYING state"),
        ("edges", "changeable in NULL, READY, PAUSED or PLAYING state"),
        ("roi", "changeable only in NULL or READY state"),
        ("network-width", "changeable only in NULL or READY state"),
        ("network-height", "changeable only in NULL or READY state"),
        ("threads", "changeable only in NULL or READY state"),
        ("inference-interval", "controllable, changeable in NULL, READY, PAUSED or PLAYING state"),
        ("late-policy", "changeable in NULL, READY, PAUSED or PLAYING state"),
        ("stats", "readable"),
    ] {
        let line = format!("  {name:<20}: ");
        let (_, after) = text.split_once(&line).unwrap_or_else(|| panic!("no {name} in {text}"));
        let mut lines = after.lines();
        assert!(lines.next().unwrap().len() > 20, "{name} has no blurb");
        let found = lines.next().unwrap();
        assert!(found.contains(flags), "{name}: {found}");
    }
    for signal in ["\"set-reference\"", "\"add-reference\"", "\"select-point\"", "\"reset\""] {
        assert!(text.contains(signal), "no {signal} in {text}");
    }
}
