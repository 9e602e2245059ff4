// SPDX-License-Identifier: MPL-2.0

//! Corrections of one object of a matte.

use crate::image::PlaneMut;
use crate::mask::{ObjectMask, ReferenceMask};
use crate::matte::Matte;
use crate::model::prompt::Point;
use crate::{Error, Result};

/// The masks of all objects of a frame, one of which is corrected.
pub struct Correction {
    objects: Vec<ObjectMask>,
    /// Index of the object to correct.
    index: usize,
    size: (usize, usize),
}

impl Correction {
    /// Takes the masks of a matte at `size` (width, height). The object to correct is `object`, or if there is none with
    /// that id, the one at the last of `points`, or else the one nearest to it.
    ///
    /// # Errors
    /// The matte has no object, and errors of libtorch.
    pub fn new(matte: &Matte, points: &[Point], object: u8, size: (usize, usize)) -> Result<Self> {
        let (width, height) = size;
        let plane = |&id: &u8| {
            let mut data = vec![0; width * height];
            matte.write_alpha(Some(id), &mut PlaneMut { data: &mut data, width, height, stride: width })?;
            Ok(ObjectMask { id, alpha: data })
        };
        let objects: Vec<ObjectMask> = matte.object_ids().iter().map(plane).collect::<Result<_>>()?;
        let selected = objects.iter().position(|mask| mask.id == object);
        let nearest = || {
            let point = points.last()?;
            let distances = objects.iter().map(|mask| distance(mask, width, point)).enumerate();
            distances.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
        };
        let index = selected.or_else(nearest).ok_or(Error::NoReference)?;
        Ok(Self { objects, index, size })
    }

    /// Alpha of the object to correct, 0 to 255.
    pub fn alpha(&self) -> &[u8] {
        &self.objects[self.index].alpha
    }

    /// Returns the masks with the corrected one, of the same size, which takes its pixels from the other objects.
    ///
    /// # Errors
    /// No object is left, or another size.
    pub fn apply(&self, corrected: &ReferenceMask) -> Result<ReferenceMask> {
        let Some(corrected) = corrected.objects().first() else { return Err(Error::NoReference) };
        let mut objects = self.objects.clone();
        for (index, object) in objects.iter_mut().enumerate() {
            if index == self.index {
                object.alpha.clone_from(&corrected.alpha);
            } else {
                for (value, taken) in object.alpha.iter_mut().zip(&corrected.alpha) {
                    *value = (*value).min(255 - taken);
                }
            }
        }
        ReferenceMask::from_objects(self.size.0, self.size.1, objects)
    }
}

/// Distance of a point from the nearest pixel of a mask of `width` columns, squared; infinite without pixels.
fn distance(mask: &ObjectMask, width: usize, point: &Point) -> f64 {
    let inside = mask.alpha.iter().enumerate().filter(|(_, value)| **value > 127);
    let distances = inside.map(|(index, _)| {
        let (x, y) = ((index % width) as f64 + 0.5, (index / width) as f64 + 0.5);
        // Half a pixel, so that the pixel of the point is nearer than its neighbours.
        (x - point.x).powi(2) + (y - point.y).powi(2)
    });
    distances.min_by(f64::total_cmp).unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, positive: bool) -> Point {
        Point { x, y: 0.5, positive }
    }

    fn matte(labels: &[u8]) -> Matte {
        Matte::from_mask(&ReferenceMask::from_labels(labels.len(), 1, labels).unwrap()).unwrap()
    }

    #[test]
    fn the_object_nearest_to_the_point_is_corrected() {
        let matte = matte(&[1, 1, 0, 0, 0, 3, 3, 0]);
        let id = |x: f64, object: u8| {
            let correction = Correction::new(&matte, &[point(x, true)], object, (8, 1)).unwrap();
            correction.objects[correction.index].id
        };
        assert_eq!([id(1.5, 0), id(2.5, 0), id(3.9, 0), id(7.9, 0)], [1, 1, 3, 3]);
        assert_eq!(id(7.9, 1), 1, "the selected object");
        assert_eq!(id(7.9, 2), 3, "there is no object 2");
    }

    #[test]
    fn other_objects_lose_the_pixels_of_the_corrected_one() {
        let correction =
            Correction::new(&matte(&[1, 1, 0, 3, 3, 3]), &[point(2.5, true)], 1, (6, 1)).unwrap();
        let corrected = ReferenceMask::from_soft(6, 1, vec![255, 255, 255, 255, 200, 0]).unwrap();
        let mask = correction.apply(&corrected).unwrap();
        let planes: Vec<(u8, &[u8])> =
            mask.objects().iter().map(|object| (object.id, object.alpha.as_slice())).collect();
        assert_eq!(planes[0], (1, &[255u8, 255, 255, 255, 200, 0][..]));
        assert_eq!(planes[1], (3, &[0u8, 0, 0, 0, 55, 255][..]));
    }
}
