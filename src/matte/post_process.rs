// SPDX-License-Identifier: MPL-2.0

//! Post-processing of a small matte into a plane, in this order: enlargement and refinement, temporal smoothing,
//! growth, feathering, threshold, inversion. Smoothing comes early, because it compares the network's results of
//! consecutive frames. The threshold comes late, because its hard edges must not be softened again.

use super::MaskView;
use super::expand::Expander;
use super::feather::Featherer;
use super::guide::Guide;
use super::refine::EdgeRefiner;
use super::smooth::History;
use super::{Edges, Enlarger, MatteSettings};
use crate::Result;
use crate::image::{PlaneMut, Region};
use crate::matte::Matte;

/// Post-processes the mattes of one video, frame by frame.
#[derive(Debug, Default)]
pub struct PostProcessor {
    small: Vec<u8>,
    enlarger: Enlarger,
    refiner: EdgeRefiner,
    /// Smoothing state by object id.
    histories: Vec<(u8, History)>,
    expander: Expander,
    featherer: Featherer,
    /// Intermediate planes.
    scratch: [Vec<u8>; 2],
}

impl PostProcessor {
    /// Discards the smoothing state.
    pub fn restart(&mut self) {
        self.histories.clear();
    }

    /// Discards the smoothing state of all objects but `ids`.
    pub fn keep_objects(&mut self, ids: &[u8]) {
        self.histories.retain(|(id, _)| ids.contains(id));
    }

    /// Writes the alpha of `matte` according to the settings; without a matte, the plane becomes opaque. `guide`
    /// is the frame of the matte. Without a guide of the plane's size, edges are not refined, and smoothing
    /// detects motion only by changes of the matte.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the plane has too little data for its size, or an error of
    /// libtorch.
    pub fn write_alpha(
        &mut self,
        settings: &MatteSettings,
        matte: Option<&Matte>,
        guide: Option<&Guide>,
        plane: &mut PlaneMut,
    ) -> Result<()> {
        let Some(matte) = matte else {
            self.restart();
            return plane.fill(255);
        };
        self.keep_objects(&[settings.object]);
        self.write_object(settings, matte, settings.object, guide, plane)
    }

    /// As [`write_alpha`](Self::write_alpha), for `object` (0 = all) instead of the object of the settings.
    ///
    /// # Errors
    /// Those of [`write_alpha`](Self::write_alpha).
    pub fn write_object(
        &mut self,
        settings: &MatteSettings,
        matte: &Matte,
        object: u8,
        guide: Option<&Guide>,
        plane: &mut PlaneMut,
    ) -> Result<()> {
        let (width, height) = (plane.width, plane.height);
        drop(plane.rows()?);
        let guide = guide.filter(|guide| guide.size() == (width, height));
        let smooths = settings.smoothing > 0.0;
        let (expands, feathers) = (settings.expand != 0.0, settings.feather > 0.0);
        if !smooths {
            self.histories.retain(|(id, _)| *id != object);
        }

        if !(smooths || expands || feathers) {
            self.enlarge(settings, matte, object, guide, plane)?;
        } else {
            let [mut first, mut second] = std::mem::take(&mut self.scratch);
            first.resize(width * height, 0);
            let packed = &mut PlaneMut { data: &mut first, width, height, stride: width };
            self.enlarge(settings, matte, object, guide, packed)?;
            let mut values = MaskView { values: &first, width, height };
            let Self { histories, expander, featherer, .. } = self;
            if smooths {
                let history = history_of(histories, object);
                values.values = history.smooth(values, guide, settings.smoothing, matte.is_restart());
            }
            match (expands, feathers) {
                (false, false) => plane.copy(values.values)?,
                (true, false) => expander.expand(values, settings.expand, plane)?,
                (false, true) => featherer.feather(values, settings.feather, plane)?,
                (true, true) => {
                    second.resize(width * height, 0);
                    let grown = &mut PlaneMut { data: &mut second, width, height, stride: width };
                    expander.expand(values, settings.expand, grown)?;
                    featherer.feather(
                        MaskView { values: &second, width, height },
                        settings.feather,
                        plane,
                    )?;
                }
            }
            self.scratch = [first, second];
        }

        if let Some(table) = settings.table() {
            for row in plane.rows()? {
                row.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
            }
        }
        Ok(())
    }

    fn enlarge(
        &mut self,
        settings: &MatteSettings,
        matte: &Matte,
        object: u8,
        guide: Option<&Guide>,
        plane: &mut PlaneMut,
    ) -> Result<()> {
        let refiner = guide.zip(matte.refiner()).filter(|_| settings.edges == Edges::Refine);
        if refiner.is_none() && matte.write_on_device(object, plane)? {
            return Ok(());
        }
        let region: Region = matte.region_in((plane.width, plane.height));
        let Some(small) = matte.alpha_bytes(Some(object), region, &mut self.small)? else {
            return plane.fill(0);
        };
        let mut part = matte.clear_outside(region, plane)?;
        let refined = match refiner {
            Some((guide, network)) => self.refiner.refine(network, &small, guide, region)?,
            None => None,
        };
        self.enlarger.enlarge(&refined.unwrap_or(small), &mut part)
    }
}

fn history_of(histories: &mut Vec<(u8, History)>, object: u8) -> &mut History {
    let index = histories.iter().position(|(id, _)| *id == object).unwrap_or_else(|| {
        histories.push((object, History::default()));
        histories.len() - 1
    });
    &mut histories[index].1
}
