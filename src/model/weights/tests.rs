// SPDX-License-Identifier: MPL-2.0

use std::collections::HashMap;

use tch::nn;

use super::*;
use crate::model::TemporalSkip;

fn config() -> Config {
    Config { width: 0.25, temporal_skip: TemporalSkip::Refine, ..Config::resnet50() }
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("licence", "MPL-2.0"), ("training_data", "none")].map(|(k, v)| (k.into(), v.into())))
}

/// All metadata that [`save`] writes.
fn whole_metadata() -> HashMap<String, String> {
    let json = serde_json::to_string(&config()).unwrap();
    let more = [("format", "1"), ("architecture", "resnet50"), ("config", &json)];
    metadata().into_iter().chain(more.map(|(k, v)| (k.into(), v.into()))).collect()
}

fn write(path: &Path, store: &VarStore, kind: Kind) -> Result<()> {
    save(path, store, &config(), &metadata(), kind)
}

/// Two trainable variables and one that is not trained.
fn store(seed: i64) -> VarStore {
    tch::manual_seed(seed);
    let store = VarStore::new(Device::Cpu);
    let path = &store.root() / "net";
    let _ = path.randn("weight", &[2, 3, 1, 1], 0.0, 1.0);
    let _ = path.randn("bias", &[2], 0.0, 1.0);
    let _ = path.ones_no_train("running_var", &[2]);
    store
}

fn other(shape: &[i64], name: &str) -> VarStore {
    let store = VarStore::new(Device::Cpu);
    let path = &store.root() / "net";
    let _ = path.zeros("bias", &[2]);
    let _ = path.ones_no_train("running_var", &[2]);
    let _ = path.var(name, shape, nn::Init::Const(0.0));
    store
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("model.safetensors")
    }
}

/// Returns the message of an error, which must name the path.
fn message<T: std::fmt::Debug>(result: Result<T>, path: &Path) -> String {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    message
}

fn with_metadata(path: &Path, change: impl FnOnce(&mut HashMap<String, String>)) {
    let mut metadata = whole_metadata();
    change(&mut metadata);
    let none: Vec<(String, TensorView)> = Vec::new();
    fs::write(path, safetensors::serialize(none, Some(metadata)).unwrap()).unwrap();
}

#[test]
fn saved_weights_are_read_back() {
    let folder = Folder::new();
    for (kind, tolerance) in
        [(Kind::Float, 0.0), (Kind::Half, 1e-3), (Kind::BFloat16, 1e-2), (Kind::Int8, 1e-2)]
    {
        let written = store(1);
        write(&folder.path(), &written, kind).unwrap();
        let weights = Weights::open(&folder.path()).unwrap();
        assert_eq!(weights.config(), &config());
        assert_eq!(weights.metadata().clone().into_iter().collect::<HashMap<_, _>>(), whole_metadata());
        let read = store(2);
        weights.fill(&read).unwrap();
        let bytes = fs::read(folder.path()).unwrap();
        let from_memory = store(3);
        Weights::from_bytes(&bytes, Path::new("built-in")).unwrap().fill(&from_memory).unwrap();
        for (name, expected) in written.variables() {
            let found = &read.variables()[&name];
            assert_eq!(found.kind(), Kind::Float);
            assert!((found - &expected).abs().max().double_value(&[]) <= tolerance, "{name}");
            assert!(found.equal(&from_memory.variables()[&name]));
        }
        assert!(read.variables()["net.weight"].requires_grad());
        assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1, "no other file remains");
    }
}

#[test]
fn int8_has_a_scale_for_each_output_channel() {
    let folder = Folder::new();
    let written = store(1);
    tch::no_grad(|| {
        let weight = written.variables()["net.weight"].shallow_clone();
        let _ = weight.get(0).fill_(0.0);
        let _ = weight.get(1).f_mul_scalar_(1e-3).unwrap();
    });
    write(&folder.path(), &written, Kind::Int8).unwrap();
    let read = store(2);
    Weights::open(&folder.path()).unwrap().fill(&read).unwrap();
    let [written, read] = [&written, &read].map(|store| store.variables()["net.weight"].detach());
    let scale = written.abs().amax([1, 2, 3], true) / MAX_INT8;
    assert!(bool::try_from(((&read - &written).abs() * 1.99).le_tensor(&scale).all()).unwrap());

    let mut bytes = fs::read(folder.path()).unwrap();
    let at = bytes.windows(SCALE.len()).position(|part| part == SCALE.as_bytes()).unwrap();
    bytes[at..at + SCALE.len()].copy_from_slice(b".other");
    fs::write(folder.path(), bytes).unwrap();
    let read = store(2);
    let error = message(Weights::open(&folder.path()).unwrap().fill(&read), &folder.path());
    assert!(error.contains("unexpected tensor `net.weight.other`"), "{error}");
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = Folder::new();
    write(&folder.path(), &store(1), Kind::Float).unwrap();
    let before = fs::read(folder.path()).unwrap();
    let large = store(1);
    let _ = tch::no_grad(|| large.variables()["net.bias"].shallow_clone().fill_(1e6));
    let error = message(write(&folder.path(), &large, Kind::Half), &folder.path());
    assert!(error.contains("`net.bias`") && error.contains("F16"), "{error}");
    assert_eq!(fs::read(folder.path()).unwrap(), before);

    let nowhere = folder.0.path().join("absent/model.safetensors");
    assert!(matches!(write(&nowhere, &store(1), Kind::Float), Err(Error::Write { .. })));
    let error = message(write(&folder.path(), &store(1), Kind::Double), &folder.path());
    assert!(error.contains("float32, float16, bfloat16 or int8"), "{error}");
}

#[test]
fn missing_files_and_folders_are_refused() {
    let folder = Folder::new();
    let result = Weights::open(&folder.path());
    assert!(matches!(result, Err(Error::Read { .. })));
    message(result, &folder.path());
    let error = message(Weights::open(folder.0.path()), folder.0.path());
    assert!(error.contains("regular file") || error.contains("directory"), "{error}");
}

#[test]
fn truncated_oversized_and_other_files_are_refused() {
    let folder = Folder::new();
    write(&folder.path(), &store(1), Kind::Float).unwrap();
    let whole = fs::read(folder.path()).unwrap();
    let (length, refused) = (whole.len(), "not a safetensors file");
    for (bytes, expected) in [
        (&[][..], "truncated: 0 bytes".into()),
        (&whole[..length - 1], format!("truncated: {} bytes of the {length}", length - 1)),
        (&whole[..40], "truncated: 40 bytes do not hold its whole header".into()),
        (&[&whole[..], &[0; 100]].concat(), "oversized".into()),
        (&[&u64::MAX.to_le_bytes()[..], &whole[8..]].concat(), refused.into()),
        (b"\x89PNG\r\n\x1a\n and so on", refused.into()),
        (b"PK\x03\x04 a pickle inside a zip", refused.into()),
        (b"plain text, long", refused.into()),
    ] {
        fs::write(folder.path(), bytes).unwrap();
        let error = message(Weights::open(&folder.path()), &folder.path());
        assert!(error.contains(&expected), "{error}");
    }
    // A sparse file takes no disk space.
    File::create(folder.path()).unwrap().set_len(MAX_BYTES + 1).unwrap();
    let error = message(Weights::open(&folder.path()), &folder.path());
    assert!(error.contains(&format!("oversized: {} bytes", MAX_BYTES + 1)), "{error}");
}

#[test]
fn inconsistent_headers_are_refused() {
    let folder = Folder::new();
    for (shape, end) in [("[4611686018427387904,4]", 16), ("[2]", 1_u64 << 40), ("[9]", 16)] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 16]);
        fs::write(folder.path(), bytes).unwrap();
        message(Weights::open(&folder.path()), &folder.path());
    }
}

#[test]
fn invalid_metadata_is_refused() {
    let folder = Folder::new();
    let path = folder.path();
    let refused = |key: &str, value: Option<&str>, expected: &str| {
        with_metadata(&path, |metadata| {
            metadata.remove(key);
            if let Some(value) = value {
                metadata.insert(key.to_owned(), value.to_owned());
            }
        });
        let error = message(Weights::open(&path), &path);
        assert!(error.contains(expected), "{error}");
    };
    refused("format", None, "format version is \"\"");
    refused("format", Some("2"), "format version is \"2\"; this build reads \"1\"");
    refused(
        "architecture",
        Some("unet"),
        "architecture \"unet\" is unknown; this build has lite and resnet50",
    );
    refused("architecture", Some("lite"), "architecture lite, its configuration resnet50");
    refused("config", None, "no network configuration");
    refused("config", Some("{}"), "missing field `architecture`");
    refused("config", Some("{\"architecture\":\"unet\"}"), "architecture \"unet\" is unknown");
    refused("config", Some("no JSON"), "invalid network configuration");
    let mut config = config();
    config.width = 1e9;
    refused("config", Some(&serde_json::to_string(&config).unwrap()), "width");
}

#[test]
fn tensors_of_another_name_or_shape_are_refused() {
    let folder = Folder::new();
    write(&folder.path(), &store(1), Kind::Float).unwrap();
    let weights = Weights::open(&folder.path()).unwrap();
    for (store, expected) in [
        (
            other(&[2, 5, 1, 1], "weight"),
            "tensor `net.weight`: expected shape [2, 5, 1, 1], found [2, 3, 1, 1]",
        ),
        (other(&[2], "extra"), "tensor `net.extra` is missing; expected shape [2]"),
        (other(&[7], "zz"), "unexpected tensor `net.weight` of shape [2, 3, 1, 1]"),
    ] {
        let error = message(weights.fill(&store), &folder.path());
        assert!(error.contains(expected), "{error}");
        let bias = &store.variables()["net.bias"];
        assert_eq!(bias.abs().max().double_value(&[]), 0.0, "no tensor is loaded on an error");
    }
}

#[test]
fn tensors_of_another_type_or_not_finite_are_refused() {
    let folder = Folder::new();
    let put = |dtype: Dtype, bytes: &[u8]| {
        let view = TensorView::new(dtype, vec![2], bytes).unwrap();
        let file = safetensors::serialize([("net.bias", view)], Some(whole_metadata()));
        fs::write(folder.path(), file.unwrap()).unwrap();
    };
    let store = VarStore::new(Device::Cpu);
    let _ = (&store.root() / "net").zeros("bias", &[2]);
    put(Dtype::I64, &[0; 16]);
    let error = message(Weights::open(&folder.path()).unwrap().fill(&store), &folder.path());
    assert!(error.contains("`net.bias`: expected type F32, F16, BF16 or I8, found I64"), "{error}");
    put(Dtype::F32, &[0, 0, 0x80, 0x7f, 0, 0, 0, 0]);
    let error = message(Weights::open(&folder.path()).unwrap().fill(&store), &folder.path());
    assert!(error.contains("`net.bias` holds values that are not finite"), "{error}");
}

#[test]
fn partial_files_are_loaded_under_a_prefix() {
    let folder = Folder::new();
    let backbone = VarStore::new(Device::Cpu);
    let root = backbone.root();
    let _ = (&root / "conv1").randn("weight", &[4, 3], 0.0, 1.0);
    let _ = (&root / "fc").randn("weight", &[9, 9], 0.0, 1.0);
    write(&folder.path(), &backbone, Kind::Float).unwrap();

    let network = |rows: i64| {
        let store = VarStore::new(Device::Cpu);
        let encoder = &store.root() / "encoder";
        let _ = (&encoder / "conv1").zeros("weight", &[rows, 3]);
        let _ = (&encoder / "conv1_mask").zeros("weight", &[4, 1]);
        let _ = (&store.root() / "head").zeros("weight", &[2]);
        store
    };
    let store = network(4);
    let partial = load_partial(&folder.path(), &store, "encoder").unwrap();
    assert_eq!(partial.loaded, ["encoder.conv1.weight"]);
    assert_eq!(partial.missing, ["encoder.conv1_mask.weight"]);
    assert_eq!(partial.unused, ["fc.weight"]);
    let expected = &backbone.variables()["conv1.weight"];
    assert!(store.variables()["encoder.conv1.weight"].equal(expected));

    let error = message(load_partial(&folder.path(), &network(5), "encoder"), &folder.path());
    assert!(error.contains("`conv1.weight`: expected shape [5, 3], found [4, 3]"), "{error}");
}

#[test]
fn a_wide_network_is_not_built_from_a_small_file() {
    let folder = Folder::new();
    for config in [Config::lite(), Config::large(), Config::resnet50()] {
        let config = Config { width: 4.0, ..config };
        let store = store(1);
        save(&folder.path(), &store, &config, &metadata(), Kind::Float).unwrap();
        let error = message(Weights::open(&folder.path()), &folder.path());
        assert!(error.contains("its tensors hold 10 values"), "{error}");
    }
}

#[test]
fn wide_networks_exceed_the_lower_bound_of_parameters() {
    for width in [1.0, 1.5, 2.0] {
        let config = Config { width, network_size: [32, 32], ..Config::lite() };
        let store = VarStore::new(Device::Cpu);
        crate::model::Lite::new(&store.root(), &config).unwrap();
        let count: usize = store.variables().values().map(Tensor::numel).sum();
        let (count, minimum) = (count as u64, config.min_parameters());
        assert!(count > minimum && count < 3 * minimum, "width {width}: {count}, {minimum}");
    }
}

/// Weights without an edge stage, and those whose stage has no residual, start the training of networks that have both.
#[test]
fn parts_of_the_edge_stage_may_be_missing() {
    let config = |edge_channels: i64, edge_residual: bool| Config {
        width: 0.1,
        network_size: [32, 32],
        edge_channels,
        edge_residual,
        ..Config::lite()
    };
    let network = |config: &Config| {
        let store = VarStore::new(Device::Cpu);
        crate::model::Lite::new(&store.root(), config).unwrap();
        store
    };
    let whole = config(64, true);
    for part in [config(0, false), config(64, false), whole.clone()] {
        let folder = Folder::new();
        save(&folder.path(), &network(&part), &part, &BTreeMap::default(), Kind::Float).unwrap();
        let weights = Weights::open(&folder.path()).unwrap();
        weights.fill_without_optional_parts(&network(&whole)).unwrap();
        assert_eq!(weights.fill(&network(&whole)).is_ok(), part == whole);
    }
    let folder = Folder::new();
    save(&folder.path(), &network(&whole), &whole, &BTreeMap::default(), Kind::Float).unwrap();
    let weights = Weights::open(&folder.path()).unwrap();
    assert!(
        weights.fill_without_optional_parts(&network(&config(0, false))).is_err(),
        "tensors without a place"
    );
    let without_refiner = network(&Config { refiner_channels: 0, ..whole.clone() });
    weights.fill_without_optional_parts(&without_refiner).unwrap();
    assert!(weights.fill(&without_refiner).is_err());
}

#[test]
fn built_in_models_have_names() {
    let config = |name: &str| Weights::of_model(Path::new(name)).map(|weights| weights.config().clone());
    assert_eq!(config(LITE).unwrap(), Config::lite());
    assert_eq!(config(LARGE).unwrap(), Config::large());
    let error = config("huge").unwrap_err().to_string();
    assert!(["cannot read huge", "lite and large"].iter().all(|part| error.contains(part)), "{error}");
}
