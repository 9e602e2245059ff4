//! The network alone on the whole frame, at several scales and with the background as an object of its own:
//! how Oh et al., *Fast Video Object Segmentation by Reference-Guided Mask Propagation* (CVPR 2018, RGMP)
//! test, to which the paper compares its regressor.

use gstfastganseg::device::{self, DeviceChoice, Precision};
use gstfastganseg::model::layers::{channels_last, resize};
use gstfastganseg::model::weights::Weights;
use gstfastganseg::model::{Config, Lite, Matching, Regressor, Resnet50, prepare, zero_init};
use gstfastganseg::tracker::MAX_OBJECTS;
use image::RgbImage;
use tch::{Device, Kind, Tensor, nn};

use super::Propagator;
use crate::{LabelMap, Result};

/// Probabilities are kept this far from 0 and 1, where their odds are none.
const EDGE: f64 = 1e-7;

/// How the network is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Multiscale {
    /// Factors of the network size; the masks of all are averaged. RGMP has ½, ¾ and 1.
    pub scales: Vec<f64>,
    /// Whether the background is propagated as an object too, in place of what the objects leave.
    pub background: bool,
    /// Where it runs.
    pub device: DeviceChoice,
    /// In what kind of number.
    pub precision: Precision,
}

/// A network of either architecture, with one reference and state a scale.
trait Passes {
    fn begin(&mut self, views: &[(Tensor, Tensor)]) -> Result<()>;
    fn step(&mut self, images: &[Tensor]) -> Result<Vec<Tensor>>;
    fn observe(&mut self, masks: &[Tensor]) -> Result<()>;
}

struct Running<R: Regressor> {
    model: R,
    followed: Vec<(R::Reference, R::State)>,
}

impl<R: Regressor> Passes for Running<R> {
    fn begin(&mut self, views: &[(Tensor, Tensor)]) -> Result<()> {
        let model = &self.model;
        let begin = |(image, masks): &(Tensor, Tensor)| {
            let reference = model.reference(image, masks)?;
            let state = model.start(&reference)?;
            Ok((reference, state))
        };
        self.followed = views.iter().map(begin).collect::<Result<_>>()?;
        Ok(())
    }

    fn step(&mut self, images: &[Tensor]) -> Result<Vec<Tensor>> {
        let model = &self.model;
        let scales = self.followed.iter_mut().zip(images);
        scales.map(|((reference, state), image)| Ok(model.step(image, reference, state)?)).collect()
    }

    fn observe(&mut self, masks: &[Tensor]) -> Result<()> {
        let model = &self.model;
        let mut scales = self.followed.iter_mut().zip(masks);
        scales.try_for_each(|((reference, state), masks)| Ok(model.observe(masks, reference, state)?))
    }
}

/// Carries masks by the network alone.
pub struct MultiscalePropagator {
    passes: Box<dyn Passes>,
    /// Height and width at each scale, and at scale 1.
    sizes: Vec<(i64, i64)>,
    full: (i64, i64),
    background: bool,
    device: Device,
    kind: Kind,
    ids: Vec<u8>,
}

impl MultiscalePropagator {
    /// Loads the weights.
    ///
    /// # Errors
    /// No scale or one that makes no sense, weights that do not fit, a device or precision that cannot be had.
    pub fn new(weights: &Weights, settings: &Multiscale) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let config = weights.config();
        let sizes = sizes(config, &settings.scales)?;
        let (device, _) = device::open(settings.device)?;
        let kind = settings.precision.kind(device)?;
        let store = nn::VarStore::new(Device::Cpu);
        let passes: Box<dyn Passes> = match config.matching {
            Matching::Affinity => {
                let mut model = zero_init(|| Lite::new(&store.root(), config))?;
                weights.fill(&store)?;
                prepare(&mut model, device, kind)?;
                Box::new(Running { model, followed: Vec::new() })
            }
            Matching::GlobalConvolution => {
                let mut model = zero_init(|| Resnet50::new(&store.root(), config))?;
                weights.fill(&store)?;
                prepare(&mut model, device, kind)?;
                Box::new(Running { model, followed: Vec::new() })
            }
        };
        let background = settings.background;
        Ok(Self { passes, sizes, full: config.size(), background, device, kind, ids: Vec::new() })
    }

    /// The picture at every scale, in the network's kind.
    fn images(&self, picture: &RgbImage) -> Result<Vec<Tensor>> {
        let size = [1, i64::from(picture.height()), i64::from(picture.width()), 3];
        let image = Tensor::f_from_data_size(picture.as_raw(), &size, Kind::Uint8)?
            .f_to_device(self.device)?
            .f_permute([0, 3, 1, 2])?
            .f_to_kind(Kind::Float)?
            .f_div_scalar(255.0)?;
        let at = |&size: &(i64, i64)| Ok(channels_last(&shrink(&image, size)?.f_to_kind(self.kind)?)?);
        self.sizes.iter().map(at).collect()
    }
}

impl Propagator for MultiscalePropagator {
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let mut ids: Vec<u8> =
            labels.ids().iter().copied().filter(|&id| id != 0 && id != LabelMap::VOID).collect();
        ids.sort_unstable();
        ids.dedup();
        let refuse = |reason: String| Err(gstfastganseg::Error::Config(reason).into());
        if ids.is_empty() {
            return refuse("the mask has no object".into());
        }
        if ids.len() > MAX_OBJECTS {
            return refuse(format!(
                "the mask has {} objects; at most {MAX_OBJECTS} can be followed",
                ids.len()
            ));
        }
        let size = [1, 1, labels.height() as i64, labels.width() as i64];
        let map = Tensor::f_from_data_size(labels.ids(), &size, Kind::Uint8)?.f_to_device(self.device)?;
        let first = self.background.then_some(0);
        let planes = first
            .iter()
            .chain(&ids)
            .map(|&id| Ok(map.f_eq(i64::from(id))?.f_to_kind(Kind::Float)?))
            .collect::<Result<Vec<_>>>()?;
        let masks = Tensor::f_cat(&planes, 0)?;
        let images = self.images(picture)?;
        let views = images
            .into_iter()
            .zip(&self.sizes)
            .map(|(image, &size)| Ok((image, shrink(&masks, size)?)))
            .collect::<Result<Vec<_>>>()?;
        self.passes.begin(&views)?;
        self.ids = ids;
        Ok(())
    }

    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let _no_grad = tch::no_grad_guard();
        if self.ids.is_empty() {
            return Err(gstfastganseg::Error::NoReference.into());
        }
        let logits = self.passes.step(&self.images(picture)?)?;
        let mut sum = None::<Tensor>;
        for logits in &logits {
            let masks = resize(&logits.f_sigmoid()?, self.full.0, self.full.1)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&masks)?,
                None => masks,
            });
        }
        let Some(sum) = sum else { return Err(gstfastganseg::Error::NoReference.into()) };
        let shares = aggregate(&sum.f_div_scalar(logits.len() as f64)?, self.background)?;
        // Those of the objects, and before them that of the background if it is one of them.
        let fed_back = if self.background {
            shares.shallow_clone()
        } else {
            shares.f_narrow(0, 1, self.ids.len() as i64)?
        };
        let fed_back = self.sizes.iter().map(|&size| shrink(&fed_back, size)).collect::<Result<Vec<_>>>()?;
        self.passes.observe(&fed_back)?;

        let winner = resize(&shares, height as i64, width as i64)?.f_argmax(0, false)?;
        let winner = Vec::<i64>::try_from(&winner.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
        let id = |&index: &i64| index.checked_sub(1).and_then(|index| self.ids.get(index as usize));
        LabelMap::new(width, height, winner.iter().map(|index| id(index).copied().unwrap_or(0)).collect())
    }
}

/// Softmax aggregation (RGMP, equation 1): shares of background and objects (1 + N, 1, H, W) that sum to one,
/// in proportion to the odds p / (1 − p) of each. `masks` are the objects' (N, 1, H, W), after the background's
/// where it has one; where not, the background is ∏(1 − pᵢ), and a single object stays as it is.
fn aggregate(masks: &Tensor, background: bool) -> Result<Tensor> {
    let all = if background {
        masks.shallow_clone()
    } else {
        let rest = masks.f_neg()?.f_add_scalar(1.0)?.f_prod_dim_int(0, true, None::<Kind>)?;
        let all = Tensor::f_cat(&[&rest, masks], 0)?;
        if masks.size()[0] == 1 {
            return Ok(all);
        }
        all
    };
    Ok(all.f_clamp(EDGE, 1.0 - EDGE)?.f_logit(None)?.f_softmax(0, None::<Kind>)?)
}

/// Bilinear with antialiasing, to (height, width).
fn shrink(x: &Tensor, (height, width): (i64, i64)) -> Result<Tensor> {
    if x.size()[2..] == [height, width] {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?)
}

/// The network size times each scale, rounded to what the network takes.
fn sizes(config: &Config, scales: &[f64]) -> Result<Vec<(i64, i64)>> {
    let step = config.stride();
    if scales.is_empty() {
        return Err(gstfastganseg::Error::Config("scales: give at least one, such as 1".into()).into());
    }
    scales
        .iter()
        .map(|&scale| {
            if !(scale > 0.0 && scale <= 4.0) {
                let reason = format!("scale {scale} is outside (0, 4]");
                return Err(gstfastganseg::Error::Config(reason).into());
            }
            let side = |side: i64| ((side as f64 * scale / step as f64).round() as i64).max(1) * step;
            let (height, width) = config.size();
            let scaled = Config { network_size: [side(height), side(width)], ..config.clone() };
            scaled.validate()?;
            Ok(scaled.size())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gstfastganseg::model::TemporalSkip;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn config() -> Config {
        Config {
            width: 0.125,
            network_size: [64, 64],
            temporal_skip: TemporalSkip::Off,
            ..Config::resnet50()
        }
    }

    fn weights(config: &Config) -> Weights {
        let store = nn::VarStore::new(Device::Cpu);
        match config.matching {
            Matching::Affinity => drop(Lite::new(&store.root(), config).unwrap()),
            Matching::GlobalConvolution => drop(Resnet50::new(&store.root(), config).unwrap()),
        }
        // libtorch's random numbers are one for the process, and other tests draw in between: these are our own.
        let _no_grad = tch::no_grad_guard();
        let mut random = StdRng::seed_from_u64(11);
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        for (name, mut tensor) in variables {
            let bound = match tensor.size()[..] {
                [_, inputs, rows, columns] => 1.0 / ((inputs * rows * columns) as f32).sqrt(),
                _ if name.ends_with("bias") => 0.1,
                _ => continue,
            };
            let values: Vec<f32> = (0..tensor.numel()).map(|_| random.random_range(-bound..bound)).collect();
            tensor.copy_(&Tensor::from_slice(&values).reshape(tensor.size()));
        }
        Weights::of_store(&store, config, &BTreeMap::new(), Kind::Float).unwrap()
    }

    fn settings(scales: &[f64], background: bool) -> Multiscale {
        let (device, precision) = (DeviceChoice::Cpu, Precision::Float32);
        Multiscale { scales: scales.to_vec(), background, device, precision }
    }

    fn picture(seed: u32) -> RgbImage {
        RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 3 + seed) as u8, (y * 2) as u8, (x ^ y) as u8]))
    }

    fn two_objects() -> LabelMap {
        let id = |i: usize| match (i % 64, i / 64) {
            (x, y) if x < 20 && y < 30 => 1,
            (x, y) if x > 40 && y > 30 => 7,
            (30, 30) => LabelMap::VOID,
            _ => 0,
        };
        LabelMap::new(64, 64, (0..64 * 64).map(id).collect()).unwrap()
    }

    #[test]
    fn aggregation_is_by_odds() {
        let p = |values: &[f64]| Tensor::from_slice(values).reshape([-1, 1, 1, 1]);
        let shares = |p: &Tensor, background| {
            Vec::<f64>::try_from(&aggregate(p, background).unwrap().reshape([-1])).unwrap()
        };
        let odds = |p: f64| p / (1.0 - p);
        let sum = odds(0.6) + odds(0.8) + odds(0.3);
        for (found, expected) in shares(&p(&[0.6, 0.8, 0.3]), true).iter().zip([0.6, 0.8, 0.3]) {
            assert!((found - odds(expected) / sum).abs() < 1e-9);
        }
        let rest = odds(0.2 * 0.7);
        let sum = rest + odds(0.8) + odds(0.3);
        let found = shares(&p(&[0.8, 0.3]), false);
        assert!((found[0] - rest / sum).abs() < 1e-9 && (found[1] - odds(0.8) / sum).abs() < 1e-9);
        let alone = shares(&p(&[0.3]), false);
        assert!(
            (alone[0] - 0.7).abs() < 1e-9 && (alone[1] - 0.3).abs() < 1e-9,
            "one object is not sharpened"
        );
        let certain = shares(&p(&[1.0, 0.0]), true);
        assert!(certain.iter().all(|share| share.is_finite()) && certain[0] > 0.999);
    }

    /// One scale without background is the regressor as one would drive it by hand.
    #[test]
    fn one_scale_is_the_network_itself() {
        let config = config();
        let weights = weights(&config);
        let mut method = MultiscalePropagator::new(&weights, &settings(&[1.0], false)).unwrap();
        assert!(method.step(&picture(0), 64, 64).is_err(), "before the first frame");
        let first = two_objects();
        method.start(&picture(0), &first).unwrap();

        let _no_grad = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let model = Resnet50::new(&store.root(), &config).unwrap();
        weights.fill(&store).unwrap();
        let image = |seed: u32| {
            let bytes =
                Tensor::f_from_data_size(picture(seed).as_raw(), &[1, 64, 64, 3], Kind::Uint8).unwrap();
            bytes.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0
        };
        let map = Tensor::f_from_data_size(first.ids(), &[1, 1, 64, 64], Kind::Uint8).unwrap();
        let masks = Tensor::cat(&[map.eq(1), map.eq(7)], 0).to_kind(Kind::Float);
        let reference = model.reference(&image(0), &masks).unwrap();
        let mut state = model.start(&reference).unwrap();
        for seed in 1..4 {
            let found = method.step(&picture(seed), 64, 64).unwrap();
            let p = model.step(&image(seed), &reference, &mut state).unwrap().sigmoid();
            let shares = aggregate(&p, false).unwrap();
            model.observe(&shares.narrow(0, 1, 2), &reference, &mut state).unwrap();
            let winner = Vec::<i64>::try_from(&shares.argmax(0, false).reshape([-1])).unwrap();
            let expected: Vec<u8> = winner.iter().map(|&index| [0, 1, 7][index as usize]).collect();
            let same = found.ids().iter().zip(&expected).filter(|(a, b)| a == b).count();
            assert!(same > 64 * 64 - 8, "{same} of {} alike, but for rounding", 64 * 64);
        }
    }

    #[test]
    fn scales_are_averaged_and_the_background_is_an_object() {
        for config in [config(), Config { width: 0.125, network_size: [64, 96], ..Config::lite() }] {
            let weights = weights(&config);
            let run = |settings: Multiscale| {
                let mut method = MultiscalePropagator::new(&weights, &settings).unwrap();
                method.start(&picture(0), &two_objects()).unwrap();
                method.step(&picture(1), 64, 64).unwrap();
                method.step(&picture(2), 50, 40).unwrap()
            };
            let one = run(settings(&[1.0], false));
            assert_eq!((one.width(), one.height()), (50, 40));
            assert_eq!(run(settings(&[1.0, 1.0, 1.0], false)), one, "the mean of the same is the same");
            let background = run(settings(&[1.0], true));
            let three = run(settings(&[0.5, 0.75, 1.0], true));
            assert!(background != one || three != background, "they are of some effect");
            for labels in [&background, &three] {
                assert!(labels.ids().iter().all(|id| [0, 1, 7].contains(id)));
            }
        }
    }

    #[test]
    fn sizes_are_what_the_network_takes() {
        let found = sizes(&Config::resnet50(), &[0.5, 0.75, 1.0]).unwrap();
        assert_eq!(found, [(256, 256), (384, 384), (512, 512)]);
        assert_eq!(sizes(&Config::lite(), &[0.5]).unwrap(), [(96, 176)]);
        for (scales, word) in
            [(&[][..], "at least one"), (&[0.0], "outside"), (&[f64::NAN], "outside"), (&[4.0], "pixels")]
        {
            let error = sizes(&Config::resnet50(), scales).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
