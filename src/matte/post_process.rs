// SPDX-License-Identifier: MPL-2.0

//! Post-processing of a small matte into a plane, in this order: enlargement and refinement, growth, feathering,
//! threshold, inversion. The threshold comes late, because its hard edges must not be softened again.

use super::expand::Expander;
use super::feather::Featherer;
use super::refine::EdgeRefiner;
use super::{Edges, Enlarger, Guide, MaskView, Matte, MatteSettings};
use crate::Result;
use crate::image::PlaneMut;

/// Post-processes the mattes of one video, frame by frame.
#[derive(Debug, Default)]
pub struct PostProcessor {
    small: Vec<u8>,
    enlarger: Enlarger,
    refiner: EdgeRefiner,
    expander: Expander,
    featherer: Featherer,
    scratch: [Vec<u8>; 2],
}

impl PostProcessor {
    /// Writes the alpha of `matte` according to the settings; without a matte, the plane becomes opaque. `guide`
    /// is the present frame. Without a guide of the plane's size, edges are not refined.
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
        let Some(matte) = matte else { return plane.fill(255) };
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
        let (expands, feathers) = (settings.expand != 0.0, settings.feather > 0.0);

        if !(expands || feathers) {
            self.enlarge(settings, matte, object, guide, plane)?;
        } else {
            let [mut first, mut second] = std::mem::take(&mut self.scratch);
            first.resize(width * height, 0);
            let packed = &mut PlaneMut { data: &mut first, width, height, stride: width };
            self.enlarge(settings, matte, object, guide, packed)?;
            let mut values = MaskView { values: &first, width, height };
            if !feathers {
                self.expander.expand(values, settings.expand, plane)?;
            } else {
                if expands {
                    second.resize(width * height, 0);
                    let grown = &mut PlaneMut { data: &mut second, width, height, stride: width };
                    self.expander.expand(values, settings.expand, grown)?;
                    values.values = &second;
                }
                self.featherer.feather(values, settings.feather, plane)?;
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
        let region = matte.region_in((plane.width, plane.height));
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
