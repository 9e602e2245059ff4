//! A regressor of any architecture together with its reference and state.

use tch::Tensor;

use crate::model::Regressor;
use crate::model::layers::Part;
use crate::{Error, Result};

pub trait Engine: Send {
    fn set_reference(&mut self, views: &[(Tensor, Tensor)]) -> Result<()>;
    fn restart(&mut self) -> Result<()>;
    fn clear(&mut self);
    fn step(&mut self, image: &Tensor) -> Result<Tensor>;
    fn observe(&mut self, masks: &Tensor) -> Result<()>;
    fn reframe(&mut self, image: &Tensor, part: Part) -> Result<()>;
    fn likeness(&self) -> Result<Tensor>;
}

pub struct Running<R: Regressor> {
    model: R,
    followed: Option<(R::Reference, R::State)>,
}

impl<R: Regressor> Running<R> {
    pub fn new(model: R) -> Self {
        Self { model, followed: None }
    }
}

impl<R: Regressor> Engine for Running<R> {
    /// Image and masks of the view that tracking starts from, and of others of the same frame.
    fn set_reference(&mut self, views: &[(Tensor, Tensor)]) -> Result<()> {
        let [(image, masks), others @ ..] = views else { return Err(Error::NoReference) };
        let mut reference = self.model.reference(image, masks)?;
        for (image, masks) in others {
            self.model.add_view(image, masks, &mut reference)?;
        }
        let state = self.model.start(&reference)?;
        self.followed = Some((reference, state));
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        if let Some((reference, state)) = &mut self.followed {
            *state = self.model.start(reference)?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.followed = None;
    }

    fn step(&mut self, image: &Tensor) -> Result<Tensor> {
        let (reference, state) = self.followed.as_mut().ok_or(Error::NoReference)?;
        self.model.step(image, reference, state)
    }

    fn observe(&mut self, masks: &Tensor) -> Result<()> {
        let (reference, state) = self.followed.as_mut().ok_or(Error::NoReference)?;
        self.model.observe(masks, reference, state)
    }

    fn reframe(&mut self, image: &Tensor, part: Part) -> Result<()> {
        let (_, state) = self.followed.as_mut().ok_or(Error::NoReference)?;
        self.model.reframe(image, part, state)
    }

    fn likeness(&self) -> Result<Tensor> {
        let (reference, state) = self.followed.as_ref().ok_or(Error::NoReference)?;
        self.model.likeness(reference, state)
    }
}
