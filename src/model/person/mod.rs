// SPDX-License-Identifier: MPL-2.0

//! `person`: finds the people in a picture, without a prompt.
//!
//! It is MediaPipe Selfie Segmentation in the variant for landscape pictures, for inference: a MobileNetV3 encoder
//! (Howard et al., ICCV 2019), its LR-ASPP head, and a decoder with channel attention. 106,401 parameters. It is
//! trained for people in front of a camera: up to about two metres away, head and upper body in the picture.
//!
//! ```no_run
//! # fn main() -> gstfastganseg::Result<()> {
//! use gstfastganseg::image::OwnedPicture;
//! use gstfastganseg::torch::model::person::PersonNetwork;
//!
//! let network = PersonNetwork::load(tch::Device::Cpu, tch::Kind::Float)?;
//! let picture = OwnedPicture::open("me.jpg".as_ref())?;
//! if let Some(person) = network.find_person(&picture.as_picture())? {
//!     println!("{:?} covers {:.0} % of the picture", person.region, 100.0 * person.share);
//! }
//! # Ok(())
//! # }
//! ```

mod layers;
mod mask;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use self::layers::{Activation, Block, BlockSpec, DecoderBlock, Head};
pub use self::mask::{MIN_SHARE, Person, PersonMask};
use super::layers::{Conv, ConvSpec, channels_last, picture_tensor, shrink};
use super::store::Store;
use super::weights::read_tensors;
use crate::image::{Picture, check_size};
use crate::{Error, Result};

/// Weights file.
const BUILT_IN: &[u8] = include_bytes!("../../../models/person.safetensors");
/// Name of the weights file in messages.
const ORIGIN: &str = "(built-in person network)";
/// Rows of the network's input and of its mask.
pub const HEIGHT: i64 = 144;
/// Columns of the network's input and of its mask.
pub const WIDTH: i64 = 256;
/// Smallest IoU of the masks of a picture and of its mirror image that counts as a person. Among photos without people it
/// refuses nine in ten masks, among portraits one in ten.
pub const MIN_AGREEMENT: f64 = 0.9;
/// Channels of the stem.
const STEM: i64 = 16;
/// Channels of the head.
const HEAD: i64 = 128;

/// The encoder's blocks.
const BLOCKS: [BlockSpec; 8] = {
    const fn relu(inputs: i64, hidden: i64, outputs: i64, stride: i64, attention: Option<i64>) -> BlockSpec {
        BlockSpec { inputs, hidden, outputs, side: 3, stride, attention, activation: Activation::Relu }
    }
    const fn swish(inputs: i64, hidden: i64, stride: i64, attention: i64) -> BlockSpec {
        let (attention, activation) = (Some(attention), Activation::HardSwish);
        BlockSpec { inputs, hidden, outputs: 32, side: 5, stride, attention, activation }
    }
    [
        relu(STEM, 16, 16, 2, Some(8)),
        relu(16, 72, 24, 2, None),
        relu(24, 88, 24, 1, None),
        swish(24, 96, 2, 24),
        swish(32, 128, 1, 32),
        swish(32, 128, 1, 32),
        swish(32, 96, 1, 24),
        swish(32, 96, 1, 24),
    ]
};

/// The network.
#[derive(Debug)]
pub struct PersonNetwork {
    stem: Conv,
    blocks: Vec<Block>,
    head: Head,
    decoder: Vec<DecoderBlock>,
    /// Transposed convolution, (16, 1, 2, 2) and (1).
    output: (Tensor, Tensor),
    device: Device,
    kind: Kind,
}

impl PersonNetwork {
    /// Loads the built-in weights. The network computes in `kind`.
    ///
    /// # Errors
    /// [`Error::Torch`] if the device or its memory is not available.
    pub fn load(device: Device, kind: Kind) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let tensors = read_tensors(BUILT_IN, Path::new(ORIGIN))?;
        let store = Store::new(&tensors, Path::new(ORIGIN), (device, kind));
        let (encoder, decoder, output) = (store.at("encoder"), store.at("decoder"), store.at("output"));
        let blocks = encoder.at("blocks");
        let [.., last] = BLOCKS;
        // Inputs, and channels of the encoder features of the same resolution.
        let levels = [(HEAD, 24), (24, 16), (16, STEM)];
        Ok(Self {
            stem: encoder.at("stem").conv(ConvSpec::square(3, STEM, 3).strided_same(2))?,
            blocks: BLOCKS
                .into_iter()
                .enumerate()
                .map(|(index, spec)| Block::new(&blocks.at(index), spec))
                .collect::<Result<_>>()?,
            head: Head::new(&store.at("head"), last.outputs, HEAD)?,
            decoder: levels
                .into_iter()
                .enumerate()
                .map(|(index, (inputs, channels))| DecoderBlock::new(&decoder.at(index), inputs, channels))
                .collect::<Result<_>>()?,
            output: (output.tensor("weight", &[STEM, 1, 2, 2])?, output.tensor("bias", &[1])?),
            device,
            kind,
        })
    }

    /// Returns the mask of all people in a picture of any size up to [`MAX_SIDE`](crate::image::MAX_SIDE) and
    /// [`MAX_PIXELS`](crate::image::MAX_PIXELS). The picture is scaled to 256x144 whatever its aspect ratio is.
    ///
    /// # Errors
    /// [`Error::Config`] if the picture is larger, or does not fit in its data.
    pub fn segment(&self, picture: &Picture) -> Result<PersonMask> {
        let _guard = tch::no_grad_guard();
        let probability = self.probability(&self.image(picture)?)?.f_reshape([HEIGHT, WIDTH])?;
        Ok(PersonMask { probability, picture: (picture.width, picture.height) })
    }

    /// Returns the largest person in a picture, or `None` if there seems to be none.
    ///
    /// In a picture without people, the network often segments something else. Such masks seldom agree with those of
    /// the mirrored picture. A person is returned if the two masks have an IoU of at least [`MIN_AGREEMENT`]. The alpha
    /// is that of their mean.
    ///
    /// # Errors
    /// Those of [`segment`](Self::segment).
    pub fn find_person(&self, picture: &Picture) -> Result<Option<Person>> {
        let _guard = tch::no_grad_guard();
        let image = self.image(picture)?;
        let masks = self.probability(&Tensor::f_cat(&[&image, &image.f_flip([3])?], 0)?)?;
        let (mask, mirrored) = (masks.f_get(0)?, masks.f_get(1)?.f_flip([1])?);
        let probability = mask.f_add(&mirrored)?.f_mul_scalar(0.5)?;
        let mean = PersonMask { probability, picture: (picture.width, picture.height) };
        match mean.largest()? {
            Some(largest) if largest.agreement([&mask, &mirrored])? >= MIN_AGREEMENT => {
                Ok(Some(largest.into_person()?))
            }
            _ => Ok(None),
        }
    }

    /// Returns the input (1, 3, 144, 256) for a picture.
    fn image(&self, picture: &Picture) -> Result<Tensor> {
        check_size(picture.width, picture.height)
            .map_err(|reason| Error::Config(format!("the picture: {reason}")))?;
        let image = shrink(&picture_tensor(picture)?, HEIGHT, WIDTH)?;
        let image = image.f_to_device(self.device)?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        Ok(image.f_to_kind(self.kind)?)
    }

    /// Maps images (N, 3, H, W), RGB in [0, 1], to probabilities (N, H, W) float32 on the CPU.
    fn probability(&self, images: &Tensor) -> Result<Tensor> {
        let logits = self.forward(&channels_last(images)?)?.f_squeeze_dim(1)?;
        Ok(logits.f_to_kind(Kind::Float)?.f_sigmoid()?.f_to_device(Device::Cpu)?.f_contiguous()?)
    }

    /// Maps images (N, 3, H, W), RGB in [0, 1], to logits (N, 1, H, W).
    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let mut x = Activation::HardSwish.apply(self.stem.forward(image)?)?;
        let mut skips = Vec::new();
        for (block, spec) in self.blocks.iter().zip(BLOCKS) {
            let y = block.forward(&x)?;
            if spec.stride == 2 {
                skips.push(x);
            }
            x = y;
        }
        x = self.head.forward(&x)?;
        for (block, skip) in self.decoder.iter().zip(skips.iter().rev()) {
            x = block.forward(&x, skip)?;
        }
        let (weight, bias) = &self.output;
        Ok(x.f_conv_transpose2d(weight, Some(bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])?)
    }
}

#[cfg(test)]
mod tests;
