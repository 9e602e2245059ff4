// SPDX-License-Identifier: MPL-2.0

//! Loads references from files and from the signal `set-reference`.

use glib::subclass::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::CAT;
use super::imp::FastGanSeg;
use super::reference::{LoadId, Reference, State};
use super::settings::Settings;
use super::stream::Host;
use crate::mask::{Interpretation, ReferenceMask};

impl FastGanSeg {
    /// Reads the reference that is set by properties, if any.
    pub(super) fn load(&self, settings: &Settings) -> crate::Result<Option<Reference>> {
        let Some(mask) = &settings.ref_mask else { return Ok(None) };
        let reference = Reference::open(mask, settings.ref_image.as_deref())?;
        self.log_reading(&reference.mask);
        Ok(Some(reference))
    }

    /// Reads the reference on another thread, with the current settings. Settings read later would be wrong: a bad file
    /// set right after a good one would be loaded twice, and the good one never.
    pub(super) fn load_later(&self, load: LoadId) {
        let settings = self.settings().clone();
        self.obj().call_async(move |obj| obj.imp().load_while_running(load, &settings));
    }

    fn load_while_running(&self, load: LoadId, settings: &Settings) {
        match self.load(settings) {
            Ok(reference) => {
                let armed = reference.is_some();
                let (origin, warnings) = reference
                    .as_ref()
                    .map(|reference| (reference.mask.origin().to_owned(), reference.warnings()))
                    .unwrap_or_default();
                let current = self.shared().slot.finish_load(load, reference);
                if current && armed {
                    self.post_mask_warnings(&origin, warnings);
                    self.post_reference(State::Armed, None, None);
                }
            }
            Err(error) => {
                let current = self.shared().slot.is_current(load);
                if current {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Read,
                        ("{error}. The previous reference, if any, stays in use")
                    );
                }
            }
        }
    }

    /// Handles the signal `set-reference`. Returns whether the mask is accepted.
    pub(super) fn give_reference(&self, mask: Option<gst::Sample>, image: Option<gst::Sample>) -> bool {
        let Some(mask) = mask else {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("set-reference was called without a mask: pass a sample of raw video")
            );
            return false;
        };
        match Reference::from_samples(&mask, image.as_deref()) {
            Ok(reference) => {
                self.log_reading(&reference.mask);
                self.post_mask_warnings(reference.mask.origin(), reference.warnings());
                let armed = self.shared().slot.set_from_application(reference);
                if armed {
                    self.post_reference(State::Armed, None, None);
                }
                true
            }
            Err(error) => {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("set-reference: {error}. The previous reference, if any, stays in use")
                );
                false
            }
        }
    }

    fn log_reading(&self, mask: &ReferenceMask) {
        if mask.interpretation() == Interpretation::GreyIds {
            gst::info!(
                CAT,
                imp = self,
                "{}: no value except 255 is above 16, so the values are read as object ids, and 255 as void",
                mask.origin().display()
            );
        }
    }
}
