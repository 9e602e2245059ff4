//! What is in a weights file, and what its network costs: parameters and multiply-adds, counted in the layers
//! as they run.

use std::collections::BTreeMap;

use gstfastganseg::model::meter::{Work, measure};
use gstfastganseg::model::weights::Weights;
use gstfastganseg::model::{Config, Lite, Matching, Regressor, Resnet50, prepare, zero_init};
use serde::Serialize;
use tch::{Device, Kind, Tensor, nn};

use crate::Result;

/// One block of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Block {
    /// Its name, which begins those of its tensors.
    pub name: String,
    /// Trained numbers.
    pub parameters: u64,
    /// Multiply-adds of one frame by the network as the paper draws it: nothing is known beforehand of the
    /// reference but, where there are tokens to be remembered, those of the reference alone.
    pub drawn: u64,
    /// Multiply-adds of one frame in use: the reference is encoded, what is linear is folded, memory is full,
    /// and a frame is remembered now and then.
    pub frame: f64,
    /// Multiply-adds of a new reference in use.
    pub reference: u64,
}

/// What there is to know of weights.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The network's configuration.
    pub config: Config,
    /// What the file says of itself, without the configuration.
    pub metadata: BTreeMap<String, String>,
    /// The network's parts, in the order in which a frame goes through them.
    pub blocks: Vec<Block>,
    /// Of all blocks.
    pub total: Block,
}

impl Info {
    /// Fills the network and runs it on one empty object at its network size.
    ///
    /// # Errors
    /// Weights that do not fit their configuration, an error of libtorch.
    pub fn of(weights: &Weights) -> Result<Self> {
        let mut metadata = weights.metadata().clone();
        metadata.retain(|key, _| key != "config");
        Self::new(weights.config(), metadata, |store| weights.fill(store))
    }

    /// The same of a network without weights.
    ///
    /// # Errors
    /// A configuration that no network can be built from, an error of libtorch.
    pub fn of_config(config: &Config) -> Result<Self> {
        Self::new(config, BTreeMap::new(), |_| Ok(()))
    }

    /// Architecture, matching and temporal skip as a configuration file has them.
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
        // With a frame remembered after every step memory is full soon.
        let mut hasty = config.clone();
        hasty.memory.every = 1;
        let store = nn::VarStore::new(Device::Cpu);
        let costs = match config.matching {
            Matching::Affinity => {
                let model = zero_init(|| Lite::new(&store.root(), &hasty))?;
                fill(&store)?;
                Costs::of(model, config)?
            }
            Matching::GlobalConvolution => {
                let model = zero_init(|| Resnet50::new(&store.root(), &hasty))?;
                fill(&store)?;
                Costs::of(model, config)?
            }
        };
        let trained = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
        let parameters = trained.map(|(name, tensor)| (name, tensor.numel() as u64)).collect();
        let blocks = costs.blocks(config, &parameters);
        Ok(Self { config: config.clone(), metadata, total: Block::sum(&blocks), blocks })
    }
}

impl Block {
    fn empty(name: impl Into<String>) -> Self {
        Self { name: name.into(), parameters: 0, drawn: 0, frame: 0.0, reference: 0 }
    }

    fn sum(blocks: &[Self]) -> Self {
        Self {
            name: "total".into(),
            parameters: blocks.iter().map(|block| block.parameters).sum(),
            drawn: blocks.iter().map(|block| block.drawn).sum(),
            frame: blocks.iter().map(|block| block.frame).sum(),
            reference: blocks.iter().map(|block| block.reference).sum(),
        }
    }
}

/// Multiply-adds by layer.
struct Costs {
    /// The reference, and a frame after it, of the network as it is trained.
    trained_reference: Work,
    trained_frame: Work,
    /// The reference, a frame, and what is done to remember it, of the network as it runs.
    reference: Work,
    frame: Work,
    remembering: Work,
}

impl Costs {
    fn of<R: Regressor>(mut model: R, config: &Config) -> Result<Self> {
        let (height, width) = config.size();
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
        let (known, reference) = measure(|| model.reference(&image, &mask));
        let known = known?;
        let mut state = model.start(&known)?;
        for _ in 0..config.memory.frames {
            drop(model.step(&image, &known, &mut state)?);
            model.observe(&mask, &known, &mut state)?;
        }
        let (logits, frame) = measure(|| model.step(&image, &known, &mut state));
        drop(logits?);
        let (observed, remembering) = measure(|| model.observe(&mask, &known, &mut state));
        observed?;
        Ok(Self { trained_reference, trained_frame, reference, frame, remembering })
    }

    fn blocks(&self, config: &Config, parameters: &BTreeMap<String, u64>) -> Vec<Block> {
        let mut blocks: Vec<Block> =
            blocks_of(config.matching).iter().map(|&name| Block::empty(name)).collect();
        let mut add = |layer: &str, f: &mut dyn FnMut(&mut Block)| {
            let name = block_of(config.matching, layer);
            match blocks.iter_mut().find(|block| block.name == name) {
                Some(block) => f(block),
                None => {
                    let mut block = Block::empty(name);
                    f(&mut block);
                    blocks.push(block);
                }
            }
        };
        for (layer, count) in parameters {
            add(layer, &mut |block| block.parameters += count);
        }
        for (layer, macs) in &self.trained_frame {
            add(layer, &mut |block| block.drawn += macs);
        }
        if config.matching == Matching::GlobalConvolution {
            // The convolution is of both frames' features; that a half of it is known is our doing.
            for (layer, macs) in
                self.trained_reference.iter().filter(|(layer, _)| layer.starts_with("matching"))
            {
                add(layer, &mut |block| block.drawn += macs);
            }
        }
        for (layer, macs) in &self.reference {
            add(layer, &mut |block| block.reference += macs);
        }
        for (layer, macs) in &self.frame {
            add(layer, &mut |block| block.frame += *macs as f64);
        }
        for (layer, macs) in &self.remembering {
            add(layer, &mut |block| block.frame += *macs as f64 / config.memory.every as f64);
        }
        blocks
    }
}

/// The blocks of a network, from the first to the last.
fn blocks_of(matching: Matching) -> &'static [&'static str] {
    match matching {
        Matching::Affinity => &["encoder", "matching", "decoder"],
        Matching::GlobalConvolution => &[
            "stem", "layer1", "layer2", "layer3", "layer4", "matching", "residual", "refine4", "refine3",
            "refine2", "temporal", "head",
        ],
    }
}

/// The block that a layer or tensor belongs to.
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

    /// Parameters, and multiply-adds in units of 10⁷, of each block of the paper's network at 512x512.
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

    /// Multiply-adds are the same share of the pixels at any size; at an eighth of it they take no time.
    #[test]
    fn the_papers_network_has_the_papers_blocks() {
        let config = Config { network_size: [64, 64], ..Config::resnet50() };
        let info = Info::of_config(&config).unwrap();
        let found: Vec<_> = info
            .blocks
            .iter()
            .map(|block| {
                (block.name.as_str(), block.parameters, (block.drawn as f64 * 64.0 / 1e7).round() as u64)
            })
            .collect();
        assert_eq!(found, PAPER);
        assert_eq!(info.total.parameters, 51_579_426);
        assert_eq!((info.total.drawn as f64 * 64.0 / 1e8).round(), 948.0);
        let saved = info.total.drawn as f64 - info.total.frame;
        assert!((saved * 64.0 / 1e9 - 1.9).abs() < 0.1, "the half of the matching: {saved}");
    }

    #[test]
    fn the_built_in_model() {
        let info = Info::of(&Weights::built_in().unwrap()).unwrap();
        assert_eq!(info.total.parameters, 1_079_495);
        let names: Vec<_> = info.blocks.iter().map(|block| block.name.as_str()).collect();
        assert_eq!(names, ["encoder", "matching", "decoder"]);
        let giga = |macs: f64| (macs / 1e7).round() / 100.0;
        assert_eq!((giga(info.total.drawn as f64), giga(info.total.frame)), (0.75, 0.82), "with memory full");
        assert!(info.metadata.contains_key("licence") && !info.metadata.contains_key("config"));
    }

    #[test]
    fn more_memory_costs_more_and_a_temporal_skip_does() {
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
        let without = cost(&|config| config.temporal_skip = gstfastganseg::model::TemporalSkip::Off);
        assert!(without.drawn < usual.drawn && without.parameters < usual.parameters);
    }
}
