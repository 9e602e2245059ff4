// SPDX-License-Identifier: MPL-2.0

//! Input size of the network by name.

use crate::model::Config;

/// Input size of the network relative to the model's own. A larger one has finer edges and takes more time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// 304x176 for a model of 336x192.
    Fast,
    /// The model's own size.
    #[default]
    Balanced,
    /// 448x256 for a model of 336x192.
    Fine,
    /// 672x384 for a model of 336x192.
    Finest,
}

impl Quality {
    /// All values, the fastest first.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Balanced, Self::Fine, Self::Finest];

    /// Name of the property value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Fine => "fine",
            Self::Finest => "finest",
        }
    }

    /// Factor of width and height.
    fn factor(self) -> f64 {
        match self {
            Self::Fast => 0.9,
            Self::Balanced => 1.0,
            Self::Fine => 4.0 / 3.0,
            Self::Finest => 2.0,
        }
    }

    /// Number of pixels relative to [`Balanced`](Self::Balanced).
    pub fn area(self) -> f64 {
        self.factor() * self.factor()
    }

    /// Returns the input height and width in pixels of a model.
    pub fn network_size(self, model: &Config) -> [i64; 2] {
        let stride = model.stride();
        model.network_size.map(|side| {
            let cells = (side as f64 * self.factor() / stride as f64).round() as i64;
            cells.max(1) * stride
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_model() {
        let sizes = |config: &Config| Quality::ALL.map(|quality| quality.network_size(config));
        assert_eq!(sizes(&Config::lite()), [[176, 304], [192, 336], [256, 448], [384, 672]]);
        let tiny = Config { network_size: [16, 32], ..Config::lite() };
        assert_eq!(sizes(&tiny), [[16, 32], [16, 32], [16, 48], [32, 64]]);
        assert_eq!(sizes(&Config::resnet50())[3], [1024, 1024]);
    }

    #[test]
    fn tokens_grow_with_the_size() {
        let tokens = |quality: Quality| {
            let model = Config::lite();
            let config = model.at_size(quality.network_size(&model));
            config.validate().unwrap();
            config.memory.tokens
        };
        assert_eq!(Quality::ALL.map(tokens), [512, 512, 910, 2048]);
        assert_eq!(Config::resnet50().at_size([1024, 1024]).memory, Config::resnet50().memory);
    }
}
