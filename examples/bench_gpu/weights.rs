// SPDX-License-Identifier: MPL-2.0

//! Weights for the measurements. The time of a network does not depend on its weights.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use gstfastganseg::torch::model::{Config, Lite, Matching, Regressor, Resnet50, prepare, weights};
use tch::{Device, Kind, Tensor, nn};

use crate::args::Args;

/// Names of the models.
pub const MODELS: [&str; 3] = [weights::LITE, weights::LARGE, "resnet50"];

/// Returns the name of a built-in model, or a weights file of a model in the results folder, with random weights. `--tiny`
/// replaces `large` by such a file.
pub fn file(args: &Args, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let mut config = match name {
        weights::LITE => return Ok(name.into()),
        weights::LARGE if !args.tiny => return Ok(name.into()),
        weights::LARGE => Config::large(),
        _ => Config::resnet50(),
    };
    if args.tiny {
        (config.width, config.network_size) = (0.125, [64, 96]);
    }
    let path = args.out.join(format!("{name}.safetensors"));
    tch::manual_seed(3);
    let store = nn::VarStore::new(Device::Cpu);
    match config.matching {
        Matching::Affinity => drop(Lite::new(&store.root(), &config)?),
        Matching::GlobalConvolution => drop(Resnet50::new(&store.root(), &config)?),
    }
    weights::save(&path, &store, &config, &BTreeMap::new(), Kind::Float)?;
    Ok(path)
}

/// Writes inputs and logits of two steps of `resnet50` on the CPU in float32, for the comparison with PyTorch.
pub fn golden(args: &Args, name: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    if name != "resnet50" {
        return Ok(());
    }
    let stored = weights::Weights::open(path)?;
    let store = nn::VarStore::new(Device::Cpu);
    let mut model = Resnet50::new(&store.root(), stored.config())?;
    stored.fill(&store)?;
    let _no_grad = tch::no_grad_guard();
    prepare(&mut model, Device::Cpu, Kind::Float)?;
    let (height, width) = stored.config().size();
    let image = || Tensor::f_rand([1, 3, height, width], (Kind::Float, Device::Cpu));
    let (first, second, third) = (image()?, image()?, image()?);
    let mask = Tensor::f_zeros([1, 1, height, width], (Kind::Float, Device::Cpu))?;
    let _ = mask.f_narrow(2, height / 4, height / 2)?.f_narrow(3, width / 4, width / 2)?.f_fill_(1.0)?;
    let reference = model.reference(&first, &mask)?;
    let mut state = model.start(&reference)?;
    let one = model.step(&second, &reference, &mut state)?;
    model.observe(&one.f_sigmoid()?, &reference, &mut state)?;
    let two = model.step(&third, &reference, &mut state)?;
    let tensors =
        [("first", first), ("mask", mask), ("second", second), ("third", third), ("one", one), ("two", two)];
    Tensor::write_safetensors(&tensors, args.out.join(format!("golden-{name}.safetensors")))?;
    Ok(())
}
