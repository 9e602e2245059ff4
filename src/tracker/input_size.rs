//! The shape of what enters the network: that of the region that it is to see, at the same number of pixels.
//!
//! A person who stands in a wide picture fills a fifth of its width. Shown in a tall region at the network's
//! usual number of pixels, they get three times as many of them, for the same work. The network is made of
//! convolutions and comparisons, which take any size.

use crate::image::Region;
use crate::model::{Config, Matching};

/// Share by which a shape may have more pixels than the network's own size.
const MAX_AREA_RATIO: f64 = 1.02;

/// Sizes at which regions enter a network.
#[derive(Clone, Debug)]
pub struct InputSizes {
    /// (height, width): the network's own size, then others of about as many pixels; all of them multiples of the
    /// network's stride.
    sizes: Vec<(i64, i64)>,
}

impl InputSizes {
    /// Whatever is seen is of the network's own size.
    pub fn fixed(config: &Config) -> Self {
        Self { sizes: vec![config.size()] }
    }

    /// What is seen is as wide and high as the region, as nearly as can be, where the network allows it: the
    /// paper's global convolution is bound to the proportions that it was trained with.
    pub fn following(config: &Config) -> Self {
        let mut sizes_ = Self::fixed(config);
        if config.matching == Matching::GlobalConvolution {
            return sizes_;
        }
        let (height, width) = config.size();
        let step = config.stride();
        let cells = (height / step * (width / step)) as f64;
        let mut add = |size| {
            if !sizes_.sizes.contains(&size) {
                sizes_.sizes.push(size);
            }
        };
        add((width, height));
        // Every other row count: a shape costs a moment the first time that it is used.
        for rows in (1..).map(|n| 2 * n).take_while(|&rows| rows as f64 <= cells / 2.0) {
            let columns = (MAX_AREA_RATIO * cells / rows as f64) as i64;
            add((rows * step, columns * step));
        }
        sizes_
    }

    /// Whether there is a choice.
    pub fn follow(&self) -> bool {
        self.sizes.len() > 1
    }

    /// Height and width in pixels at which `region` enters the network.
    pub fn of(&self, region: Region) -> (i64, i64) {
        let wanted = aspect(region.width as f64, region.height as f64);
        let away = |&(height, width): &(i64, i64)| (aspect(width as f64, height as f64) - wanted).abs();
        // The first of equals: the network's own size.
        let nearest =
            |best: (i64, i64), size: (i64, i64)| if away(&size) < away(&best) { size } else { best };
        let own = self.sizes[0];
        self.sizes.iter().copied().fold(own, nearest)
    }
}

/// How much wider than high, on a scale on which twice as wide and twice as high are equally far from square.
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
    fn shapes_have_the_pixels_of_the_networks_own_size() {
        for network_size in [[192, 336], [256, 448], [64, 96], [128, 128], [16, 16], [16, 2048]] {
            let config = Config { network_size, ..Config::lite() };
            let sizes_ = InputSizes::following(&config);
            let area: i64 = network_size.iter().product();
            assert_eq!(sizes_.sizes[0], config.size());
            for &(height, width) in &sizes_.sizes {
                assert!(height % 16 == 0 && width % 16 == 0 && height > 0 && width > 0);
                assert!((height * width) as f64 <= MAX_AREA_RATIO * area as f64, "{height}x{width}");
                Config { network_size: [height, width], ..config.clone() }.validate().unwrap();
            }
        }
    }

    #[test]
    fn regions_are_seen_as_they_are() {
        let sizes_ = InputSizes::following(&Config::lite());
        assert!(sizes_.follow());
        assert_eq!(sizes_.of(region(1280, 720)), (192, 336));
        assert_eq!(sizes_.of(region(720, 1280)), (336, 192));
        assert_eq!(sizes_.of(region(500, 500)), (256, 256));
        for (width, height) in [(640, 480), (480, 640), (700, 720), (400, 720), (900, 400), (1, 1)] {
            let (h, w) = sizes_.of(region(width, height));
            let distortion = w as f64 / h as f64 * height as f64 / width as f64;
            assert!((0.88..1.14).contains(&distortion), "{width}x{height}: {h}x{w}");
            assert!((h * w) as f64 > 0.9 * 192.0 * 336.0, "{h}x{w}");
        }
        for (width, height) in [(1, 5000), (5000, 1)] {
            let (h, w) = sizes_.of(region(width, height));
            assert!(h * w > 0 && (h > w) == (height > width));
        }
    }

    #[test]
    fn the_papers_network_and_those_that_need_not_follow_keep_their_size() {
        for sizes_ in [InputSizes::following(&Config::resnet50()), InputSizes::fixed(&Config::resnet50())] {
            assert!(!sizes_.follow());
            assert_eq!(sizes_.of(region(100, 900)), (512, 512));
        }
        assert_eq!(InputSizes::fixed(&Config::lite()).of(region(100, 900)), (192, 336));
        assert!(InputSizes::following(&Config::large()).follow());
    }
}
