//! Where the network looks: the objects' surroundings, not closer than is good, and moved only when they
//! are about to leave it.

use crate::image::Region;

/// The part of a frame that holds the objects, in parts of its width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

/// Side of a region of the frame's shape in lengths of the objects' longer side.
const MARGIN: f64 = 1.5;
/// What a region of the objects' shape has beyond them in either direction, in parts of the mean of their sides.
const MARGIN_SHAPED: f64 = 0.3;
/// Least side of the region in parts of the frame's; of a region of another shape, the least root of its area.
const MIN_ROI_FRACTION: f64 = 0.4;
/// A region larger than this might as well be the whole frame.
const MAX_ROI_FRACTION: f64 = 0.95;
/// How many times as high as wide, or as wide as high, a region may be that follows the objects' shape.
const MAX_ASPECT: f64 = 1.8;
/// The region stays as long as its sides are no more than this times longer than they would be made now,
const ROI_HYSTERESIS: f64 = 1.3;
/// and the objects keep this distance from its border, in parts of its side.
const MIN_BORDER: f64 = 0.08;
/// Frames ahead that the objects' motion is taken into account.
const MOTION_FRAMES: f64 = 3.0;
/// Regions begin at multiples of so many pixels, so that chroma planes can be cut too.
const GRID: usize = 4;
/// Frames with a shorter side are looked at as a whole.
const MIN_FRAME_SIDE: usize = 64;

impl Bounds {
    /// The smallest that holds both.
    pub fn join(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            right: self.right.max(other.right),
            top: self.top.min(other.top),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// As parts of the frame, given as parts of a region of it.
    pub fn of_frame(self, region: Region, (width, height): (usize, usize)) -> Self {
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

    fn middle(&self) -> (f64, f64) {
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

    /// Width and height of the region to look at, in parts of the frame's.
    fn sides(&self, frame: (usize, usize), shaped: bool) -> (f64, f64) {
        let object = (self.right - self.left, self.bottom - self.top);
        let whole = |side: f64| if side > MAX_ROI_FRACTION { 1.0 } else { side };
        if !shaped {
            let side = whole(MARGIN * object.0.max(object.1)).max(MIN_ROI_FRACTION);
            return (side, side);
        }
        // In lengths of the frame's height: as much room on all sides.
        let wide = frame.0 as f64 / frame.1.max(1) as f64;
        let object = (object.0 * wide, object.1);
        let room = MARGIN_SHAPED * 0.5 * (object.0 + object.1);
        let (width, height) = (object.0 + room, object.1 + room);
        let (width, height) = (width.max(height / MAX_ASPECT), height.max(width / MAX_ASPECT));
        let least = MIN_ROI_FRACTION * MIN_ROI_FRACTION * wide;
        let grown = (least / (width * height).max(f64::MIN_POSITIVE)).sqrt().max(1.0);
        // What one side lacks for want of room, the other has.
        let (across, down) = (whole(grown * width / wide), whole(grown * height));
        (
            across.max(MIN_ROI_FRACTION * MIN_ROI_FRACTION / down).min(1.0),
            down.max(MIN_ROI_FRACTION * MIN_ROI_FRACTION / across).min(1.0),
        )
    }
}

/// Chooses regions from frame to frame.
#[derive(Clone, Debug, Default)]
pub struct RoiPlanner {
    /// Regions are of the objects' shape, not of the frame's.
    shaped: bool,
    last: Option<Bounds>,
    /// Where the objects are and probably will be in the next frame.
    expected: Option<Bounds>,
}

impl RoiPlanner {
    /// With `shaped`, regions are as wide or high as the objects are; else of the frame's shape.
    pub fn new(shaped: bool) -> Self {
        Self { shaped, last: None, expected: None }
    }

    /// The region of the reference. What follows it may be any time later, so there is no motion yet.
    pub fn begin(&mut self, bounds: Option<Bounds>, frame: (usize, usize)) -> Region {
        self.last = None;
        bounds.map_or(Region::whole(frame), |bounds| about(&bounds, frame, self.shaped))
    }

    /// The region for the next frame, `current` being that of this one, in which the objects are within
    /// `bounds`, or nowhere.
    pub fn next(&mut self, current: Region, bounds: Option<Bounds>, frame: (usize, usize)) -> Region {
        let last = self.last;
        self.last = bounds;
        self.expected = None;
        let Some(bounds) = bounds else { return Region::whole(frame) };
        let motion = last.map_or((0.0, 0.0), |last| {
            let (before, now) = (last.middle(), bounds.middle());
            (now.0 - before.0, now.1 - before.1)
        });
        self.expected = Some(bounds.join(bounds.moved(motion)));
        let bounds = bounds.join(bounds.moved((MOTION_FRAMES * motion.0, MOTION_FRAMES * motion.1)));
        if holds(current, &bounds, frame, self.shaped) { current } else { about(&bounds, frame, self.shaped) }
    }
}

impl RoiPlanner {
    /// Whether the next frame can be seen in `region`, though another would be chosen for it: the objects will
    /// probably be inside.
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

/// Whether the objects are well inside `region` and it is not much larger than need be.
fn holds(region: Region, bounds: &Bounds, frame: (usize, usize), shaped: bool) -> bool {
    let (width, height) = frame;
    let axis = |start: usize, length: usize, whole: usize, from: f64, to: f64| {
        let (start, end) = (start as f64 / whole as f64, (start + length) as f64 / whole as f64);
        let border = MIN_BORDER * (end - start);
        (start <= 0.0 || from >= start + border) && (end >= 1.0 || to <= end - border)
    };
    let (across, down) = bounds.sides(frame, shaped);
    let part = |length: usize, whole: usize| length as f64 / whole.max(1) as f64;
    part(region.width, width) < ROI_HYSTERESIS * across
        && part(region.height, height) < ROI_HYSTERESIS * down
        && axis(region.x, region.width, width, bounds.left, bounds.right)
        && axis(region.y, region.height, height, bounds.top, bounds.bottom)
}

/// The region about the objects.
fn about(bounds: &Bounds, (width, height): (usize, usize), shaped: bool) -> Region {
    let (across, down) = bounds.sides((width, height), shaped);
    if (across >= 1.0 && down >= 1.0) || width.min(height) < MIN_FRAME_SIDE {
        return Region::whole((width, height));
    }
    let (x, y) = bounds.middle();
    let axis = |middle: f64, side: f64, whole: usize| {
        let length = ((side * whole as f64) as usize).next_multiple_of(GRID).min(whole);
        let start = (middle * whole as f64 - 0.5 * length as f64).max(0.0) as usize;
        (start.min(whole - length) / GRID * GRID, length)
    };
    let ((x, width), (y, height)) = (axis(x, across, width), axis(y, down, height));
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
    fn room_about_the_object_within_the_frame() {
        let region = about(&bounds(0.4, 0.7, 0.0, 0.2), FRAME, false);
        assert_eq!((region.width, region.height), (576, 324));
        assert!((region.x + region.width / 2).abs_diff(704) <= GRID);
        assert_eq!(region.y, 0);
        let corner = about(&bounds(0.9, 1.0, 0.9, 1.0), FRAME, false);
        assert_eq!((corner.x + corner.width, corner.y + corner.height), FRAME);
        assert_eq!((corner.width, corner.height), (512, 288));
    }

    #[test]
    fn regions_are_inside_and_on_the_grid_for_any_frame() {
        for width in [1, 7, 63, 64, 65, 101, 333, 1919] {
            for height in [1, 64, 97, 1081] {
                for step in 0..40 {
                    let (at, shaped) = (f64::from(step / 2) / 20.0, step % 2 == 1);
                    let bounds = bounds(at, at + 0.05, 1.0 - at - 0.05, 1.0 - at);
                    let region = about(&bounds, (width, height), shaped);
                    assert!(region.width > 0 && region.x + region.width <= width);
                    assert!(region.height > 0 && region.y + region.height <= height);
                    assert!(region.x.is_multiple_of(GRID) && region.y.is_multiple_of(GRID));
                }
            }
        }
    }

    #[test]
    fn a_region_can_be_as_high_or_as_wide_as_its_object() {
        let standing = about(&bounds(0.45, 0.55, 0.2, 0.8), FRAME, true);
        assert!(standing.height > standing.width && standing.height < 2 * standing.width, "{standing:?}");
        assert!(standing.width as f64 > 1.3 * 0.1 * 1280.0, "{standing:?}: surroundings on all sides");
        let framed = about(&bounds(0.45, 0.55, 0.2, 0.8), FRAME, false);
        assert!(standing.width * 3 < framed.width * 2, "{standing:?} {framed:?}");

        let lying = about(&bounds(0.2, 0.8, 0.45, 0.55), FRAME, true);
        assert!(lying.height as f64 > 0.1 * 720.0 * 1.3 && lying.width < 1280, "{lying:?}");
        let round = about(&bounds(0.4, 0.5, 0.5, 0.5 + 0.1 * 16.0 / 9.0), FRAME, true);
        assert!(round.width.abs_diff(round.height) <= GRID, "{round:?}");
    }

    #[test]
    fn regions_of_any_shape_hold_their_object_and_as_much_of_the_frame() {
        let least = MIN_ROI_FRACTION * MIN_ROI_FRACTION * 1280.0 * 720.0;
        for (left, right) in [(0.0, 0.05), (0.5, 0.501), (0.1, 0.95), (0.97, 1.0), (0.3, 0.6)] {
            for (top, bottom) in [(0.0, 0.04), (0.4, 0.401), (0.05, 0.9), (0.9, 1.0), (0.3, 0.7)] {
                let region = about(&bounds(left, right, top, bottom), FRAME, true);
                assert!((region.width * region.height) as f64 >= 0.97 * least, "{region:?}");
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
    fn an_object_that_turns_gets_a_region_of_another_shape() {
        let mut focus = RoiPlanner::new(true);
        let standing = focus.begin(Some(bounds(0.45, 0.55, 0.2, 0.8)), FRAME);
        let mut region = standing;
        for _ in 0..3 {
            region = focus.next(region, Some(bounds(0.25, 0.75, 0.5, 0.65)), FRAME);
        }
        assert!(standing.width < standing.height && region.width > region.height, "{standing:?} {region:?}");
    }

    #[test]
    fn large_or_lost_objects_get_the_whole_frame() {
        let mut focus = RoiPlanner::default();
        assert_eq!(focus.begin(Some(bounds(0.1, 0.8, 0.2, 0.8)), FRAME), Region::whole(FRAME));
        let near = focus.next(Region::whole(FRAME), Some(bounds(0.1, 0.2, 0.4, 0.5)), FRAME);
        assert_ne!(near, Region::whole(FRAME));
        assert_eq!(focus.next(near, None, FRAME), Region::whole(FRAME));
    }

    #[test]
    fn small_motion_does_not_move_the_region() {
        let mut focus = RoiPlanner::default();
        let first = focus.begin(Some(bounds(0.45, 0.55, 0.45, 0.55)), FRAME);
        let mut region = first;
        for step in 0..10 {
            let shift = 0.005 * f64::from(step % 2);
            region = focus.next(region, Some(bounds(0.45 + shift, 0.55 + shift, 0.45, 0.55)), FRAME);
        }
        assert_eq!(region, first);
        for step in 1..10 {
            let shift = 0.02 * f64::from(step);
            region = focus.next(region, Some(bounds(0.45 + shift, 0.55 + shift, 0.45, 0.55)), FRAME);
        }
        assert!(region.x > first.x && region.width < FRAME.0);
    }

    #[test]
    fn a_region_chosen_earlier_is_borne_until_the_objects_come_to_its_border() {
        let region = Region { x: 256, y: 144, width: 512, height: 288 };
        let after = |steps: &[f64]| {
            let mut focus = RoiPlanner::new(true);
            for left in steps {
                focus.next(region, Some(bounds(*left, left + 0.2, 0.3, 0.5)), FRAME);
            }
            focus.accepts(region, FRAME)
        };
        assert!(!after(&[]), "nothing is known yet");
        assert!(after(&[0.25, 0.26]));
        assert!(!after(&[0.3, 0.37]), "with as much motion again they would be outside");
        assert!(!after(&[0.45]), "they are outside");
        let mut focus = RoiPlanner::new(true);
        focus.next(region, Some(bounds(0.3, 0.5, 0.3, 0.5)), FRAME);
        focus.next(region, None, FRAME);
        assert!(!focus.accepts(region, FRAME), "what is lost is looked for everywhere");
        assert!(!focus.accepts(Region::whole(FRAME), FRAME));
    }

    #[test]
    fn fast_objects_get_room_ahead() {
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
