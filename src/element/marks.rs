// SPDX-License-Identifier: MPL-2.0

//! Points and boxes of a selection, drawn in the overlay, and a sign that a selection is being computed.

use std::time::{Duration, Instant};

use crate::model::prompt::{Point, Prompt, Rect};

/// Time for which the marks stay when the selection is finished.
const VISIBLE: Duration = Duration::from_secs(1);
const POSITIVE: [u8; 3] = [40, 220, 60];
const NEGATIVE: [u8; 3] = [230, 40, 40];
const BUSY: [u8; 3] = [255, 255, 255];
/// Number of dots of the busy sign, and time of one revolution.
const DOTS: usize = 8;
const REVOLUTION: Duration = Duration::from_millis(800);

/// Marks of the last selection.
#[derive(Clone, Debug)]
pub struct Marks {
    points: Vec<Point>,
    rect: Option<Rect>,
    begun: Instant,
    /// `None` while the selection is being computed.
    finished: Option<Instant>,
}

impl Marks {
    /// Marks of a selection that begins now.
    pub fn new(prompt: &Prompt) -> Self {
        Self { points: prompt.points.clone(), rect: prompt.rect, begun: Instant::now(), finished: None }
    }

    /// Whether they are to be drawn. `busy`: the selection is still being computed.
    pub fn are_visible(&mut self, busy: bool) -> bool {
        if !busy {
            self.finished.get_or_insert_with(Instant::now);
        }
        self.finished.is_none_or(|finished| finished.elapsed() < VISIBLE)
    }

    /// Draws the marks in a picture of `size` (width, height). Calls `layer` with each colour and its coverage, 0 to 255.
    pub fn draw(&self, size: (usize, usize), mut layer: impl FnMut([u8; 3], &[u8])) {
        let mut canvas = Canvas { values: vec![0; size.0 * size.1], size };
        let radius = (size.1 as f64 / 90.0).max(4.0);
        for (positive, color) in [(true, POSITIVE), (false, NEGATIVE)] {
            let mut used = false;
            for point in self.points.iter().filter(|point| point.positive == positive) {
                canvas.disc((point.x, point.y), radius);
                used = true;
            }
            if let Some(rect) = self.rect.filter(|_| positive) {
                canvas.frame(rect, (radius / 3.0).max(2.0));
                used = true;
            }
            if used {
                layer(color, &canvas.values);
                canvas.values.fill(0);
            }
        }
        if self.finished.is_none() {
            let (x, y) = self.center(size);
            let turn = self.begun.elapsed().as_secs_f64() / REVOLUTION.as_secs_f64();
            for dot in 0..DOTS {
                let share = dot as f64 / DOTS as f64;
                let angle = std::f64::consts::TAU * (turn + share);
                let (sin, cos) = angle.sin_cos();
                canvas.disc(
                    (x + 3.0 * radius * cos, y + 3.0 * radius * sin),
                    0.25 * radius + 0.5 * radius * share,
                );
            }
            layer(BUSY, &canvas.values);
        }
    }

    /// Position of the busy sign: the last point, the centre of the box, or that of the picture.
    fn center(&self, (width, height): (usize, usize)) -> (f64, f64) {
        let of_rect = |rect: Rect| (rect.x + rect.width / 2.0, rect.y + rect.height / 2.0);
        let last = self.points.last().map(|point| (point.x, point.y));
        last.or(self.rect.map(of_rect)).unwrap_or((width as f64 / 2.0, height as f64 / 2.0))
    }
}

/// Coverage of each pixel, 0 to 255.
struct Canvas {
    values: Vec<u8>,
    size: (usize, usize),
}

impl Canvas {
    /// Covers the pixels within `radius` of the centre.
    fn disc(&mut self, center: (f64, f64), radius: f64) {
        let square =
            Rect { x: center.0 - radius, y: center.1 - radius, width: 2.0 * radius, height: 2.0 * radius };
        self.fill(square, |x, y| (x - center.0).hypot(y - center.1) <= radius);
    }

    /// Covers the outline of a box.
    fn frame(&mut self, rect: Rect, thickness: f64) {
        let (right, bottom) = (rect.x + rect.width, rect.y + rect.height);
        self.fill(rect, |x, y| (x - rect.x).min(right - x).min(y - rect.y).min(bottom - y) <= thickness);
    }

    /// Covers those pixels of a rectangle whose centre is `inside`.
    fn fill(&mut self, rect: Rect, inside: impl Fn(f64, f64) -> bool) {
        let range = |from: f64, length: f64, end: usize| {
            let clamp = |at: f64| at.clamp(0.0, end as f64) as usize;
            clamp(from.floor())..clamp((from + length).ceil())
        };
        let columns = range(rect.x, rect.width, self.size.0);
        for y in range(rect.y, rect.height, self.size.1) {
            for x in columns.clone() {
                if inside(x as f64 + 0.5, y as f64 + 0.5) {
                    self.values[y * self.size.0 + x] = 255;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_where_the_prompt_is_until_a_second_after_the_selection() {
        let point = |x: f64, positive: bool| Point { x, y: 50.0, positive };
        let rect = Rect { x: 100.0, y: 20.0, width: 60.0, height: 40.0 };
        // One point lies at the edge of the picture.
        let prompt =
            Prompt { points: vec![point(30.0, true), point(200.0, false)], rect: Some(rect), mask: None };
        let mut marks = Marks::new(&prompt);
        let layers = |marks: &Marks| {
            let mut layers = Vec::new();
            marks.draw((200, 100), |color, values| layers.push((color, values.to_vec())));
            layers
        };
        let drawn = layers(&marks);
        assert_eq!(drawn.iter().map(|(color, _)| *color).collect::<Vec<_>>(), [POSITIVE, NEGATIVE, BUSY]);
        let at = |layer: usize, x: usize, y: usize| drawn[layer].1[y * 200 + x];
        assert_eq!([at(0, 30, 50), at(0, 40, 50), at(0, 100, 30), at(0, 130, 40)], [255, 0, 255, 0]);
        assert_eq!([at(1, 199, 50), at(1, 30, 50)], [255, 0]);
        assert!(marks.are_visible(true));
        assert!(marks.are_visible(false));
        assert_eq!(layers(&marks).len(), 2, "without the busy sign");
        marks.finished = Instant::now().checked_sub(VISIBLE);
        assert!(!marks.are_visible(false));
    }
}
