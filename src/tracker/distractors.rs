// SPDX-License-Identifier: MPL-2.0

//! Removes distractor components from masks: connected components that are neither close to the object's previous
//! position nor similar to the reference.

use tch::Tensor;

use super::CropWindow;
use super::frame_stats::{CELL, FrameStats};
use crate::Result;
use crate::image::{Region, connected_components};

/// Maximum motion of an object between two frames in cells. Components farther away must be similar to it.
const MAX_MOTION: f64 = 3.0;
/// Similarity at which a component is always kept, except in an unrelated scene.
const ALWAYS_KEPT_SIMILARITY: f64 = 0.05;
/// Maximum drop below the object's mean similarity for a component far from the object.
const FAR_TOLERANCE: f64 = 0.03;
/// The same for a component near the object, or if the object is missing.
const NEAR_TOLERANCE: f64 = 0.08;
/// Added to [`NEAR_TOLERANCE`] when the object has been missing for long and may have changed its appearance.
const LONG_MISSING_TOLERANCE: f64 = 0.1;
/// Missing frames at which the tolerance starts to grow and at which it is fully grown.
const MISSING_RAMP: (f64, f64) = (60.0, 210.0);
/// A main component smaller than this fraction of the object's mean size must be similar to it.
const MIN_MAIN_SHARE: f64 = 0.03;
/// Frames for which an object that was found again must stay similar to the reference.
const PROBATION_FRAMES: u32 = 5;
/// Consecutive frames that must be similar to the reference in an unrelated scene.
const VERIFICATION_FRAMES: u32 = 10;
/// Missing frames after which an unrelated scene is treated like any other.
const MAX_UNVERIFIED_FRAMES: u32 = 300;
/// Minimum ratio of an object's mean size to that of the frame before.
const MIN_SIZE_RATIO: f64 = 0.98;
/// Weight of a new frame in the running means.
const UPDATE_RATE: f64 = 0.3;

#[derive(Clone, Debug, Default)]
struct ObjectTrack {
    /// Running mean of the similarity to the reference.
    likeness: Option<f64>,
    /// Running mean of the area as a fraction of the frame.
    size: Option<f64>,
    /// Frames since the object was last found.
    missing: u32,
    probation: u32,
    /// Remaining frames of verification in an unrelated scene.
    unverified: u32,
    /// Centres of the object's cells in the previous frame, as fractions of the frame.
    cells: Vec<(f64, f64)>,
}

#[derive(Clone, Debug, Default)]
pub struct DistractorFilter {
    objects: Vec<ObjectTrack>,
}

#[derive(Debug, Default)]
struct Component {
    cells: Vec<usize>,
    /// Centres of the cells, as fractions of the frame.
    centres: Vec<(f64, f64)>,
    /// The component is close to the object's previous position.
    near: bool,
    /// Sum of the mask over the cells.
    weight: f64,
    /// Sum of mask times similarity over the cells.
    likeness: f64,
}

impl DistractorFilter {
    pub fn new(objects: usize) -> Self {
        Self { objects: vec![ObjectTrack::default(); objects] }
    }

    /// Ignores the objects' previous positions, because the next frames may show another scene.
    ///
    /// In an `unrelated` scene, components must be at least as similar to the reference as the object was, for
    /// several consecutive frames.
    pub fn distrust(&mut self, unrelated: bool) {
        for track in &mut self.objects {
            track.probation = PROBATION_FRAMES;
            track.unverified = if unrelated { VERIFICATION_FRAMES } else { 0 };
        }
    }

    /// Accepts the components found after [`distrust`](Self::distrust) as the objects, unless the scene is
    /// unrelated.
    pub fn trust(&mut self) {
        for track in &mut self.objects {
            if track.unverified == 0 {
                track.probation = 0;
            }
        }
    }

    /// Returns the mean size of each object as a fraction of the frame.
    pub fn sizes(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        self.objects.iter().map(|track| track.size)
    }

    /// Updates the tracks and returns a factor for each cell of each mask, 0 for a distractor and 1 for any other
    /// cell, or `None` if all factors are 1.
    pub fn filter_components(&mut self, stats: &FrameStats, crop: CropWindow) -> Option<Vec<f32>> {
        let (rows, columns) = stats.cells();
        let mut keep = vec![1.0f32; self.objects.len() * rows * columns];
        let cells = keep.chunks_exact_mut(rows * columns);
        for (index, (track, keep)) in self.objects.iter_mut().zip(cells).enumerate() {
            track.filter_components(stats.mask(index), &stats.likeness(index), (rows, columns), crop, keep);
        }
        keep.iter().any(|&keep| keep != 1.0).then_some(keep)
    }

    /// Multiplies masks (N, 1, H, W) by the factors of [`filter_components`](Self::filter_components).
    pub fn remove_components(masks: &Tensor, keep: &[f32]) -> Result<Tensor> {
        let size = masks.size();
        let keep = Tensor::f_from_slice(keep)?.f_reshape([size[0], 1, size[2] / CELL, size[3] / CELL])?;
        let keep = keep.f_to_device(masks.device())?;
        Ok(masks.f_mul(&keep.f_upsample_nearest2d([size[2], size[3]], None, None)?)?)
    }
}

impl ObjectTrack {
    fn filter_components(
        &mut self,
        mask: &[f32],
        likeness: &[f32],
        size: (usize, usize),
        crop: CropWindow,
        keep: &mut [f32],
    ) {
        let mut components = components(mask, likeness, size);
        for component in &mut components {
            component.centres = component.cells.iter().map(|&cell| centre(cell, size, crop)).collect();
            component.near = self.is_near(&component.centres, size, crop);
        }
        let share = share_of_frame(size, crop);
        let strict = self.unverified > 0;
        let main = if self.probation == 0 && !strict { main_component(&components) } else { None };
        let main = main.filter(|&index| {
            self.size.is_none_or(|size| components[index].weight * share >= MIN_MAIN_SHARE * size)
        });
        let (mut weight, mut similarity_sum) = (0.0, 0.0);
        let mut cells = Vec::new();
        for (index, component) in components.into_iter().enumerate() {
            let similarity = component.likeness / component.weight;
            let tolerance = match main {
                _ if strict => 0.0,
                Some(_) if component.near => NEAR_TOLERANCE,
                Some(_) => FAR_TOLERANCE,
                None => self.tolerance(),
            };
            let is_similar = (similarity >= ALWAYS_KEPT_SIMILARITY && !strict)
                || self.likeness.is_none_or(|track| similarity >= track - tolerance);
            if is_similar || main == Some(index) {
                cells.extend(component.centres);
                weight += component.weight;
                similarity_sum += component.likeness;
            } else {
                component.cells.iter().for_each(|&cell| keep[cell] = 0.0);
            }
        }
        if strict {
            let found = !cells.is_empty();
            let expired = self.missing >= MAX_UNVERIFIED_FRAMES;
            self.unverified = match (found, expired) {
                (true, _) => self.unverified - 1,
                (false, true) => 0,
                (false, false) => VERIFICATION_FRAMES,
            };
        }
        if cells.is_empty() {
            self.missing = self.missing.saturating_add(1);
            self.probation = if self.likeness.is_some() { PROBATION_FRAMES } else { 0 };
        } else {
            self.missing = 0;
            self.probation = self.probation.saturating_sub(1);
        }
        self.cells = cells;
        if weight > 0.0 && self.probation == 0 {
            let running_mean =
                |track: Option<f64>, now: f64| track.map_or(now, |track| track + UPDATE_RATE * (now - track));
            self.likeness = Some(running_mean(self.likeness, similarity_sum / weight));
            // The size of an object that leaves the frame must not shrink with its visible part.
            let size = running_mean(self.size, weight * share);
            self.size = Some(self.size.map_or(size, |track| size.max(track * MIN_SIZE_RATIO)));
        }
    }

    fn tolerance(&self) -> f64 {
        let grown = (f64::from(self.missing) - MISSING_RAMP.0) / (MISSING_RAMP.1 - MISSING_RAMP.0);
        NEAR_TOLERANCE + LONG_MISSING_TOLERANCE * grown.clamp(0.0, 1.0)
    }

    fn is_near(&self, centres: &[(f64, f64)], (rows, columns): (usize, usize), crop: CropWindow) -> bool {
        let Region { width, height, .. } = crop.region;
        let reach = (
            MAX_MOTION * width as f64 / columns as f64 / crop.frame.0 as f64,
            MAX_MOTION * height as f64 / rows as f64 / crop.frame.1 as f64,
        );
        centres.iter().any(|here| {
            self.cells
                .iter()
                .any(|there| (here.0 - there.0).abs() <= reach.0 && (here.1 - there.1).abs() <= reach.1)
        })
    }
}

/// Returns the index of the largest component close to the object's previous position.
fn main_component(components: &[Component]) -> Option<usize> {
    let near = components.iter().enumerate().filter(|(_, component)| component.near);
    let largest = near.max_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight).then(b.cells.cmp(&a.cells)));
    largest.map(|(index, _)| index)
}

/// Area of a cell as a fraction of the frame.
fn share_of_frame((rows, columns): (usize, usize), crop: CropWindow) -> f64 {
    let area = |width: usize, height: usize| width as f64 * height as f64;
    area(crop.region.width, crop.region.height) / area(crop.frame.0, crop.frame.1) / area(columns, rows)
}

/// Centre of a cell as fractions of the frame.
fn centre(cell: usize, (rows, columns): (usize, usize), crop: CropWindow) -> (f64, f64) {
    let Region { x, y, width, height } = crop.region;
    let fraction = |index: usize, of: usize| (index as f64 + 0.5) / of as f64;
    (
        (x as f64 + fraction(cell % columns, columns) * width as f64) / crop.frame.0 as f64,
        (y as f64 + fraction(cell / columns, rows) * height as f64) / crop.frame.1 as f64,
    )
}

/// Returns the 8-connected components of the cells above 0.1.
fn components(mask: &[f32], likeness: &[f32], size: (usize, usize)) -> Vec<Component> {
    let components = connected_components(size, |cell| mask[cell] >= 0.1).into_iter().map(|cells| {
        let mut component = Component::default();
        for &cell in &cells {
            component.weight += f64::from(mask[cell]);
            component.likeness += f64::from(mask[cell] * likeness[cell]);
        }
        Component { cells, ..component }
    });
    components.collect()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::super::frame_stats;
    use super::*;

    const FRAME: (usize, usize) = (640, 320);

    /// Returns a mask with a square of ones at each column, and a similarity map with the value of each square.
    fn scene(squares: &[(i64, f64)]) -> (Tensor, Tensor) {
        let mask = Tensor::zeros([1, 1, 160, 320], (Kind::Float, Device::Cpu));
        let likeness = Tensor::full([1, 1, 10, 20], -0.5, (Kind::Float, Device::Cpu));
        for &(column, value) in squares {
            let _ = mask.narrow(2, 48, 48).narrow(3, column, 48).fill_(1.0);
            let _ = likeness.narrow(2, 3, 3).narrow(3, column / 16, 3).fill_(value);
        }
        (mask, likeness)
    }

    fn kept_columns(filter: &mut DistractorFilter, squares: &[(i64, f64)]) -> Vec<i64> {
        let (mask, likeness) = scene(squares);
        let crop = CropWindow { region: Region::whole(FRAME), frame: FRAME, size: (192, 336) };
        let stats = frame_stats::compute(&mask, &likeness).unwrap();
        let stats = FrameStats::read(&stats, &mask, &likeness).unwrap();
        let mask = match filter.filter_components(&stats, crop) {
            Some(keep) => DistractorFilter::remove_components(&mask, &keep).unwrap(),
            None => mask,
        };
        let is_kept = |column: i64| mask.double_value(&[0, 0, 70, column + 24]) > 0.5;
        squares.iter().map(|square| square.0).filter(|&column| is_kept(column)).collect()
    }

    fn tracking(column: i64, likeness: f64) -> DistractorFilter {
        let mut filter = DistractorFilter::new(1);
        for _ in 0..10 {
            assert_eq!(kept_columns(&mut filter, &[(column, likeness)]), [column]);
        }
        filter
    }

    #[test]
    fn the_main_component_may_change_its_appearance() {
        let mut filter = tracking(16, 0.02);
        assert_eq!(kept_columns(&mut filter, &[(16, -0.3)]), [16]);
        assert_eq!(kept_columns(&mut filter, &[(32, -0.4)]), [32]);
    }

    #[test]
    fn distant_components_must_be_similar_to_the_reference() {
        let mut filter = tracking(16, 0.02);
        assert_eq!(kept_columns(&mut filter, &[(16, 0.02), (240, -0.1)]), [16]);
        assert_eq!(kept_columns(&mut filter, &[(16, 0.02), (240, 0.03)]), [16, 240]);
    }

    #[test]
    fn distractors_do_not_replace_a_missing_object() {
        let mut filter = tracking(16, 0.02);
        for _ in 0..50 {
            assert_eq!(kept_columns(&mut filter, &[(240, -0.1)]), [0; 0]);
        }
        assert_eq!(kept_columns(&mut filter, &[(160, 0.0)]), [160], "the object returns");
    }

    #[test]
    fn a_distractor_that_was_found_is_dropped_during_probation() {
        let mut filter = tracking(16, 0.02);
        assert_eq!(kept_columns(&mut filter, &[]), [0; 0]);
        assert_eq!(kept_columns(&mut filter, &[(240, -0.05)]), [240]);
        assert_eq!(kept_columns(&mut filter, &[(240, -0.1)]), [0; 0]);
    }

    #[test]
    fn the_tolerance_grows_while_the_object_is_missing() {
        let mut filter = tracking(16, 0.02);
        let found = (0..400).find(|_| !kept_columns(&mut filter, &[(240, -0.12)]).is_empty());
        assert!(found.is_some_and(|frame| frame > MISSING_RAMP.0 as usize), "{found:?}");
    }

    #[test]
    fn dissimilar_components_that_split_off_are_removed() {
        let mut filter = tracking(64, 0.02);
        assert_eq!(kept_columns(&mut filter, &[(64, 0.02), (128, -0.2)]), [64]);
        assert_eq!(kept_columns(&mut filter, &[(64, 0.02), (128, -0.04)]), [64, 128]);
    }
}
