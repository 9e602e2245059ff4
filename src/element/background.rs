// SPDX-License-Identifier: MPL-2.0

//! The property `background`: its values, and the hand-over of loaded pictures to the streaming thread.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::image::OwnedPicture;
use crate::{Error, Result};

/// Range of the standard deviation of the blur in pixels.
const SIGMAS: std::ops::RangeInclusive<f64> = 1.0..=1000.0;

/// What the object is laid over.
#[derive(Clone, Debug)]
pub enum Background {
    /// The blurred picture, with a standard deviation in pixels; `None` depends on the size of the picture.
    Blur(Option<f64>),
    /// R, G and B.
    Color([u8; 3]),
    Picture(Arc<OwnedPicture>),
}

/// A value of the property.
#[derive(Clone, Debug)]
pub enum Value {
    Ready(Background),
    File(PathBuf),
}

impl FromStr for Value {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason: &str| {
            Error::Config(format!(
                "background={text} {reason}: give blur, blur:SIGMA (pixels, 1 to 1000), color:#rrggbb or image:PATH"
            ))
        };
        let value = match text.split_once(':').map_or((text, None), |(kind, value)| (kind, Some(value))) {
            ("blur", None) => Background::Blur(None),
            ("blur", Some(sigma)) => {
                let sigma = sigma.parse().ok().filter(|sigma| SIGMAS.contains(sigma));
                Background::Blur(Some(sigma.ok_or_else(|| bad("has a wrong SIGMA"))?))
            }
            ("color", Some(color)) => {
                Background::Color(parse_color(color).ok_or_else(|| bad("has a wrong colour"))?)
            }
            ("image", Some(path)) if !path.is_empty() => return Ok(Self::File(path.into())),
            ("image", _) => return Err(bad("has no path")),
            _ => return Err(bad("is not known")),
        };
        Ok(Self::Ready(value))
    }
}

/// Reads `#rrggbb`.
fn parse_color(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let value = u32::from_str_radix(digits, 16).ok()?;
    Some([(value >> 16) as u8, (value >> 8) as u8, value as u8])
}

/// Reads the picture of a value of the property.
///
/// # Errors
/// The text is no background, and errors of [`OwnedPicture::open`].
pub fn load(text: &str) -> Result<Background> {
    match text.parse()? {
        Value::Ready(background) => Ok(background),
        Value::File(path) => Ok(Background::Picture(Arc::new(OwnedPicture::open(&path)?))),
    }
}

/// The background in use while the element is started.
#[derive(Debug, Default)]
pub struct BackgroundSlot {
    running: bool,
    /// Number of values that were set. Each has this number as its id.
    pub changes: u64,
    /// Id of the value in use. Earlier ones are out of date.
    done: u64,
    current: Option<Arc<Background>>,
}

impl BackgroundSlot {
    pub fn current(&self) -> Option<&Arc<Background>> {
        self.current.as_ref()
    }

    /// Begins to set a value. Returns its id, or `None` while stopped.
    pub fn begin(&mut self) -> Option<u64> {
        self.changes += 1;
        self.running.then_some(self.changes)
    }

    /// Whether `id` is the last value that was set.
    pub fn is_last(&self, id: u64) -> bool {
        self.running && id == self.changes
    }

    /// Uses the value `id`. Returns false if it is out of date.
    pub fn finish(&mut self, id: u64, background: Option<Background>) -> bool {
        let is_new = self.running && id > self.done;
        if is_new {
            self.done = id;
            self.current = background.map(Arc::new);
        }
        is_new
    }

    pub fn start(&mut self, background: Option<Background>) {
        self.running = true;
        self.done = self.changes;
        self.current = background.map(Arc::new);
    }

    pub fn stop(&mut self) {
        self.running = false;
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let read = |text: &str| match load(text).unwrap() {
            Background::Blur(sigma) => format!("{sigma:?}"),
            Background::Color(color) => format!("{color:?}"),
            Background::Picture(_) => "picture".into(),
        };
        assert_eq!(read("blur"), "None");
        assert_eq!(read("blur:2.5"), "Some(2.5)");
        assert_eq!(read("color:#12aBff"), "[18, 171, 255]");
        let path = |text: &str| match text.parse().unwrap() {
            Value::File(path) => path,
            value => panic!("{value:?}"),
        };
        assert_eq!(path("image:/a:b #c.png"), PathBuf::from("/a:b #c.png"));
    }

    #[test]
    fn bad_values_name_the_remedy() {
        for text in [
            "",
            "Blur",
            "blur:",
            "blur:0",
            "blur:1001",
            "blur:nan",
            "blur:x",
            "color",
            "color:",
            "color:red",
            "color:#12345",
            "color:#+12345",
            "color:#1234567",
            "color:#äää",
            "image",
            "image:",
            "green",
            ":",
            "blur ",
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("background={text} ")) && error.contains("color:#rrggbb"),
                "{error}"
            );
        }
        let error = load("image:/nowhere/a.png").unwrap_err().to_string();
        assert!(error.contains("/nowhere/a.png"), "{error}");
    }

    #[test]
    fn a_slow_picture_does_not_replace_a_later_value() {
        let mut slot = BackgroundSlot::default();
        let color = |slot: &BackgroundSlot| match slot.current().map(|current| (**current).clone()) {
            Some(Background::Color([red, ..])) => Some(red),
            _ => None,
        };
        let of = |red: u8| Some(Background::Color([red, 0, 0]));
        assert_eq!(slot.begin(), None, "while stopped");
        slot.start(of(1));
        assert_eq!(color(&slot), Some(1));
        let (slow, fast) = (slot.begin().unwrap(), slot.begin().unwrap());
        assert!(slot.finish(fast, of(3)));
        assert!(!slot.finish(slow, of(2)) && !slot.is_last(slow));
        assert_eq!(color(&slot), Some(3));
        let (good, bad) = (slot.begin().unwrap(), slot.begin().unwrap());
        assert!(slot.is_last(bad));
        assert!(slot.finish(good, None), "the later one has failed");
        assert_eq!(color(&slot), None);
        slot.stop();
        assert!(!slot.finish(bad, of(4)) && slot.current().is_none());
    }
}
