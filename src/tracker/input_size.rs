// SPDX-License-Identifier: MPL-2.0

//! Input size of the network: follows the aspect ratio of the region at a constant number of pixels.
//!
//! A person who stands in a wide picture fills a fifth of its width. In a tall region with the same number of
//! pixels, three times as many of them show the person at the same cost. The network consists of convolutions and
//! affinities, which accept any size.

use crate::image::Region;
use crate::model::{Config, Matching};

/// Maximum area of an input size relative to the network's own size.
const MAX_AREA_RATIO: f64 = 1.02;

/// Sizes at which regions enter a network.
#[derive(Clone, Debug)]
pub struct InputSizes {
    /// (height, width): the network's own size first, then others of about the same area. All are multiples of the
    /// network's stride.
    sizes: Vec<(i64, i64)>,
}

impl InputSizes {
    /// Every region enters at the network's own size.
    pub fn fixed(config: &Config) -> Self {
        Self { sizes: vec![config.size()] }
    }

    /// Every region enters at the size closest to its aspect ratio.
    ///
    /// The paper's global convolution keeps its own size, because it is bound to the aspect ratio that it was
    /// trained with.
    pub fn following(config: &Config) -> Self {
        let mut input_sizes = Self::fixed(config);
        if config.matching == Matching::GlobalConvolution {
            return input_sizes;
        }
        let (height, width) = config.size();
        let step = config.stride();
        let cells = (height / step * (width / step)) as f64;
        let mut add = |size| {
            if !input_sizes.sizes.contains(&size) {
                input_sizes.sizes.push(size);
            }
        };
        add((width, height));
        // Every other row count only, because each size costs time when it is first used.
        for rows in (1..).map(|n| 2 * n).take_while(|&rows| rows as f64 <= cells / 2.0) {
            let columns = (MAX_AREA_RATIO * cells / rows as f64) as i64;
            add((rows * step, columns * step));
        }
        input_sizes
    }

    /// Returns whether the input size depends on the region.
    pub fn follows_region(&self) -> bool {
        self.sizes.len() > 1
    }

    /// Returns the height and width in pixels at which `region` enters the network.
    pub fn of(&self, region: Region) -> (i64, i64) {
        let wanted = aspect(region.width as f64, region.height as f64);
        let distance = |&(height, width): &(i64, i64)| (aspect(width as f64, height as f64) - wanted).abs();
        // The first of equally close sizes wins, so the network's own size is preferred.
        let nearest =
            |best: (i64, i64), size: (i64, i64)| if distance(&size) < distance(&best) { size } else { best };
        let own = self.sizes[0];
        self.sizes.iter().copied().fold(own, nearest)
    }
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
            let input_sizes = InputSizes::following(&config);
            let area: i64 = network_size.iter().product();
            assert_eq!(input_sizes.sizes[0], config.size());
            for &(height, width) in &input_sizes.sizes {
                assert!(height % 16 == 0 && width % 16 == 0 && height > 0 && width > 0);
                assert!((height * width) as f64 <= MAX_AREA_RATIO * area as f64, "{height}x{width}");
                Config { network_size: [height, width], ..config.clone() }.validate().unwrap();
            }
        }
    }

    #[test]
    fn input_sizes_follow_the_region() {
        let input_sizes = InputSizes::following(&Config::lite());
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
    fn the_papers_network_and_fixed_sizes_ignore_the_region() {
        let config = Config::resnet50();
        for input_sizes in [InputSizes::following(&config), InputSizes::fixed(&config)] {
            assert!(!input_sizes.follows_region());
            assert_eq!(input_sizes.of(region(100, 900)), (512, 512));
        }
        assert_eq!(InputSizes::fixed(&Config::lite()).of(region(100, 900)), (192, 336));
        assert!(InputSizes::following(&Config::large()).follows_region());
    }
}
