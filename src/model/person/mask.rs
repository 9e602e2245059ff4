// SPDX-License-Identifier: MPL-2.0

//! The mask of all people in a picture, and the largest person in it.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

use super::{HEIGHT, WIDTH};
use crate::Result;
use crate::image::{Region, connected_components, neighbours};
use crate::model::layers::{resize, to_bytes};

/// Probability above which a position shows a person.
const THRESHOLD: f32 = 0.5;
/// Probability that rounds to alpha 1; positions below it are transparent.
const VISIBLE: f32 = 0.5 / 255.0;
/// Smallest share of the picture that counts as a person. The network is meant for people up to two metres away, who
/// cover more; masks of a few percent are often a thing.
pub const MIN_SHARE: f64 = 0.05;

/// Mask of all people in a picture.
#[derive(Debug)]
pub struct PersonMask {
    /// Probability that a position shows a person, (144, 256) float32 on the CPU. It covers the whole picture.
    pub probability: Tensor,
    /// Width and height of the picture.
    pub(super) picture: (usize, usize),
}

/// One person of a [`PersonMask`].
#[derive(Clone, Debug)]
pub struct Person {
    /// Bounds of the person in pixels of the picture. Their precision is one position of the mask.
    pub region: Region,
    /// Share of the picture that the person covers, [`MIN_SHARE`] to 1.
    pub share: f64,
    /// Soft alpha at the size of the picture, 0 to 255, row by row. Other people are transparent.
    pub alpha: Vec<u8>,
}

impl PersonMask {
    /// Returns soft alpha of all people at the size of the picture, 0 to 255, row by row.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn alpha(&self) -> Result<Vec<u8>> {
        let _guard = tch::no_grad_guard();
        let (width, height) = (self.picture.0 as i64, self.picture.1 as i64);
        let enlarged = resize(&self.probability.f_reshape([1, 1, HEIGHT, WIDTH])?, height, width)?;
        to_bytes(&enlarged)
    }

    /// Returns the person that covers most of the picture, or `None` if nobody covers [`MIN_SHARE`] of it. People whose
    /// masks touch count as one.
    ///
    /// The mask alone does not tell whether there is a person at all: see
    /// [`find_person`](super::PersonNetwork::find_person).
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn largest_person(&self) -> Result<Option<Person>> {
        self.largest()?.map(Largest::into_person).transpose()
    }

    /// As [`largest_person`](Self::largest_person), at the size of the mask.
    pub(super) fn largest(&self) -> Result<Option<Largest>> {
        let size = (HEIGHT as usize, WIDTH as usize);
        let values: Vec<f32> = Vec::try_from(self.probability.f_flatten(0, 1)?)?;
        let components = connected_components(size, |position| values[position] > THRESHOLD);
        let largest = (0..components.len()).max_by_key(|&index| components[index].len());
        let share = |index: usize| components[index].len() as f64 / values.len() as f64;
        let Some(largest) = largest.filter(|&index| share(index) >= MIN_SHARE) else { return Ok(None) };
        let kept = values.iter().zip(owners(&values, &components, size));
        let kept = kept.map(|(&value, owner)| if owner == Some(largest) { value } else { 0.0 });
        let kept: Vec<f32> = kept.collect();
        let probability = Tensor::f_from_slice(&kept)?.f_reshape([HEIGHT, WIDTH])?;
        let bounds = Region::bounding(&kept, size.1, |value| *value > THRESHOLD);
        Ok(bounds.map(|bounds| Largest {
            mask: Self { probability, picture: self.picture },
            region: bounds.scaled((size.1, size.0), self.picture),
            share: share(largest),
        }))
    }
}

/// The largest person of a mask, at the size of the mask.
#[derive(Debug)]
pub struct Largest {
    mask: PersonMask,
    region: Region,
    share: f64,
}

impl Largest {
    /// Returns the IoU of two masks (144, 256) where this person is.
    pub fn agreement(&self, masks: [&Tensor; 2]) -> Result<f64> {
        let here = self.mask.probability.f_gt(0.0)?;
        let count = |mask: &Tensor| -> Result<f64> {
            let inside = mask.f_gt(f64::from(THRESHOLD))?.f_logical_and(&here)?;
            Ok(inside.f_sum(Kind::Float)?.f_double_value(&[])?)
        };
        let [a, b] = masks;
        Ok(count(&a.f_minimum(b)?)? / count(&a.f_maximum(b)?)?.max(1.0))
    }

    pub fn into_person(self) -> Result<Person> {
        Ok(Person { region: self.region, share: self.share, alpha: self.mask.alpha()? })
    }
}

/// Returns the component of each visible position. The soft border of a component is what can be reached from it in
/// fewer steps than from any other.
fn owners(values: &[f32], components: &[Vec<usize>], size: (usize, usize)) -> Vec<Option<usize>> {
    let mut owners = vec![None; values.len()];
    let mut open = VecDeque::new();
    for (index, component) in components.iter().enumerate() {
        component.iter().for_each(|&position| owners[position] = Some(index));
        open.extend(component);
    }
    while let Some(position) = open.pop_front() {
        for next in neighbours(position, size) {
            if owners[next].is_none() && values[next] >= VISIBLE {
                owners[next] = owners[position];
                open.push_back(next);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const PICTURE: (usize, usize) = (640, 360);

    /// A mask with a value in each region of (x, y, width, height).
    fn mask(regions: &[([i64; 4], f64)]) -> PersonMask {
        let probability = Tensor::zeros([HEIGHT, WIDTH], (Kind::Float, Device::Cpu));
        for &([x, y, width, height], value) in regions {
            let _ = probability.narrow(0, y, height).narrow(1, x, width).fill_(value);
        }
        PersonMask { probability, picture: PICTURE }
    }

    #[test]
    fn alpha_covers_the_picture() {
        let alpha = mask(&[([128, 0, 128, 144], 1.0), ([0, 72, 128, 72], 0.4)]).alpha().unwrap();
        assert_eq!(alpha.len(), 640 * 360);
        let at = |x: usize, y: usize| alpha[y * 640 + x];
        assert_eq!((at(10, 10), at(10, 350), at(330, 10), at(630, 350)), (0, 102, 255, 255));
        assert!(at(319, 10) < 128 && at(320, 10) > 127);
    }

    #[test]
    fn the_largest_person_is_returned_without_the_others() {
        // Two people, the smaller with a soft border, and what is neither.
        let regions = [
            ([16, 24, 96, 120], 0.9),
            ([150, 60, 44, 84], 0.3),
            ([152, 64, 40, 80], 0.8),
            ([220, 8, 16, 16], 0.2),
        ];
        let person = mask(&regions).largest_person().unwrap().unwrap();
        assert_eq!(person.region, Region { x: 40, y: 60, width: 240, height: 300 });
        assert_eq!(person.share, 96.0 * 120.0 / (144.0 * 256.0));
        let rows = person.alpha.chunks_exact(640);
        let seen = |column: usize| rows.clone().any(|row| row[column] > 0);
        let columns: Vec<usize> = (0..640).filter(|&column| seen(column)).collect();
        assert_eq!((columns[0], columns.len()), (39, 242), "one position of interpolation at each side");
        assert_eq!(person.alpha[200 * 640 + 100], 230);
    }

    #[test]
    fn a_soft_border_belongs_to_the_nearest_person() {
        let regions = [([0, 0, 256, 144], 0.1), ([0, 0, 100, 144], 1.0), ([200, 0, 56, 144], 1.0)];
        let alpha = mask(&regions).largest_person().unwrap().unwrap().alpha;
        let at = |x: usize| alpha[180 * 640 + x];
        assert_eq!((at(0), at(300), at(366), at(386), at(639)), (255, 26, 26, 0, 0));
    }

    #[test]
    fn agreement_counts_the_person_alone() {
        let person = [128, 44, 80, 100];
        let beside = mask(&[(person, 0.9), ([0, 0, 50, 50], 0.8)]).probability;
        let shifted = mask(&[([138, 44, 80, 100], 0.9)]).probability;
        let mean = (&beside + &shifted) * 0.5;
        let largest = PersonMask { probability: mean, picture: PICTURE }.largest().unwrap().unwrap();
        let agreement = largest.agreement([&beside, &shifted]).unwrap();
        assert!((agreement - 70.0 / 90.0).abs() < 1e-6, "{agreement}");
        assert_eq!(largest.agreement([&beside, &beside]).unwrap(), 1.0);
    }

    #[test]
    fn small_regions_are_nobody() {
        // 1843.2 positions are 5 % of the mask.
        let (below, above) = ([0, 0, 97, 19], [0, 0, 97, 20]);
        assert!(mask(&[]).largest_person().unwrap().is_none());
        assert!(mask(&[([0, 0, 256, 144], 0.5)]).largest_person().unwrap().is_none());
        assert!(mask(&[(below, 1.0)]).largest_person().unwrap().is_none());
        assert!(mask(&[(below, 1.0), ([100, 100, 97, 19], 1.0)]).largest_person().unwrap().is_none());
        let person = mask(&[(above, 1.0)]).largest_person().unwrap().unwrap();
        assert!(person.share > MIN_SHARE);
    }
}
