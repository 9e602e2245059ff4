//! Propagation without training: every position takes the mask of those most like it, in the first
//! frame and near by in the last one, by the features of an encoder that has only seen ImageNet.

use std::path::Path;

use gstfastganseg::model::layers::{channels_last, double, resize};
use gstfastganseg::model::lite::encoder::Encoder;
use gstfastganseg::model::{Config, weights};
use image::RgbImage;
use tch::{Device, Kind, Tensor, nn};

use super::Propagator;
use crate::{LabelMap, Result};

/// Height and width at which frames are encoded.
const SIZE: (i64, i64) = (256, 448);
/// Positions, at stride 8, that an object moves from frame to frame at the most.
const RADIUS: f64 = 6.0;
/// Positions that are read from.
const NEIGHBOURS: i64 = 10;
/// Of the softmax over their likeness.
const TEMPERATURE: f64 = 0.05;

/// Encoded frame with its masks, at stride 8.
#[derive(Debug)]
struct Frame {
    /// (channels, positions), unit length.
    keys: Tensor,
    /// (1 + objects, positions), background first.
    masks: Tensor,
}

/// The baseline: the encoder of `lite` with its ImageNet weights.
#[derive(Debug)]
pub struct Propagation {
    encoder: Encoder,
    /// (positions, positions): whether the second is too far from the first.
    far: Tensor,
    ids: Vec<u8>,
    frames: Option<(Frame, Frame)>,
}

impl Propagation {
    /// # Errors
    /// A file that lacks some of the encoder's tensors.
    pub fn new(backbone: &Path) -> Result<Self> {
        let store = nn::VarStore::new(Device::Cpu);
        let encoder = Encoder::new(&(store.root() / "encoder"), &Config::lite());
        weights::load_backbone(backbone, &store, "encoder")?;
        let (h, w) = (SIZE.0 / 8, SIZE.1 / 8);
        let axis = |n: i64| Tensor::f_arange(n, (Kind::Float, Device::Cpu));
        let y = axis(h)?.f_unsqueeze(1)?.f_expand([h, w], false)?.f_reshape([-1])?;
        let x = axis(w)?.f_unsqueeze(0)?.f_expand([h, w], false)?.f_reshape([-1])?;
        let apart =
            |p: &Tensor| -> Result<Tensor> { Ok(p.f_unsqueeze(1)?.f_sub(&p.f_unsqueeze(0)?)?.f_abs()?) };
        let far = apart(&y)?.f_maximum(&apart(&x)?)?.f_gt(RADIUS)?;
        Ok(Self { encoder, far, ids: Vec::new(), frames: None })
    }

    fn keys(&self, picture: &RgbImage) -> Result<Tensor> {
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        let image = Tensor::f_from_data_size(picture, &[1, height, width, 3], Kind::Uint8)?
            .f_permute([0, 3, 1, 2])?
            .f_to_kind(Kind::Float)?
            .f_div_scalar(255.0)?;
        let image = image.f_internal_upsample_bilinear2d_aa([SIZE.0, SIZE.1], false, None, None)?;
        let features = self.encoder.forward(&channels_last(&image)?)?;
        let unit = |x: &Tensor| -> Result<Tensor> {
            let length = x.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(1e-12)?;
            Ok(x.f_div(&length)?)
        };
        let both = Tensor::f_cat(&[unit(&features.s8_expanded)?, unit(&double(&features.s16)?)?], 1)?;
        Ok(unit(&both)?.f_flatten(2, 3)?.f_squeeze_dim(0)?)
    }
}

impl Propagator for Propagation {
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.ids = labels.ids().iter().copied().filter(|&id| id != LabelMap::VOID).collect();
        self.ids.extend([0]);
        self.ids.sort_unstable();
        self.ids.dedup();
        let size = [1, 1, labels.height() as i64, labels.width() as i64];
        let map = Tensor::f_from_data_size(labels.without_void().ids(), &size, Kind::Uint8)?;
        let planes = self
            .ids
            .iter()
            .map(|&id| {
                let plane = map.f_eq(i64::from(id))?.f_to_kind(Kind::Float)?;
                let plane =
                    plane.f_internal_upsample_bilinear2d_aa([SIZE.0 / 8, SIZE.1 / 8], false, None, None)?;
                Ok(plane.f_reshape([1, -1])?)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        let masks = Tensor::f_cat(&planes, 0)?;
        let keys = self.keys(picture)?;
        let first = Frame { keys: keys.shallow_clone(), masks: masks.shallow_clone() };
        self.frames = Some((first, Frame { keys, masks }));
        Ok(())
    }

    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let _no_grad = tch::no_grad_guard();
        let keys = self.keys(picture)?;
        let (first, last) = self.frames.as_mut().ok_or(gstfastganseg::Error::NoReference)?;
        let query = keys.f_transpose(0, 1)?;
        let near = query.f_matmul(&last.keys)?.f_masked_fill(&self.far, -1.0)?;
        let likeness = Tensor::f_cat(&[query.f_matmul(&first.keys)?, near], 1)?;
        let masks = Tensor::f_cat(&[&first.masks, &last.masks], 1)?;
        let (best, index) = likeness.f_topk(NEIGHBOURS, 1, true, false)?;
        let weight = best.f_div_scalar(TEMPERATURE)?.f_softmax(1, None::<Kind>)?;
        let read = masks
            .f_index_select(1, &index.f_reshape([-1])?)?
            .f_reshape([self.ids.len() as i64, -1, NEIGHBOURS])?
            .f_mul(&weight.f_unsqueeze(0)?)?
            .f_sum_dim_intlist([2i64].as_slice(), false, None::<Kind>)?;

        let planes = read.f_reshape([1, self.ids.len() as i64, SIZE.0 / 8, SIZE.1 / 8])?;
        let winner = resize(&planes, height as i64, width as i64)?.f_argmax(1, false)?.f_reshape([-1])?;
        *last = Frame { keys, masks: read };
        let winner = Vec::<i64>::try_from(&winner)?;
        LabelMap::new(width, height, winner.iter().map(|&index| self.ids[index as usize]).collect())
    }
}
