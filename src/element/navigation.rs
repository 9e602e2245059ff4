// SPDX-License-Identifier: MPL-2.0

//! Mouse and key events as selections and corrections.

use std::time::{Duration, Instant};

use gstreamer_video::NavigationEvent;

use crate::model::prompt::{Point, Rect};

/// A drag that is shorter than this in both directions is a click, in pixels.
const MIN_DRAG: f64 = 6.0;
/// Longest time between the clicks of a double click.
const DOUBLE_CLICK: Duration = Duration::from_millis(400);
const LEFT: i32 = 1;
const RIGHT: i32 = 3;

/// What a user wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gesture {
    /// A click: what is there belongs to the object, or does not.
    Point(Point),
    /// A double click: what is there is the object.
    New(Point),
    /// A drag: the object is in the box.
    Box(Rect),
    /// The key `Escape`: there is no object.
    Clear,
}

/// Recognises gestures.
#[derive(Debug, Default)]
pub struct Gestures {
    /// Button and position of a press without a release.
    press: Option<(i32, f64, f64)>,
    /// Time and position of the last left click.
    click: Option<(Instant, f64, f64)>,
}

impl Gestures {
    /// Takes an event at the time `now` in a picture of `size` (width, height). Returns `None` for an event that is of no
    /// concern and has to be passed on, and otherwise the gesture that it completes, if any.
    pub fn update(
        &mut self,
        event: &NavigationEvent,
        (width, height): (f64, f64),
        now: Instant,
    ) -> Option<Option<Gesture>> {
        match *event {
            NavigationEvent::MouseButtonPress { button: button @ (LEFT | RIGHT), x, y, .. }
                if (0.0..width).contains(&x) && (0.0..height).contains(&y) =>
            {
                self.press = Some((button, x, y));
                Some(None)
            }
            NavigationEvent::MouseButtonRelease { button, x, y, .. } => {
                let (_, left, top) = self.press.take_if(|press| press.0 == button)?;
                Some(Some(self.release(
                    button,
                    (left, top),
                    (x.clamp(0.0, width), y.clamp(0.0, height)),
                    now,
                )))
            }
            NavigationEvent::KeyPress { ref key, .. } if key == "Escape" => {
                *self = Self::default();
                Some(Some(Gesture::Clear))
            }
            _ => None,
        }
    }

    fn release(&mut self, button: i32, from: (f64, f64), to: (f64, f64), now: Instant) -> Gesture {
        let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
        if button == LEFT && dx.max(dy) >= MIN_DRAG && dx.min(dy) >= 1.0 {
            self.click = None;
            return Gesture::Box(Rect { x: from.0.min(to.0), y: from.1.min(to.1), width: dx, height: dy });
        }
        let point = Point { x: from.0, y: from.1, positive: button == LEFT };
        let before = self.click.take();
        if button != LEFT {
            return Gesture::Point(point);
        }
        let is_double = before.is_some_and(|(time, x, y)| {
            now.duration_since(time) <= DOUBLE_CLICK
                && (x - from.0).abs() < MIN_DRAG
                && (y - from.1).abs() < MIN_DRAG
        });
        if is_double {
            return Gesture::New(point);
        }
        self.click = Some((now, from.0, from.1));
        Gesture::Point(point)
    }
}

#[cfg(test)]
mod tests {
    use gstreamer_video::NavigationModifierType;

    use super::*;

    const SIZE: (f64, f64) = (320.0, 180.0);
    const NONE: NavigationModifierType = NavigationModifierType::empty();

    fn press(button: i32, x: f64, y: f64) -> NavigationEvent {
        NavigationEvent::MouseButtonPress { button, x, y, modifier_state: NONE }
    }

    fn release(button: i32, x: f64, y: f64) -> NavigationEvent {
        NavigationEvent::MouseButtonRelease { button, x, y, modifier_state: NONE }
    }

    fn point(x: f64, y: f64, positive: bool) -> Point {
        Point { x, y, positive }
    }

    #[test]
    fn clicks_drags_and_double_clicks() {
        let mut gestures = Gestures::default();
        let begun = Instant::now();
        let mut at = |events: [NavigationEvent; 2], milliseconds: u64| {
            let now = begun + Duration::from_millis(milliseconds);
            let [first, last] = events.map(|event| gestures.update(&event, SIZE, now));
            assert_eq!(first, Some(None));
            last.unwrap().unwrap()
        };
        let click = |button: i32, x: f64, y: f64| [press(button, x, y), release(button, x + 2.0, y)];
        assert_eq!(at(click(LEFT, 10.0, 20.0), 0), Gesture::Point(point(10.0, 20.0, true)));
        assert_eq!(at(click(LEFT, 11.0, 20.0), 300), Gesture::New(point(11.0, 20.0, true)));
        assert_eq!(
            at(click(LEFT, 11.0, 20.0), 400),
            Gesture::Point(point(11.0, 20.0, true)),
            "a third click"
        );
        assert_eq!(at(click(LEFT, 11.0, 20.0), 900), Gesture::Point(point(11.0, 20.0, true)), "too late");
        assert_eq!(at(click(LEFT, 60.0, 20.0), 1000), Gesture::Point(point(60.0, 20.0, true)), "too far");
        assert_eq!(at(click(RIGHT, 60.0, 20.0), 1100), Gesture::Point(point(60.0, 20.0, false)));
        let drag = [press(LEFT, 200.0, 100.0), release(LEFT, 150.0, 300.0)];
        let rect = Rect { x: 150.0, y: 100.0, width: 50.0, height: 80.0 };
        assert_eq!(at(drag, 2000), Gesture::Box(rect), "clipped to the picture");
    }

    #[test]
    fn events_beside_the_picture_and_of_other_buttons_pass() {
        let mut gestures = Gestures::default();
        let now = Instant::now();
        for event in
            [press(LEFT, -1.0, 5.0), press(LEFT, 320.0, 5.0), press(2, 5.0, 5.0), release(LEFT, 5.0, 5.0)]
        {
            assert_eq!(gestures.update(&event, SIZE, now), None, "{event:?}");
        }
        let key = |key: &str| NavigationEvent::KeyPress { key: key.into(), modifier_state: NONE };
        assert_eq!(gestures.update(&key("a"), SIZE, now), None);
        assert_eq!(gestures.update(&key("Escape"), SIZE, now), Some(Some(Gesture::Clear)));
    }
}
