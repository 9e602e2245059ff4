//! The port of `lite` against recorded outputs of its prototype, where those are at hand.

use std::collections::HashMap;
use std::path::PathBuf;

use gstfastganseg::model::lite::memory::{Selection, Tokens};
use gstfastganseg::model::{Config, Lite};
use tch::{Device, Kind, Tensor, nn};

fn shared() -> PathBuf {
    std::env::var_os("FASTGANSEG_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
}

/// The prototype's name of one of our tensors.
fn prototype_name(name: &str) -> String {
    const NAMES: [(&str, &str); 20] = [
        ("encoder.", "enc."),
        ("matching.value", "fuse"),
        ("matching.key16", "k16"),
        ("matching.key8", "k8"),
        ("matching.sharpness16", "s16"),
        ("matching.sharpness8", "s8"),
        ("matching.distance", "pb"),
        ("matching.offset", "rel"),
        ("decoder.fuse16", "d16a"),
        ("decoder.residual16a", "d16b"),
        ("decoder.residual16b", "d16c"),
        ("decoder.up8", "u8"),
        ("decoder.fuse8", "d8a"),
        ("decoder.residual8", "d8b"),
        ("decoder.up4", "u4"),
        ("decoder.temporal_skip", "ts"),
        ("decoder.fuse4", "d4a"),
        ("decoder.residual4", "d4b"),
        ("decoder.up2", "u2"),
        ("decoder.fuse2", "d2a"),
    ];
    NAMES
        .iter()
        .find_map(|(ours, theirs)| name.strip_prefix(ours).map(|rest| format!("{theirs}{rest}")))
        .unwrap_or_else(|| name.replace("decoder.head", "p"))
}

fn close(what: &str, ours: &Tensor, golden: &Tensor) {
    assert_eq!(ours.size(), golden.size(), "{what}");
    let greatest = |x: Tensor| x.abs().max().double_value(&[]);
    // Float32 sums round differently from one processor's kernels to another's, in proportion to their size.
    let difference = greatest(ours - golden) / greatest(golden.shallow_clone());
    println!("{what}: largest difference {difference:.1e} of the largest value");
    assert!(difference <= 5e-6, "{what}: {difference}");
}

#[test]
fn lite_equals_its_prototype() {
    let folder = shared().join("lite");
    if !folder.join("golden.safetensors").exists() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let _guard = tch::no_grad_guard();
    let read = |name: &str| -> HashMap<String, Tensor> {
        Tensor::read_safetensors(folder.join(name)).unwrap().into_iter().collect()
    };
    let (golden, weights) = (read("golden.safetensors"), read("prototype.safetensors"));

    let store = nn::VarStore::new(Device::Cpu);
    let lite = Lite::new(&store.root(), &Config::lite()).unwrap();
    let mut used = 0;
    for (name, mut tensor) in store.variables() {
        tensor.copy_(&weights[&prototype_name(&name)]);
        used += 1;
    }
    assert_eq!(used, weights.len(), "tensors of the prototype left over");

    let frames = golden["frames_u8_hwc"].permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    let mask = &golden["reference_mask"];
    let reference = lite.encode(&frames.narrow(0, 0, 1)).unwrap();
    close("stride 2", &reference.s2, &golden["frame0.feature.1"]);
    close("stride 4", &reference.s4, &golden["frame0.feature.3"]);
    close("stride 8", &reference.s8, &golden["frame0.feature.6"]);
    close("stride 16", &reference.s16, &golden["frame0.feature.13"]);
    close("key 16", &reference.key16, &golden["frame0.feature.k16"]);
    close("key 8", &reference.key8, &golden["frame0.feature.k8"]);

    let tokens = lite.tokens(&reference, mask, Selection::Fixed).unwrap();
    close("reference key 16", &tokens.key16, &golden["reference.k16"]);
    close("reference value 16", &tokens.value16, &golden["reference.v16"]);
    close("reference mask 16", &tokens.mask16, &golden["reference.m16"]);
    assert_eq!(tokens.key8.size(), golden["reference.k8"].size());

    // The prototype drew its stride-8 tokens at random: take the ones it drew.
    let tokens = Tokens {
        key8: golden["reference.k8"].shallow_clone(),
        value8: golden["reference.v8"].shallow_clone(),
        mask8: golden["reference.m8"].shallow_clone(),
        ..tokens
    };
    let biases = lite.biases(&reference).unwrap();
    let (mut previous, mut mask, mut skip) = (reference, mask.shallow_clone(), None::<Tensor>);
    for t in 1..4 {
        let now = lite.encode(&frames.narrow(0, t, 1)).unwrap();
        let (logits, next) = lite.decode(&now, &previous, &mask, skip.as_ref(), &tokens, &biases).unwrap();
        close(&format!("frame {t} logits"), &logits, &golden[&format!("frame{t}.logits")]);
        close(&format!("frame {t} skip"), &next, &golden[&format!("frame{t}.skip_state")]);
        (previous, mask, skip) = (now, logits.sigmoid(), Some(next));
    }
}
