// SPDX-License-Identifier: MPL-2.0

//! Region-of-interest planner: crops to the objects and their surroundings, and moves the region only when the
//! objects are about to leave it.

use crate::image::Region;

/// Bounding box of the objects as fractions of the width and height of a frame or region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

/// Side of a frame-shaped region in multiples of the longer side of the bounds.
const MARGIN: f64 = 1.5;
/// Total margin of an object-shaped region in each dimension, as a fraction of the mean of the bounds' sides.
const MARGIN_SHAPED: f64 = 0.3;
/// Minimum side of a region as a fraction of the frame's; for an object-shaped region, the minimum square root of
/// its area as a fraction of the frame's area.
const MIN_ROI_FRACTION: f64 = 0.4;
/// A side longer than this fraction of the frame's is extended to the whole frame.
const MAX_ROI_FRACTION: f64 = 0.95;
/// Maximum ratio of the longer to the shorter side of an object-shaped region.
const MAX_ASPECT: f64 = 1.8;
/// The current region is kept while its sides are shorter than those of a new region times this factor.
const ROI_HYSTERESIS: f64 = 1.3;
/// Minimum distance of the objects from the border of a region that is kept, as a fraction of its side.
const MIN_BORDER: f64 = 0.08;
/// Frames over which the objects' motion is extrapolated.
const MOTION_FRAMES: f64 = 3.0;
/// Regions start at multiples of this number of pixels, so that chroma planes can be cropped too.
const GRID: usize = 4;
/// Frames with a shorter side are processed whole.
const MIN_FRAME_SIDE: usize = 64;

impl Bounds {
    /// Returns the smallest bounds that contain both.
    pub fn join(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            right: self.right.max(other.right),
            top: self.top.min(other.top),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// Converts bounds relative to `region` to bounds relative to the frame of (width, height) pixels.
    pub fn to_frame(self, region: Region, (width, height): (usize, usize)) -> Self {
        let at = |start: usize, length: usize, whole: usize, part: f64| {
            (start as f64 + part * length as f64) / whole.max(1) as f64
        };
        Self {
            left: at(region.x, region.width, width, self.left),
            right: at(region.x, region.width, width, self.right),
            top: at(region.y, region.height, height, self.top),
            bottom: at(region.y, region.height, height, self.bottom),
        }
    }

    fn centre(&self) -> (f64, f64) {
        (0.5 * (self.left + self.right), 0.5 * (self.top + self.bottom))
    }

    fn moved(self, (x, y): (f64, f64)) -> Self {
        let within = |value: f64| value.clamp(0.0, 1.0);
        Self {
            left: within(self.left + x),
            right: within(self.right + x),
            top: within(self.top + y),
            bottom: within(self.bottom + y),
        }
    }

    /// Width and height of the region around the bounds, as fractions of the frame's.
    fn sides(&self, frame: (usize, usize), shaped: bool) -> (f64, f64) {
        let object = (self.right - self.left, self.bottom - self.top);
        let whole = |side: f64| if side > MAX_ROI_FRACTION { 1.0 } else { side };
        if !shaped {
            let side = whole(MARGIN * object.0.max(object.1)).max(MIN_ROI_FRACTION);
            return (side, side);
        }
        // In units of the frame's height, so that the margin is the same on all sides.
        let aspect = frame.0 as f64 / frame.1.max(1) as f64;
        let object = (object.0 * aspect, object.1);
        let margin = MARGIN_SHAPED * 0.5 * (object.0 + object.1);
        let (width, height) = (object.0 + margin, object.1 + margin);
        let (width, height) = (width.max(height / MAX_ASPECT), height.max(width / MAX_ASPECT));
        let min_area = MIN_ROI_FRACTION * MIN_ROI_FRACTION * aspect;
        let scale = (min_area / (width * height).max(f64::MIN_POSITIVE)).sqrt().max(1.0);
        // If the frame limits one side, the other grows to keep the minimum area.
        let (horizontal, vertical) = (whole(scale * width / aspect), whole(scale * height));
        (
            horizontal.max(MIN_ROI_FRACTION * MIN_ROI_FRACTION / vertical).min(1.0),
            vertical.max(MIN_ROI_FRACTION * MIN_ROI_FRACTION / horizontal).min(1.0),
        )
    }
}

#[derive(Clone, Debug, Default)]
pub struct RoiPlanner {
    /// Regions have the aspect ratio of the objects instead of the frame's.
    shaped: bool,
    last: Option<Bounds>,
    /// Bounds of the objects in this frame and, extrapolated, in the next.
    expected: Option<Bounds>,
}

impl RoiPlanner {
    /// With `shaped`, regions have the aspect ratio of the objects, otherwise that of the frame.
    pub fn new(shaped: bool) -> Self {
        Self { shaped, last: None, expected: None }
    }

    /// Returns the region of the reference. The next frame may come any time later, so no motion is assumed.
    pub fn begin(&self, bounds: Option<Bounds>, frame: (usize, usize)) -> Region {
        bounds.map_or(Region::whole(frame), |bounds| region_around(&bounds, frame, self.shaped))
    }

    /// Returns the region for the next frame. `current` is the region of this frame; `bounds` are those of the
    /// objects in this frame, or `None` if no object was found.
    pub fn next(&mut self, current: Region, bounds: Option<Bounds>, frame: (usize, usize)) -> Region {
        let last = self.last;
        self.last = bounds;
        self.expected = None;
        let Some(bounds) = bounds else { return Region::whole(frame) };
        let motion = last.map_or((0.0, 0.0), |last| {
            let (before, now) = (last.centre(), bounds.centre());
            (now.0 - before.0, now.1 - before.1)
        });
        self.expected = Some(bounds.join(bounds.moved(motion)));
        let bounds = bounds.join(bounds.moved((MOTION_FRAMES * motion.0, MOTION_FRAMES * motion.1)));
        if is_adequate(current, &bounds, frame, self.shaped) {
            current
        } else {
            region_around(&bounds, frame, self.shaped)
        }
    }

    /// Returns whether the objects are expected to be inside `region` in the next frame, so that the frame can be
    /// processed there even if another region is planned.
    pub fn accepts(&self, region: Region, (width, height): (usize, usize)) -> bool {
        let Some(bounds) = self.expected else { return false };
        let axis = |start: usize, length: usize, whole: usize, from: f64, to: f64| {
            let end = start + length;
            let (first, last) = (start as f64 / whole as f64, end as f64 / whole as f64);
            (start == 0 || from > first) && (end == whole || to < last)
        };
        axis(region.x, region.width, width, bounds.left, bounds.right)
            && axis(region.y, region.height, height, bounds.top, bounds.bottom)
    }
}

/// Returns whether the objects are well inside `region` and it is not much larger than necessary.
fn is_adequate(region: Region, bounds: &Bounds, frame: (usize, usize), shaped: bool) -> bool {
    let (width, height) = frame;
    let axis = |start: usize, length: usize, whole: usize, from: f64, to: f64| {
        let (start, end) = (start as f64 / whole as f64, (start + length) as f64 / whole as f64);
        let border = MIN_BORDER * (end - start);
        (start <= 0.0 || from >= start + border) && (end >= 1.0 || to <= end - border)
    };
    let (horizontal, vertical) = bounds.sides(frame, shaped);
    let part = |length: usize, whole: usize| length as f64 / whole.max(1) as f64;
    part(region.width, width) < ROI_HYSTERESIS * horizontal
        && part(region.height, height) < ROI_HYSTERESIS * vertical
        && axis(region.x, region.width, width, bounds.left, bounds.right)
        && axis(region.y, region.height, height, bounds.top, bounds.bottom)
}

fn region_around(bounds: &Bounds, (width, height): (usize, usize), shaped: bool) -> Region {
    let (horizontal, vertical) = bounds.sides((width, height), shaped);
    if (horizontal >= 1.0 && vertical >= 1.0) || width.min(height) < MIN_FRAME_SIDE {
        return Region::whole((width, height));
    }
    let (x, y) = bounds.centre();
    let axis = |centre: f64, side: f64, whole: usize| {
        let length = ((side * whole as f64) as usize).next_multiple_of(GRID).min(whole);
        let start = (centre * whole as f64 - 0.5 * length as f64).max(0.0) as usize;
        let start = start.min(whole - length) / GRID * GRID;
        // What lies beyond the region is transparent.
        let reaches_end = start + length + GRID > whole;
        (start, if reaches_end { whole - start } else { length })
    };
    let ((x, width), (y, height)) = (axis(x, horizontal, width), axis(y, vertical, height));
    Region { x, y, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: (usize, usize) = (1280, 720);

    fn bounds(left: f64, right: f64, top: f64, bottom: f64) -> Bounds {
        Bounds { left, right, top, bottom }
    }

    #[test]
    fn the_region_surrounds_the_object_within_the_frame() {
        let region = region_around(&bounds(0.4, 0.7, 0.0, 0.2), FRAME, false);
        assert_eq!((region.width, region.height), (576, 324));
        assert!((region.x + region.width / 2).abs_diff(704) <= GRID);
        assert_eq!(region.y, 0);
        let corner = region_around(&bounds(0.9, 1.0, 0.9, 1.0), FRAME, false);
        assert_eq!((corner.x + corner.width, corner.y + corner.height), FRAME);
        assert_eq!((corner.width, corner.height), (512, 288));
    }

    #[test]
    fn regions_are_inside_any_frame_and_on_the_grid() {
        for width in [1, 7, 63, 64, 65, 101, 333, 1919] {
            for height in [1, 64, 97, 1081] {
                for step in 0..40 {
                    let (at, shaped) = (f64::from(step / 2) / 20.0, step % 2 == 1);
                    let bounds = bounds(at, at + 0.05, 1.0 - at - 0.05, 1.0 - at);
                    let region = region_around(&bounds, (width, height), shaped);
                    assert!(region.width > 0 && region.x + region.width <= width);
                    assert!(region.height > 0 && region.y + region.height <= height);
                    assert!(region.x.is_multiple_of(GRID) && region.y.is_multiple_of(GRID));
                }
            }
        }
    }

    /// Up to three columns and rows were left out.
    #[test]
    fn regions_of_objects_at_the_border_end_there() {
        for frame in [(854, 480), (480, 854), (426, 240), (1366, 767), (1281, 722), (1279, 723)] {
            for shaped in [false, true] {
                let at_border = bounds(0.8, 1.0, 0.8, 1.0);
                let mut planner = RoiPlanner::new(shaped);
                let region = planner.begin(Some(at_border), frame);
                assert_eq!((region.x + region.width, region.y + region.height), frame, "{region:?}");
                assert!(region.x > 0 && region.y > 0, "{region:?}");
                assert_eq!(planner.next(region, Some(at_border), frame), region);
                assert!(planner.accepts(region, frame));
            }
        }
    }

    #[test]
    fn object_shaped_regions_are_tall_or_wide() {
        let standing = region_around(&bounds(0.45, 0.55, 0.2, 0.8), FRAME, true);
        assert!(standing.height > standing.width && standing.height < 2 * standing.width, "{standing:?}");
        assert!(standing.width as f64 > 1.3 * 0.1 * 1280.0, "{standing:?}: a margin on all sides");
        let framed = region_around(&bounds(0.45, 0.55, 0.2, 0.8), FRAME, false);
        assert!(standing.width * 3 < framed.width * 2, "{standing:?} {framed:?}");

        let lying = region_around(&bounds(0.2, 0.8, 0.45, 0.55), FRAME, true);
        assert!(lying.height as f64 > 0.1 * 720.0 * 1.3 && lying.width < 1280, "{lying:?}");
        let round = region_around(&bounds(0.4, 0.5, 0.5, 0.5 + 0.1 * 16.0 / 9.0), FRAME, true);
        assert!(round.width.abs_diff(round.height) <= GRID, "{round:?}");
    }

    #[test]
    fn object_shaped_regions_contain_the_object_and_have_a_minimum_area() {
        let min_area = MIN_ROI_FRACTION * MIN_ROI_FRACTION * 1280.0 * 720.0;
        for (left, right) in [(0.0, 0.05), (0.5, 0.501), (0.1, 0.95), (0.97, 1.0), (0.3, 0.6)] {
            for (top, bottom) in [(0.0, 0.04), (0.4, 0.401), (0.05, 0.9), (0.9, 1.0), (0.3, 0.7)] {
                let region = region_around(&bounds(left, right, top, bottom), FRAME, true);
                assert!((region.width * region.height) as f64 >= 0.97 * min_area, "{region:?}");
                let within = |at: f64, whole: usize, start: usize, length: usize| {
                    let at = at * whole as f64;
                    at >= start as f64 - GRID as f64 && at <= (start + length + GRID) as f64
                };
                assert!([left, right].iter().all(|&x| within(x, 1280, region.x, region.width)), "{region:?}");
                assert!([top, bottom].iter().all(|&y| within(y, 720, region.y, region.height)), "{region:?}");
            }
        }
    }

    #[test]
    fn the_aspect_ratio_follows_an_object_that_turns() {
        let mut planner = RoiPlanner::new(true);
        let standing = planner.begin(Some(bounds(0.45, 0.55, 0.2, 0.8)), FRAME);
        let mut region = standing;
        for _ in 0..3 {
            region = planner.next(region, Some(bounds(0.25, 0.75, 0.5, 0.65)), FRAME);
        }
        assert!(standing.width < standing.height && region.width > region.height, "{standing:?} {region:?}");
    }

    #[test]
    fn large_or_lost_objects_get_the_whole_frame() {
        let mut planner = RoiPlanner::default();
        assert_eq!(planner.begin(Some(bounds(0.1, 0.8, 0.2, 0.8)), FRAME), Region::whole(FRAME));
        let near = planner.next(Region::whole(FRAME), Some(bounds(0.1, 0.2, 0.4, 0.5)), FRAME);
        assert_ne!(near, Region::whole(FRAME));
        assert_eq!(planner.next(near, None, FRAME), Region::whole(FRAME));
    }

    #[test]
    fn small_motion_does_not_move_the_region() {
        let mut planner = RoiPlanner::default();
        let first = planner.begin(Some(bounds(0.45, 0.55, 0.45, 0.55)), FRAME);
        let mut region = first;
        for step in 0..10 {
            let shift = 0.005 * f64::from(step % 2);
            region = planner.next(region, Some(bounds(0.45 + shift, 0.55 + shift, 0.45, 0.55)), FRAME);
        }
        assert_eq!(region, first);
        for step in 1..10 {
            let shift = 0.02 * f64::from(step);
            region = planner.next(region, Some(bounds(0.45 + shift, 0.55 + shift, 0.45, 0.55)), FRAME);
        }
        assert!(region.x > first.x && region.width < FRAME.0);
    }

    #[test]
    fn a_region_is_accepted_until_the_objects_reach_its_border() {
        let region = Region { x: 256, y: 144, width: 512, height: 288 };
        let after = |steps: &[f64]| {
            let mut planner = RoiPlanner::new(true);
            for left in steps {
                planner.next(region, Some(bounds(*left, left + 0.2, 0.3, 0.5)), FRAME);
            }
            planner.accepts(region, FRAME)
        };
        assert!(!after(&[]), "no bounds yet");
        assert!(after(&[0.25, 0.26]));
        assert!(!after(&[0.3, 0.37]), "they leave the region if the motion continues");
        assert!(!after(&[0.45]), "they are outside");
        let mut planner = RoiPlanner::new(true);
        planner.next(region, Some(bounds(0.3, 0.5, 0.3, 0.5)), FRAME);
        planner.next(region, None, FRAME);
        assert!(!planner.accepts(region, FRAME), "lost objects are searched for in the whole frame");
        assert!(!planner.accepts(Region::whole(FRAME), FRAME));
    }

    #[test]
    fn fast_objects_get_a_margin_ahead() {
        let mut slow = RoiPlanner::default();
        let mut fast = RoiPlanner::default();
        let whole = Region::whole(FRAME);
        slow.next(whole, Some(bounds(0.3, 0.5, 0.4, 0.6)), FRAME);
        fast.next(whole, Some(bounds(0.22, 0.42, 0.4, 0.6)), FRAME);
        let now = Some(bounds(0.3, 0.5, 0.4, 0.6));
        let (slow, fast) = (slow.next(whole, now, FRAME), fast.next(whole, now, FRAME));
        assert!(fast.x + fast.width > slow.x + slow.width);
    }
}
