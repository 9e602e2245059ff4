// SPDX-License-Identifier: MPL-2.0

//! `prompt`: selects an object in a picture from points or a box.
//!
//! It is MobileSAM (Zhang et al., arXiv:2306.14289), a distilled Segment Anything (Kirillov et al., ICCV 2023). The
//! encoder sees a picture once for all of its prompts, at up to 1024x1024; decoding a prompt takes a small part of its
//! time. The encoder computes in the chosen kind, everything else in float32.

mod candidate;
mod correct;
mod decoder;
mod encoder;
mod input;
mod layers;
mod prompt_encoder;
mod select;
mod transformer;
mod window;

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

pub use self::candidate::Candidate;
use self::candidate::to_alpha;
use self::decoder::MaskDecoder;
use self::encoder::ImageEncoder;
use self::input::{BACKGROUND, LOGITS, MARGIN, Placement, SIDE};
use self::prompt_encoder::{Label, Location, PromptEncoder};
pub use self::select::Selection;
use super::store::Store;
use super::weights::read_tensors;
use crate::image::{Picture, Region, check_size};
use crate::{Error, Result};

/// Weights file.
const BUILT_IN: &[u8] = include_bytes!("../../../models/prompt.safetensors");
/// Name of the weights file in messages.
const ORIGIN: &str = "(built-in prompt network)";
/// Prefix of the names of the image encoder's tensors.
pub const ENCODER: &str = "image_encoder";
/// Maximum number of points in a prompt.
pub const MAX_POINTS: usize = 64;

/// A point of a prompt, in pixels of the picture from its top left corner; the centre of the first pixel is at
/// (0.5, 0.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// Whether the point is on the object; if not, it is on something else.
    pub positive: bool,
}

/// A box around the object, in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Rect {
    /// Returns the intersection over union of two boxes that are not empty, 0 to 1.
    pub fn iou(&self, other: &Self) -> f64 {
        let axis = |a: f64, a_length: f64, b: f64, b_length: f64| {
            ((a + a_length).min(b + b_length) - a.max(b)).max(0.0)
        };
        let both =
            axis(self.x, self.width, other.x, other.width) * axis(self.y, self.height, other.y, other.height);
        both / (self.width * self.height + other.width * other.height - both)
    }
}

impl From<Region> for Rect {
    fn from(region: Region) -> Self {
        let [x, y, width, height] =
            [region.x, region.y, region.width, region.height].map(|value| value as f64);
        Self { x, y, width, height }
    }
}

/// What a user tells about the object: at least one positive point, or a box.
#[derive(Debug, Default)]
pub struct Prompt {
    /// Points on the object and beside it, at most [`MAX_POINTS`].
    pub points: Vec<Point>,
    /// Box around the object.
    pub rect: Option<Rect>,
    /// Logits of an earlier mask of the same picture to be refined, as in [`Candidate::logits`].
    pub mask: Option<Tensor>,
}

impl Prompt {
    /// Checks the prompt against the width and height of its picture.
    ///
    /// # Errors
    /// [`Error::Config`] if it has no positive point, no box and no mask, too many points, a point or box outside of the
    /// picture, an empty box, a value that is not finite, or a mask of another shape.
    pub fn check(&self, (width, height): (usize, usize)) -> Result<()> {
        let (w, h) = (width as f64, height as f64);
        let refuse = |reason: String| Err(Error::Config(reason));
        if self.rect.is_none() && self.mask.is_none() && !self.points.iter().any(|point| point.positive) {
            return refuse("the prompt has neither a box nor a point on the object: give one of them".into());
        }
        self.check_points((width, height))?;
        if let Some(Rect { x, y, width: rect_width, height: rect_height }) = self.rect {
            let size = format!("{rect_width}x{rect_height} at ({x}, {y})");
            if ![x, y, rect_width, rect_height].into_iter().all(f64::is_finite) {
                return refuse(format!(
                    "the box {size} is not finite: give x, y, width and height in pixels"
                ));
            }
            if rect_width <= 0.0 || rect_height <= 0.0 {
                return refuse(format!("the box {size} is empty: give a width and height above 0"));
            }
            if x < 0.0 || y < 0.0 || x + rect_width > w || y + rect_height > h {
                return refuse(format!(
                    "the box {size} is not inside the picture of {width}x{height}: give x, y, width and height in pixels of \
                     the picture"
                ));
            }
        }
        if let Some(mask) = &self.mask
            && mask.size() != [LOGITS, LOGITS]
        {
            return refuse(format!("the mask of a prompt has the shape {:?}, not 256x256", mask.size()));
        }
        Ok(())
    }

    fn check_points(&self, (width, height): (usize, usize)) -> Result<()> {
        if self.points.len() > MAX_POINTS {
            let count = self.points.len();
            return Err(Error::Config(format!("the prompt has {count} points: at most {MAX_POINTS}")));
        }
        for Point { x, y, .. } in &self.points {
            if !((0.0..=width as f64).contains(x) && (0.0..=height as f64).contains(y)) {
                let reason = format!("the point ({x}, {y}) is outside of the picture of {width}x{height}");
                return Err(Error::Config(reason));
            }
        }
        Ok(())
    }

    /// The same prompt with the part of its box that is inside of a picture, if any is.
    #[cfg(feature = "plugin")]
    pub(crate) fn clipped(mut self, (width, height): (usize, usize)) -> Self {
        if let Some(rect) = &mut self.rect {
            let (x, y) = (rect.x.max(0.0), rect.y.max(0.0));
            let (right, bottom) =
                ((rect.x + rect.width).min(width as f64), (rect.y + rect.height).min(height as f64));
            let is_finite = [rect.x, rect.y, rect.width, rect.height].into_iter().all(f64::is_finite);
            if is_finite && right > x && bottom > y {
                *rect = Rect { x, y, width: right - x, height: bottom - y };
            }
        }
        self
    }

    /// The same prompt for the picture scaled by `scale` to the width and height `size`. The mask is dropped.
    #[cfg(feature = "plugin")]
    pub(crate) fn scaled(&self, scale: (f64, f64), (width, height): (usize, usize)) -> Self {
        // Rounding must not move anything out of the picture.
        let x = |at: f64| (at * scale.0).min(width as f64);
        let y = |at: f64| (at * scale.1).min(height as f64);
        let points =
            self.points.iter().map(|point| Point { x: x(point.x), y: y(point.y), ..*point }).collect();
        let rect = self.rect.map(|rect| {
            let (left, top) = (x(rect.x), y(rect.y));
            Rect {
                x: left,
                y: top,
                width: x(rect.x + rect.width) - left,
                height: y(rect.y + rect.height) - top,
            }
        });
        Self { points, rect, mask: None }
    }

    fn locations(&self, placement: &Placement) -> Vec<Location> {
        let locate = |x: f64, y: f64, label| {
            let (x, y) = placement.to_input((x, y));
            Location { x, y, label }
        };
        let points = self.points.iter().map(|point| {
            locate(point.x, point.y, if point.positive { Label::Positive } else { Label::Negative })
        });
        let mut locations: Vec<_> = points.collect();
        match self.rect {
            Some(rect) => locations.extend([
                locate(rect.x, rect.y, Label::TopLeft),
                locate(rect.x + rect.width, rect.y + rect.height, Label::BottomRight),
            ]),
            None => locations.push(Location { x: 0.0, y: 0.0, label: Label::Padding }),
        }
        locations
    }
}

/// Returns a mask prompt from soft alpha, 0 to 255, of a picture.
fn mask_prompt(alpha: &[u8], placement: Placement) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let size = placement.picture();
    let alpha = Tensor::f_from_data_size(alpha, &[size.1 as i64, size.0 as i64], Kind::Uint8)?;
    let share = alpha.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
    placement.to_logits(&share.f_logit(1e-4)?)
}

/// Returns the tensors of the built-in weights.
///
/// # Errors
/// [`Error::Torch`] when memory runs out.
pub fn built_in() -> Result<BTreeMap<String, Tensor>> {
    read_tensors(BUILT_IN, Path::new(ORIGIN))
}

fn decoders(
    tensors: &BTreeMap<String, Tensor>,
    origin: &Path,
    device: Device,
) -> Result<(PromptEncoder, MaskDecoder)> {
    let store = Store::new(tensors, origin, (device, Kind::Float));
    Ok((PromptEncoder::new(&store.at("prompt_encoder"))?, MaskDecoder::new(&store.at("mask_decoder"))?))
}

/// An encoded picture.
#[derive(Debug)]
pub struct Embedding {
    /// (1, 256, n, n) float32: the first n rows and columns of 64x64 positions, of which the picture needs fewer.
    features: Tensor,
    placement: Placement,
}

impl Embedding {
    /// The features, (1, 256, n, n) float32 on the device of the network; n = 64 for whole pictures.
    pub fn features(&self) -> &Tensor {
        &self.features
    }

    /// Returns the part of masks (…, 256, 256) that shows the picture, in whole positions.
    ///
    /// # Errors
    /// [`Error::Torch`] for other shapes.
    pub fn valid(&self, masks: &Tensor) -> Result<Tensor> {
        self.placement.valid(masks)
    }

    /// Returns soft alpha at the size of the picture, 0 to 255, row by row, from logits (256, 256).
    ///
    /// # Errors
    /// [`Error::Torch`] for another shape.
    pub fn alpha(&self, logits: &Tensor) -> Result<Vec<u8>> {
        to_alpha(&self.placement.to_picture(logits)?)
    }
}

/// The network.
#[derive(Debug)]
pub struct PromptNetwork {
    encoder: ImageEncoder,
    prompts: PromptEncoder,
    decoder: MaskDecoder,
    /// Encoded positions of the embedding, (1, 64 * 64, 256).
    positions: Tensor,
    kind: Kind,
}

impl PromptNetwork {
    /// Loads the built-in weights. The encoder computes in `kind`.
    ///
    /// # Errors
    /// [`Error::Torch`] if the device or its memory is not available.
    pub fn load(device: Device, kind: Kind) -> Result<Self> {
        Self::from_tensors(&built_in()?, Path::new(ORIGIN), device, kind)
    }

    /// Creates a network from the tensors of the weights file `origin`.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing or of another shape; [`Error::Torch`] if the device or its memory is not
    /// available.
    pub fn from_tensors(
        tensors: &BTreeMap<String, Tensor>,
        origin: &Path,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let encoder = ImageEncoder::new(&Store::new(tensors, origin, (device, kind)).at(ENCODER))?;
        let (prompts, decoder) = decoders(tensors, origin, device)?;
        Ok(Self { encoder, positions: prompts.grid(SIDE / 16)?, decoder, prompts, kind })
    }

    /// Replaces all but the image encoder by `tensors`, to which gradients of [`logits`](Self::logits) flow if they are
    /// float32 on the device of the network.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing or of another shape.
    pub fn set_decoder(&mut self, tensors: &BTreeMap<String, Tensor>, origin: &Path) -> Result<()> {
        (self.prompts, self.decoder) = decoders(tensors, origin, self.prompts.device())?;
        let _guard = tch::no_grad_guard();
        self.positions = self.prompts.grid(SIDE / 16)?;
        Ok(())
    }

    /// Encodes a picture of any size up to [`MAX_SIDE`](crate::image::MAX_SIDE) and
    /// [`MAX_PIXELS`](crate::image::MAX_PIXELS).
    ///
    /// # Errors
    /// [`Error::Config`] if the picture is larger, or does not fit in its data.
    pub fn encode(&self, picture: &Picture) -> Result<Embedding> {
        self.encode_with(picture, SIDE, MARGIN)
    }

    /// As [`encode`](Self::encode), but computes the features of all of the padding, as MobileSAM does. This takes up to
    /// twice the time.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_with_padding(&self, picture: &Picture) -> Result<Embedding> {
        self.encode_with(picture, SIDE, SIDE)
    }

    /// Encodes a picture whose longer side has `side` pixels of the input, and `margin` pixels of padding.
    fn encode_with(&self, picture: &Picture, side: i64, margin: i64) -> Result<Embedding> {
        let _guard = tch::no_grad_guard();
        let size = (picture.width, picture.height);
        check_size(size.0, size.1).map_err(|reason| Error::Config(format!("the picture: {reason}")))?;
        let placement = Placement::with_side(size, side);
        let input =
            placement.input(picture, margin)?.f_to_device(self.prompts.device())?.f_to_kind(self.kind)?;
        let features = self.encoder.forward(&input)?.f_to_kind(Kind::Float)?;
        // The features of padding do not depend on its position, except near the picture.
        let positions = ((side + margin) / 16).min(SIDE / 16);
        let missing = |dim: i64| positions - features.size()[dim as usize];
        let features = features.f_replication_pad2d([0, missing(3), 0, missing(2)])?.f_contiguous()?;
        Ok(Embedding { features, placement })
    }

    /// Returns the masks for a prompt in pixels of the encoded picture. The first suits prompts that define the
    /// object, such as a box or several points; the others are a part, a larger part and the whole of what is at an
    /// ambiguous point.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Prompt::check`].
    pub fn decode(&self, embedding: &Embedding, prompt: &Prompt) -> Result<Vec<Candidate>> {
        let _guard = tch::no_grad_guard();
        let (logits, iou) = self.logits(embedding, prompt)?;
        let placement = embedding.placement;
        let iou: Vec<f32> = Vec::try_from(iou.f_to_device(Device::Cpu)?)?;
        let logits = logits.f_to_device(Device::Cpu)?.f_unbind(0)?;
        let candidates = logits.into_iter().zip(iou);
        Ok(candidates.map(|(logits, iou)| Candidate { logits, iou: f64::from(iou), placement }).collect())
    }

    /// Returns the logits (4, 256, 256) of the masks of [`decode`](Self::decode), and their predicted IoU (4), float32 on
    /// the device of the network.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Prompt::check`].
    pub fn logits(&self, embedding: &Embedding, prompt: &Prompt) -> Result<(Tensor, Tensor)> {
        let placement = embedding.placement;
        prompt.check(placement.picture())?;
        let locations = self.prompts.locations(&prompt.locations(&placement))?;
        let (_, channels, rows, columns) = embedding.features.size4()?;
        let part = |x: Tensor, scale: i64| -> Result<Tensor> {
            Ok(x.f_narrow(1, 0, scale * rows)?.f_narrow(2, 0, scale * columns)?)
        };
        let dense = match &prompt.mask {
            Some(mask) => {
                let mask = mask.f_to_device(self.prompts.device())?.f_to_kind(Kind::Float)?;
                self.prompts.mask(&part(mask.f_unsqueeze(0)?, LOGITS * 16 / SIDE)?.f_unsqueeze(0)?)?
            }
            None => self.prompts.no_mask()?,
        };
        let features = embedding.features.f_add(&dense)?;
        let side = SIDE / 16;
        let positions = part(self.positions.f_reshape([1, side, side, channels])?, 1)?.f_flatten(1, 2)?;
        let (logits, iou) = self.decoder.forward(&features, &positions, &locations)?;
        let missing = |dim: usize| LOGITS - logits.size()[dim];
        let padding = [0, missing(2), 0, missing(1)];
        if padding == [0; 4] {
            return Ok((logits, iou));
        }
        let logits = logits.f_sub_scalar(BACKGROUND)?.f_constant_pad_nd(padding)?.f_add_scalar(BACKGROUND)?;
        Ok((logits, iou))
    }
}

#[cfg(test)]
mod tests;
