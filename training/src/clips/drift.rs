// SPDX-License-Identifier: MPL-2.0

//! Random motion over the frames of a clip.

use super::Size;
use super::random::Random;
use super::settings::Synthetic;
use super::spline::{Point, Spline};
use crate::Result;

/// Horizontal shift, vertical shift, scale, shear and rotation, accumulated over the frames.
pub type Drift = [f64; 5];

/// Maximum displacement of a control point, in halves of the picture's sides.
const MAX_BEND: f64 = 0.35;

/// Returns a random walk that starts at 0.
pub fn walk(frames: usize, amplitude: f64, random: &mut Random) -> Vec<Drift> {
    const STEP: Drift = [0.03, 0.03, 0.04, 0.06, 0.05];
    let mut at = Drift::default();
    let mut path = vec![at];
    while path.len() < frames {
        for (value, step) in at.iter_mut().zip(STEP) {
            *value += random.normal() * step * amplitude;
        }
        path.push(at);
    }
    path
}

/// Returns the motion in pixels, to the right and down, during an exposure of the share `shutter` of the frame interval. The
/// reference, frame 0, is not continuous with the other frames, so it takes the velocity of frame 1.
pub fn exposed_motion(path: &[Drift], frame: usize, size: Size, shutter: f64) -> (f64, f64) {
    let frame = frame.max(1);
    let (before, after) = (frame.saturating_sub(1).max(1), (frame + 1).min(path.len() - 1));
    let frames = after.saturating_sub(before).max(1) as f64;
    let speed = |axis: usize| (path[after][axis] - path[before][axis]) / frames;
    (speed(0) * size.1 as f64 * shutter, speed(1) * size.0 as f64 * shutter)
}

/// Draws one thin-plate spline per frame, whose control points follow random walks; `None` if this draw does not bend. A
/// spline maps the displaced position of a point to its position in the still. The first one is the identity.
pub fn draw_bends(frames: usize, settings: &Synthetic, random: &mut Random) -> Result<Option<Vec<Spline>>> {
    if !random.chance(settings.thin_plate) || settings.bend == 0.0 {
        return Ok(None);
    }
    let points: Vec<Point> = (0..9).map(|i| [f64::from(i % 3) - 1.0, f64::from(i / 3) - 1.0]).collect();
    let step = 2.0 * settings.bend / (frames.max(2) as f64 - 1.0).sqrt();
    let mut offset = vec![[0.0; 2]; points.len()];
    let mut splines = Vec::with_capacity(frames);
    while splines.len() < frames {
        let displaced: Vec<Point> =
            points.iter().zip(&offset).map(|([x, y], [dx, dy])| [x + dx, y + dy]).collect();
        splines.push(Spline::through(&displaced, &points)?);
        for value in offset.as_flattened_mut() {
            *value = (*value + random.normal() * step).clamp(-MAX_BEND, MAX_BEND);
        }
    }
    Ok(Some(splines))
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn velocity_ignores_the_reference() {
        let at = |x: f64, y: f64| [x, y, 0.0, 0.0, 0.0];
        let path = [at(9.0, 9.0), at(0.0, 0.0), at(0.1, 0.0), at(0.3, 0.2)];
        let motion = |frame: usize| exposed_motion(&path, frame, (100, 200), 1.0);
        let close = |(x, y): (f64, f64), (u, v): (f64, f64)| (x - u).abs() < 1e-9 && (y - v).abs() < 1e-9;
        assert!(close(motion(1), (20.0, 0.0)));
        assert!(close(motion(2), (30.0, 10.0)));
        assert!(close(motion(3), (40.0, 20.0)));
        assert!(close(motion(0), (20.0, 0.0)), "the reference takes the next velocity");
    }

    #[test]
    fn bends_start_at_the_identity_and_grow() {
        let settings = Synthetic { thin_plate: 1.0, ..Synthetic::default() };
        let bends = draw_bends(5, &settings, &mut Random::new(3, 4)).unwrap().unwrap();
        let places = Tensor::from_slice(&[0.3f64, -0.2, 0.7, 0.7]).reshape([2, 2]);
        let offset =
            |frame: usize| (bends[frame].map(&places).unwrap() - &places).abs().max().double_value(&[]);
        assert!(offset(0) < 1e-9 && offset(4) > 0.01, "{} {}", offset(0), offset(4));
        assert!(draw_bends(5, &Synthetic::default(), &mut Random::new(3, 4)).unwrap().is_none());
    }
}
