// SPDX-License-Identifier: MPL-2.0

//! Input size of the network: follows the aspect ratio of the region at a constant number of pixels.
//!
//! A person who stands in a wide picture fills a fifth of its width. In a tall region with the same number of
//! pixels, three times as many of them show the person at the same cost. The network consists of convolutions and
//! affinities, which accept any size.

use super::Quality;
use crate::image::Region;
use crate::model::{Config, Matching};

/// Maximum area of an input size relative to the network's own size.
const MAX_AREA_RATIO: f64 = 1.02;
/// Factor by which the width and height of a region are enlarged at most for a size above the model's own.
const MAX_ENLARGEMENT: f64 = 1.2;

/// Sizes at which regions enter a network.
#[derive(Clone, Debug)]
pub struct InputSizes {
    /// The largest sizes last. Each level has sizes of about the same area.
    levels: Vec<Level>,
}

/// (height, width): the network's own size first, then others of about the same area. All are multiples of the network's
/// stride.
type Level = Vec<(i64, i64)>;

impl InputSizes {
    /// Every region enters at the network's own size.
    pub fn fixed(config: &Config) -> Self {
        Self { levels: vec![vec![config.size()]] }
    }

    /// Every region enters at the size closest to its aspect ratio. `config` is the `model` at another size. If that is larger
    /// than the model's own size, regions with few pixels enter at a smaller size, down to the model's own: more pixels would
    /// show nothing more, and in much enlarged pictures, the network loses parts of objects.
    ///
    /// The paper's global convolution keeps its own size, because it is bound to the aspect ratio that it was
    /// trained with.
    pub fn following(config: &Config, model: &Config) -> Self {
        if config.matching == Matching::GlobalConvolution {
            return Self::fixed(config);
        }
        let size = |quality: Quality| {
            let [height, width] = quality.network_size(model);
            (height, width)
        };
        let smaller = Quality::ALL.into_iter().filter(|&quality| quality >= Quality::Balanced).map(size);
        let smaller = smaller.take_while(|&size| area(size) < area(config.size()));
        let sizes = smaller.chain([config.size()]);
        Self { levels: sizes.map(|size| shapes(size, config.stride())).collect() }
    }

    pub fn follows_region(&self) -> bool {
        self.levels.iter().any(|sizes| sizes.len() > 1)
    }

    /// Returns the height and width in pixels at which `region` enters the network.
    pub fn of(&self, region: Region) -> (i64, i64) {
        let largest = MAX_ENLARGEMENT * MAX_ENLARGEMENT * (region.width * region.height) as f64;
        let fitting = self.levels.iter().rposition(|sizes| area(sizes[0]) as f64 <= largest);
        nearest(&self.levels[fitting.unwrap_or(0)], region)
    }

    /// Returns the height and width in pixels at which `region` enters the network while objects are searched in it: about
    /// the model's own size, if the network's size is not smaller.
    pub fn for_search(&self, region: Region) -> (i64, i64) {
        nearest(&self.levels[0], region)
    }
}

/// Returns the size that is closest to the aspect ratio of `region`.
fn nearest(sizes: &Level, region: Region) -> (i64, i64) {
    let wanted = aspect(region.width as f64, region.height as f64);
    let distance = |&(height, width): &(i64, i64)| (aspect(width as f64, height as f64) - wanted).abs();
    // The first of equally close sizes wins, so the network's own size is preferred.
    let nearer =
        |best: (i64, i64), size: (i64, i64)| if distance(&size) < distance(&best) { size } else { best };
    sizes.iter().copied().fold(sizes[0], nearer)
}

fn area((height, width): (i64, i64)) -> i64 {
    height * width
}

/// Returns (height, width), and sizes of about the same area and other aspect ratios.
fn shapes((height, width): (i64, i64), step: i64) -> Level {
    let mut sizes = vec![(height, width)];
    let cells = (height / step * (width / step)) as f64;
    let mut add = |size| {
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    };
    add((width, height));
    // Every other row count only, because each size costs time when it is first used.
    for rows in (1..).map(|n| 2 * n).take_while(|&rows| rows as f64 <= cells / 2.0) {
        let columns = (MAX_AREA_RATIO * cells / rows as f64) as i64;
        add((rows * step, columns * step));
    }
    sizes
}

/// Logarithm of the aspect ratio, in which 2:1 and 1:2 are equally far from a square.
fn aspect(width: f64, height: f64) -> f64 {
    (width / height.max(1.0)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(width: usize, height: usize) -> Region {
        Region::whole((width, height))
    }

    #[test]
    fn input_sizes_have_the_area_of_the_networks_own_size() {
        for network_size in [[192, 336], [256, 448], [64, 96], [128, 128], [16, 16], [16, 2048]] {
            let config = Config { network_size, ..Config::lite() };
            let input_sizes = InputSizes::following(&config, &config);
            let area: i64 = network_size.iter().product();
            let [sizes] = &input_sizes.levels[..] else { panic!("{:?}", input_sizes.levels) };
            assert_eq!(sizes[0], config.size());
            for &(height, width) in sizes {
                assert!(height % 16 == 0 && width % 16 == 0 && height > 0 && width > 0);
                assert!((height * width) as f64 <= MAX_AREA_RATIO * area as f64, "{height}x{width}");
                Config { network_size: [height, width], ..config.clone() }.validate().unwrap();
            }
        }
    }

    #[test]
    fn input_sizes_follow_the_region() {
        let input_sizes = InputSizes::following(&Config::lite(), &Config::lite());
        assert!(input_sizes.follows_region());
        assert_eq!(input_sizes.of(region(1280, 720)), (192, 336));
        assert_eq!(input_sizes.of(region(720, 1280)), (336, 192));
        assert_eq!(input_sizes.of(region(500, 500)), (256, 256));
        for (width, height) in [(640, 480), (480, 640), (700, 720), (400, 720), (900, 400), (1, 1)] {
            let (h, w) = input_sizes.of(region(width, height));
            let distortion = w as f64 / h as f64 * height as f64 / width as f64;
            assert!((0.88..1.14).contains(&distortion), "{width}x{height}: {h}x{w}");
            assert!((h * w) as f64 > 0.9 * 192.0 * 336.0, "{h}x{w}");
        }
        for (width, height) in [(1, 5000), (5000, 1)] {
            let (h, w) = input_sizes.of(region(width, height));
            assert!(h * w > 0 && (h > w) == (height > width));
        }
    }

    #[test]
    fn regions_with_few_pixels_enter_at_smaller_sizes() {
        let model = Config::lite();
        let sizes =
            |quality: Quality| InputSizes::following(&model.at_size(quality.network_size(&model)), &model);
        let finest = sizes(Quality::Finest);
        for (side, size) in [(0.9, (384, 672)), (0.7, (256, 448)), (0.5, (192, 336)), (0.1, (192, 336))] {
            let region = region((672.0 * side) as usize, (384.0 * side) as usize);
            assert_eq!(finest.of(region), size, "{side}");
            assert_eq!(finest.for_search(region), (192, 336));
            assert_eq!(sizes(Quality::Balanced).of(region), (192, 336));
            assert_eq!(sizes(Quality::Fast).of(region), (176, 304));
        }
    }

    #[test]
    fn the_papers_network_and_fixed_sizes_ignore_the_region() {
        let config = Config::resnet50();
        for input_sizes in [InputSizes::following(&config, &config), InputSizes::fixed(&config)] {
            assert!(!input_sizes.follows_region());
            assert_eq!(input_sizes.of(region(100, 900)), (512, 512));
        }
        assert_eq!(InputSizes::fixed(&Config::lite()).of(region(100, 900)), (192, 336));
        assert!(InputSizes::following(&Config::large(), &Config::large()).follows_region());
    }
}
