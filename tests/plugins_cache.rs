// SPDX-License-Identifier: MPL-2.0

//! `docs/plugins/gst_plugins_cache.json` describes the plugin in the format of GStreamer's documentation tools
//! (`gst-hotdoc-plugins-scanner`), which build the plugin's pages from it without loading the plugin. The tests
//! compare it with the built plugin. To renew it:
//!
//! ```sh
//! cargo test --test plugins_cache -- --ignored record
//! ```

use std::path::{Path, PathBuf};

use glib::prelude::*;
use glib::subclass::SignalId;
use glib::translate::IntoGlib;
use glib::{ParamFlags, ParamSpec, SignalFlags, Type};
use gst::prelude::*;
use gstreamer as gst;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

/// Enumerations with this prefix are described as types of the plugin.
const PREFIX: &str = "GstFastGanSeg";

/// Later versions have more video formats than this one, with which the file is recorded.
const RECORDED_WITH: (u32, u32) = (1, 22);

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plugins/gst_plugins_cache.json")
}

/// The description of the plugin that cargo built with this test.
fn describe_built_plugin() -> String {
    let registry = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins-cache-registry.bin");
    // SAFETY: only one test of this program runs at a time, and this is the first statement that reads or writes the
    // environment.
    unsafe { std::env::set_var("GST_REGISTRY", registry) };
    gst::init().unwrap();
    let path = std::env::current_exe().unwrap().with_file_name("libgstfastganseg.so");
    let plugin = gst::Plugin::load_file(&path).unwrap();
    let name = plugin.plugin_name();

    let mut types = Map::new();
    let mut elements = Map::new();
    for feature in gst::Registry::get().features_by_plugin(&name) {
        let factory = feature.downcast::<gst::ElementFactory>().unwrap();
        elements.insert(factory.name().into(), describe_element(&factory, &mut types));
    }
    let description = json!({name.as_str(): {
        "description": plugin.description().as_str(),
        "elements": elements,
        "filename": path.file_stem().unwrap().to_str().unwrap().trim_start_matches("lib"),
        "license": plugin.license().as_str(),
        "other-types": types,
        "package": plugin.package().as_str(),
        "source": plugin.source().as_str(),
        "tracers": {},
        "url": plugin.origin().as_str(),
    }});
    let mut text = Vec::new();
    description
        .serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    ")))
        .unwrap();
    String::from_utf8(text).unwrap() + "\n"
}

fn describe_element(factory: &gst::ElementFactory, types: &mut Map<String, Value>) -> Value {
    let element = factory.create().build().unwrap();
    let mut description = Map::new();
    for key in ["author", "description", "klass"] {
        description.insert(key.into(), json!(factory.metadata(key)));
    }
    let type_ = element.type_();
    let hierarchy = std::iter::successors(Some(type_), |type_| type_.parent())
        .map(|type_| type_.name())
        .collect::<Vec<_>>();
    description.insert("hierarchy".into(), json!(hierarchy));
    assert_eq!(factory.rank(), gst::Rank::NONE);
    description.insert("rank".into(), json!("none"));

    let templates = element.pad_template_list().into_iter().map(|template| {
        let direction = if template.direction() == gst::PadDirection::Src { "src" } else { "sink" };
        assert_eq!(template.presence(), gst::PadPresence::Always);
        let caps = describe_caps(template.documentation_caps());
        (
            template.name_template().to_string(),
            json!({"caps": caps, "direction": direction, "presence": "always"}),
        )
    });
    description.insert("pad-templates".into(), Value::Object(templates.collect()));

    let properties = element.list_properties();
    let own = properties.iter().filter(|spec| spec.owner_type() == type_);
    let properties = own.map(|spec| (spec.name().to_owned(), describe_property(&element, spec, types)));
    description.insert("properties".into(), Value::Object(properties.collect()));
    description.insert("signals".into(), Value::Object(describe_signals(type_)));
    Value::Object(description)
}

fn describe_caps(caps: &gst::Caps) -> String {
    let mut text = String::new();
    for (structure, features) in caps.iter_with_features() {
        let features = if features.is_equal(gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.as_ref()) {
            String::new()
        } else {
            format!("({features})")
        };
        text += &format!("{}{features}:\n", structure.name());
        for (name, value) in structure.iter() {
            let value = value.serialize().unwrap().replace("(string)", "");
            text += &format!("{:>15}: {value}\n", name.as_str());
        }
    }
    text
}

fn describe_property(element: &gst::Element, spec: &ParamSpec, types: &mut Map<String, Value>) -> Value {
    let flags = spec.flags();
    let mutable = [
        (gst::PARAM_FLAG_MUTABLE_PLAYING, "playing"),
        (gst::PARAM_FLAG_MUTABLE_PAUSED, "paused"),
        (gst::PARAM_FLAG_MUTABLE_READY, "ready"),
    ];
    let mut description = json!({
        "blurb": spec.blurb(),
        "conditionally-available": flags.contains(gst::PARAM_FLAG_CONDITIONALLY_AVAILABLE),
        "construct": flags.contains(ParamFlags::CONSTRUCT),
        "construct-only": flags.contains(ParamFlags::CONSTRUCT_ONLY),
        "controllable": flags.contains(gst::PARAM_FLAG_CONTROLLABLE),
        "mutable": mutable.iter().find(|(flag, _)| flags.contains(*flag)).map_or("null", |(_, name)| name),
        "readable": flags.contains(ParamFlags::READABLE),
        "type": spec.value_type().name(),
        "writable": flags.contains(ParamFlags::WRITABLE),
    });
    let value = element.property_value(spec.name());
    if let Ok(value) = value.get::<Option<String>>() {
        description["default"] = json!(value.as_deref().unwrap_or("NULL"));
    } else if let Ok(value) = value.get::<bool>() {
        description["default"] = json!(value.to_string());
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        // The tool prints unsigned numbers with a sign.
        let numbers = [value.get().unwrap(), spec.minimum(), spec.maximum()];
        add_range(&mut description, numbers.map(|number: u32| (number as i32).to_string()));
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecDouble>() {
        let numbers = [value.get().unwrap(), spec.minimum(), spec.maximum()];
        add_range(&mut description, numbers.map(|number: f64| number.to_string()));
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecEnum>() {
        let class = spec.enum_class();
        let number = value.transform::<i32>().unwrap().get::<i32>().unwrap();
        let default = class.value(number).unwrap();
        description["default"] = json!(format!("{} ({number})", default.nick()));
        if class.type_().name().starts_with(PREFIX) {
            let values = class.values().iter().map(|value| {
                json!({"desc": value.name(), "name": value.nick(), "value": value.value().to_string()})
            });
            let values: Vec<_> = values.collect();
            types.insert(class.type_().name().into(), json!({"kind": "enum", "values": values}));
        }
    } else if let Ok(Some(structure)) = value.get::<Option<gst::Structure>>() {
        description["default"] = json!(structure.to_string());
    } else {
        assert_eq!(spec.value_type(), gst::Array::static_type(), "{}: describe its default", spec.name());
    }
    description
}

fn add_range(description: &mut Value, [default, min, max]: [String; 3]) {
    description["default"] = json!(default);
    description["min"] = json!(min);
    description["max"] = json!(max);
}

fn describe_signals(type_: Type) -> Map<String, Value> {
    let mut count = 0;
    // SAFETY: the function returns `count` ids, to be freed by the caller, of a type that exists.
    let ids = unsafe {
        let ids = glib::gobject_ffi::g_signal_list_ids(type_.into_glib(), &mut count);
        let copy = std::slice::from_raw_parts(ids, count as usize).to_vec();
        glib::ffi::g_free(ids.cast());
        copy
    };
    let describe = |id| {
        // SAFETY: it is the id of a signal.
        let signal: SignalId = unsafe { glib::translate::from_glib(id) };
        let query = signal.query();
        let arguments = query.param_types().iter().enumerate();
        let arguments: Vec<_> = arguments
            .map(|(i, type_)| json!({"name": format!("arg{i}"), "type": type_.type_().name()}))
            .collect();
        let mut description = json!({"args": arguments, "return-type": query.return_type().type_().name()});
        let when = [
            (SignalFlags::RUN_FIRST, "first"),
            (SignalFlags::RUN_LAST, "last"),
            (SignalFlags::RUN_CLEANUP, "cleanup"),
        ];
        if let Some((_, when)) = when.iter().find(|(flag, _)| query.flags().contains(*flag)) {
            description["when"] = json!(when);
        }
        if query.flags().contains(SignalFlags::ACTION) {
            description["action"] = json!(true);
        }
        (signal.name().to_owned(), description)
    };
    ids.into_iter().map(describe).collect()
}

/// The description without the caps.
fn without_caps(text: &str) -> Value {
    let mut description: Value = serde_json::from_str(text).unwrap();
    for template in ["sink", "src"] {
        let caps = description
            .pointer_mut(&format!("/fastganseg/elements/fastganseg/pad-templates/{template}/caps"))
            .unwrap();
        *caps = Value::Null;
    }
    description
}

#[test]
fn the_plugins_cache_describes_the_built_plugin() {
    let built = describe_built_plugin();
    let recorded = std::fs::read_to_string(file()).unwrap();
    let (major, minor, ..) = gst::version();
    let same = if (major, minor) == RECORDED_WITH {
        built == recorded
    } else {
        without_caps(&built) == without_caps(&recorded)
    };
    let difference = built.lines().zip(recorded.lines()).find(|(built, recorded)| built != recorded);
    assert!(
        same,
        "{} does not describe the built plugin. If the plugin is right, run `cargo test --test plugins_cache -- \
         --ignored record` with GStreamer {RECORDED_WITH:?}. First difference: {difference:?}",
        file().display()
    );
}

#[test]
#[ignore = "writes docs/plugins/gst_plugins_cache.json"]
fn record() {
    let description = describe_built_plugin();
    let (major, minor, ..) = gst::version();
    assert_eq!((major, minor), RECORDED_WITH, "record with this version of GStreamer");
    std::fs::write(file(), description).unwrap();
}
