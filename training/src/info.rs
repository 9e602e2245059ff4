// SPDX-License-Identifier: MPL-2.0

//! Contents of a weights file and the cost of its network: parameters and multiply-adds, counted in the layers
//! during a run.

use std::collections::BTreeMap;

use gstfastganseg::torch::model::meter::{Work, measure};
use gstfastganseg::torch::model::weights::Weights;
use gstfastganseg::torch::model::{Config, Matching, NetworkVisitor, Regressor, build, prepare};
use serde::Serialize;
use tch::{Device, Kind, Tensor, nn};

use crate::Result;

/// Block of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Block {
    /// Name, which is the prefix of its tensors' names.
    pub name: String,
    /// Trainable parameters.
    pub parameters: u64,
    /// Multiply-adds of one frame of the network as drawn in the paper. Global convolution matches the features of
    /// both frames; the memory bank of affinity matching has the tokens of the reference only.
    pub drawn: u64,
    /// Multiply-adds of one frame at run time, with an encoded reference, folded layers and a full memory bank.
    /// Includes the cost of adding frames to the memory bank, averaged over the frames.
    pub frame: f64,
    /// Multiply-adds of a new reference at run time.
    pub reference: u64,
}

/// Description of weights.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Configuration of the network.
    pub config: Config,
    /// Metadata of the file, without the configuration.
    pub metadata: BTreeMap<String, String>,
    /// Blocks of the network, in the order of execution.
    pub blocks: Vec<Block>,
    /// Sum of all blocks.
    pub total: Block,
}

impl Info {
    /// Describes `weights`, with costs measured for one object at the input size.
    ///
    /// # Errors
    /// If the weights do not match their configuration; errors of libtorch.
    pub fn of(weights: &Weights) -> Result<Self> {
        let mut metadata = weights.metadata().clone();
        metadata.retain(|key, _| key != "config");
        Self::new(weights.config(), metadata, |store| weights.fill(store))
    }

    /// Describes a network without weights.
    ///
    /// # Errors
    /// If the configuration is invalid; errors of libtorch.
    pub fn of_config(config: &Config) -> Result<Self> {
        Self::new(config, BTreeMap::new(), |_| Ok(()))
    }

    /// Returns architecture, matching and temporal skip as spelled in a configuration file.
    pub fn names(&self) -> [String; 3] {
        let name = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let Config { architecture, matching, temporal_skip, .. } = &self.config;
        [
            name(serde_json::to_value(architecture)),
            name(serde_json::to_value(matching)),
            name(serde_json::to_value(temporal_skip)),
        ]
    }

    fn new(
        config: &Config,
        metadata: BTreeMap<String, String>,
        fill: impl FnOnce(&nn::VarStore) -> gstfastganseg::Result<()>,
    ) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        // Adding every frame fills the memory bank in the fewest steps.
        let mut filling = config.clone();
        filling.memory.every = 1;
        let store = nn::VarStore::new(Device::Cpu);
        let costs = build(&store.root(), &filling, Measure { config, store: &store, fill })?;
        let trained = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
        let parameters = trained.map(|(name, tensor)| (name, tensor.numel() as u64)).collect();
        let blocks = costs.blocks(config, &parameters);
        Ok(Self { config: config.clone(), metadata, total: Block::sum(&blocks), blocks })
    }
}

/// Measures the costs of a network.
struct Measure<'a, F> {
    config: &'a Config,
    store: &'a nn::VarStore,
    fill: F,
}

impl<F: FnOnce(&nn::VarStore) -> gstfastganseg::Result<()>> NetworkVisitor for Measure<'_, F> {
    type Output = Costs;

    fn visit<R: Regressor + 'static>(self, mut model: R) -> gstfastganseg::Result<Costs> {
        (self.fill)(self.store)?;
        let (height, width) = self.config.size();
        let float = (Kind::Float, Device::Cpu);
        let image = Tensor::f_zeros([1, 3, height, width], float)?;
        let mask = Tensor::f_ones([1, 1, height, width], float)?;
        let (reference, trained_reference) = measure(|| model.reference(&image, &mask));
        let reference = reference?;
        let mut state = model.start(&reference)?;
        let (logits, trained_frame) = measure(|| model.step(&image, &reference, &mut state));
        drop(logits?);
        drop(state);

        prepare(&mut model, Device::Cpu, Kind::Float)?;
        let (encoded, reference) = measure(|| model.reference(&image, &mask));
        let encoded = encoded?;
        let mut state = model.start(&encoded)?;
        for _ in 0..self.config.memory.frames {
            drop(model.step(&image, &encoded, &mut state)?);
            model.observe(&mask, &encoded, &mut state)?;
        }
        let (logits, frame) = measure(|| model.step(&image, &encoded, &mut state));
        drop(logits?);
        let (observed, memorising) = measure(|| model.observe(&mask, &encoded, &mut state));
        observed?;
        Ok(Costs { trained_reference, trained_frame, reference, frame, memorising })
    }
}

impl Block {
    fn empty(name: impl Into<String>) -> Self {
        Self { name: name.into(), parameters: 0, drawn: 0, frame: 0.0, reference: 0 }
    }

    fn sum(blocks: &[Self]) -> Self {
        blocks.iter().fold(Self::empty("total"), |sum, block| Self {
            parameters: sum.parameters + block.parameters,
            drawn: sum.drawn + block.drawn,
            frame: sum.frame + block.frame,
            reference: sum.reference + block.reference,
            ..sum
        })
    }
}

/// Multiply-adds by layer.
struct Costs {
    /// The reference and a later frame in the training form of the network.
    trained_reference: Work,
    trained_frame: Work,
    /// The reference, a later frame and its addition to the memory bank in the run-time form of the network.
    reference: Work,
    frame: Work,
    memorising: Work,
}

impl Costs {
    fn blocks(&self, config: &Config, parameters: &BTreeMap<String, u64>) -> Vec<Block> {
        let mut blocks: Vec<Block> =
            blocks_of(config.matching).iter().map(|&name| Block::empty(name)).collect();
        let mut add = |work: &Work, to: &dyn Fn(&mut Block, u64)| {
            for (layer, &amount) in work {
                let name = block_of(config.matching, layer);
                let index = blocks.iter().position(|block| block.name == name).unwrap_or_else(|| {
                    blocks.push(Block::empty(name));
                    blocks.len() - 1
                });
                to(&mut blocks[index], amount);
            }
        };
        add(parameters, &|block, count| block.parameters += count);
        add(&self.trained_frame, &|block, macs| block.drawn += macs);
        if config.matching == Matching::GlobalConvolution {
            // In the paper, the convolution takes the features of both frames. Here, the half of the reference is
            // computed in advance.
            let mut matching = self.trained_reference.clone();
            matching.retain(|layer, _| layer.starts_with("matching"));
            add(&matching, &|block, macs| block.drawn += macs);
        }
        add(&self.reference, &|block, macs| block.reference += macs);
        add(&self.frame, &|block, macs| block.frame += macs as f64);
        let every = config.memory.every as f64;
        add(&self.memorising, &|block, macs| block.frame += macs as f64 / every);
        blocks
    }
}

/// Returns the names of a network's blocks, in order.
fn blocks_of(matching: Matching) -> &'static [&'static str] {
    match matching {
        Matching::Affinity => &["encoder", "matching", "decoder"],
        Matching::GlobalConvolution => &[
            "stem", "layer1", "layer2", "layer3", "layer4", "matching", "residual", "refine4", "refine3",
            "refine2", "temporal", "head",
        ],
    }
}

/// Returns the name of the block that a layer or tensor belongs to.
fn block_of(matching: Matching, layer: &str) -> &str {
    let (first, rest) = layer.split_once('.').unwrap_or((layer, ""));
    if matching == Matching::GlobalConvolution && first == "encoder" {
        let stage = rest.split('.').next().unwrap_or(rest);
        return if stage.starts_with("layer") { stage } else { "stem" };
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters and multiply-adds, in units of 10⁷, of each block of the paper's network at 512x512.
    const PAPER: [(&str, u64, u64); 12] = [
        ("stem", 12_736, 82),
        ("layer1", 215_808, 349),
        ("layer2", 1_219_584, 537),
        ("layer3", 7_098_368, 765),
        ("layer4", 14_964_736, 423),
        ("matching", 15_598_592, 399),
        ("residual", 1_180_160, 30),
        ("refine4", 4_719_872, 483),
        ("refine3", 3_540_224, 1450),
        ("refine2", 2_950_400, 4832),
        ("temporal", 73_760, 121),
        ("head", 5_186, 8),
    ];

    /// Multiply-adds are proportional to the number of pixels. The test is fast at an eighth of each side.
    #[test]
    fn blocks_of_resnet50_match_the_paper() {
        let config = Config { network_size: [64, 64], ..Config::resnet50() };
        let info = Info::of_config(&config).unwrap();
        let blocks: Vec<_> = info
            .blocks
            .iter()
            .map(|block| {
                (block.name.as_str(), block.parameters, (block.drawn as f64 * 64.0 / 1e7).round() as u64)
            })
            .collect();
        assert_eq!(blocks, PAPER);
        assert_eq!(info.total.parameters, 51_579_426);
        assert_eq!((info.total.drawn as f64 * 64.0 / 1e8).round(), 948.0);
        let saved = info.total.drawn as f64 - info.total.frame;
        assert!((saved * 64.0 / 1e9 - 1.9).abs() < 0.1, "half of the matching: {saved}");
    }

    #[test]
    fn the_built_in_model_has_known_costs() {
        let info = Info::of(&Weights::built_in().unwrap()).unwrap();
        assert_eq!(info.total.parameters, 1_108_431);
        let names: Vec<_> = info.blocks.iter().map(|block| block.name.as_str()).collect();
        assert_eq!(names, ["encoder", "matching", "decoder", "refiner"]);
        let giga = |macs: f64| (macs / 1e7).round() / 100.0;
        assert_eq!((giga(info.total.drawn as f64), giga(info.total.frame)), (0.87, 0.94), "with memory full");
        assert!(info.metadata.contains_key("licence") && !info.metadata.contains_key("config"));
    }

    #[test]
    fn memory_and_temporal_skip_add_costs() {
        let config = Config { width: 0.125, network_size: [64, 96], ..Config::lite() };
        let cost = |change: &dyn Fn(&mut Config)| {
            let mut config = config.clone();
            change(&mut config);
            Info::of_config(&config).unwrap().total
        };
        let usual = cost(&|_| ());
        let more = cost(&|config| config.memory.frames = 4);
        assert_eq!(usual.drawn, more.drawn);
        assert!(more.frame > usual.frame);
        let rarely = cost(&|config| config.memory.every = 50);
        assert!(rarely.frame < usual.frame);
        let without = cost(&|config| config.temporal_skip = gstfastganseg::torch::model::TemporalSkip::Off);
        assert!(without.drawn < usual.drawn && without.parameters < usual.parameters);
    }
}
