//! Where the network looks: the objects' surroundings, not closer than is good, and moved only when they
//! are about to leave it.

use super::Region;

/// The part of a frame that holds the objects, in parts of its width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

/// Side of the region in lengths of the objects' longer side.
const MARGIN: f64 = 1.5;
/// Least side of the region in parts of the frame's.
const LEAST: f64 = 0.4;
/// A region larger than this might as well be the whole frame.
const MOST: f64 = 0.95;
/// The region stays as long as it is no more than this times larger than it would be made now,
const ROOMY: f64 = 1.3;
/// and the objects keep this distance from its border, in parts of its side.
const BORDER: f64 = 0.08;
/// Frames ahead that the objects' motion is taken into account.
const AHEAD: f64 = 3.0;
/// Regions begin at multiples of so many pixels, so that chroma planes can be cut too.
const GRID: usize = 4;
/// Frames with a shorter side are looked at as a whole.
const SMALL: usize = 64;

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

    /// Side of the region to look at, in parts of the frame's.
    fn side(&self) -> f64 {
        let side = MARGIN * (self.right - self.left).max(self.bottom - self.top);
        if side > MOST { 1.0 } else { side.max(LEAST) }
    }
}

/// Chooses regions from frame to frame.
#[derive(Debug, Default)]
pub struct Focus {
    last: Option<Bounds>,
}

impl Focus {
    /// The region of the reference. What follows it may be any time later, so there is no motion yet.
    pub fn begin(&mut self, bounds: Option<Bounds>, frame: (usize, usize)) -> Region {
        self.last = None;
        bounds.map_or(Region::whole(frame), |bounds| about(&bounds, frame))
    }

    /// The region for the next frame, `current` being that of this one, in which the objects are within
    /// `bounds`, or nowhere.
    pub fn next(&mut self, current: Region, bounds: Option<Bounds>, frame: (usize, usize)) -> Region {
        let last = self.last;
        self.last = bounds;
        let Some(bounds) = bounds else { return Region::whole(frame) };
        let motion = last.map_or((0.0, 0.0), |last| {
            let (before, now) = (last.middle(), bounds.middle());
            (AHEAD * (now.0 - before.0), AHEAD * (now.1 - before.1))
        });
        let bounds = bounds.join(bounds.moved(motion));
        if holds(current, &bounds, frame) { current } else { about(&bounds, frame) }
    }
}

/// Whether the objects are well inside `region` and it is not much larger than need be.
fn holds(region: Region, bounds: &Bounds, (width, height): (usize, usize)) -> bool {
    let axis = |start: usize, length: usize, whole: usize, from: f64, to: f64| {
        let (start, end) = (start as f64 / whole as f64, (start + length) as f64 / whole as f64);
        let border = BORDER * (end - start);
        (start <= 0.0 || from >= start + border) && (end >= 1.0 || to <= end - border)
    };
    let side = region.width as f64 / width.max(1) as f64;
    side < ROOMY * bounds.side()
        && axis(region.x, region.width, width, bounds.left, bounds.right)
        && axis(region.y, region.height, height, bounds.top, bounds.bottom)
}

/// The region about the objects, of the frame's shape.
fn about(bounds: &Bounds, (width, height): (usize, usize)) -> Region {
    let side = bounds.side();
    if side >= 1.0 || width.min(height) < SMALL {
        return Region::whole((width, height));
    }
    let (x, y) = bounds.middle();
    let axis = |middle: f64, whole: usize| {
        let length = ((side * whole as f64) as usize).next_multiple_of(GRID).min(whole);
        let start = (middle * whole as f64 - 0.5 * length as f64).max(0.0) as usize;
        (start.min(whole - length) / GRID * GRID, length)
    };
    let ((x, width), (y, height)) = (axis(x, width), axis(y, height));
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
        let region = about(&bounds(0.4, 0.7, 0.0, 0.2), FRAME);
        assert_eq!((region.width, region.height), (576, 324));
        assert!((region.x + region.width / 2).abs_diff(704) <= GRID);
        assert_eq!(region.y, 0);
        let corner = about(&bounds(0.9, 1.0, 0.9, 1.0), FRAME);
        assert_eq!((corner.x + corner.width, corner.y + corner.height), FRAME);
        assert_eq!((corner.width, corner.height), (512, 288));
    }

    #[test]
    fn regions_are_inside_and_on_the_grid_for_any_frame() {
        for width in [1, 7, 63, 64, 65, 101, 333, 1919] {
            for height in [1, 64, 97, 1081] {
                for step in 0..20 {
                    let at = step as f64 / 20.0;
                    let region = about(&bounds(at, at + 0.05, 1.0 - at - 0.05, 1.0 - at), (width, height));
                    assert!(region.width > 0 && region.x + region.width <= width);
                    assert!(region.height > 0 && region.y + region.height <= height);
                    assert!(region.x.is_multiple_of(GRID) && region.y.is_multiple_of(GRID));
                }
            }
        }
    }

    #[test]
    fn large_or_lost_objects_get_the_whole_frame() {
        let mut focus = Focus::default();
        assert_eq!(focus.begin(Some(bounds(0.1, 0.8, 0.2, 0.8)), FRAME), Region::whole(FRAME));
        let near = focus.next(Region::whole(FRAME), Some(bounds(0.1, 0.2, 0.4, 0.5)), FRAME);
        assert_ne!(near, Region::whole(FRAME));
        assert_eq!(focus.next(near, None, FRAME), Region::whole(FRAME));
    }

    #[test]
    fn small_motion_does_not_move_the_region() {
        let mut focus = Focus::default();
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
    fn fast_objects_get_room_ahead() {
        let mut slow = Focus::default();
        let mut fast = Focus::default();
        let whole = Region::whole(FRAME);
        slow.next(whole, Some(bounds(0.3, 0.5, 0.4, 0.6)), FRAME);
        fast.next(whole, Some(bounds(0.22, 0.42, 0.4, 0.6)), FRAME);
        let now = Some(bounds(0.3, 0.5, 0.4, 0.6));
        let (slow, fast) = (slow.next(whole, now, FRAME), fast.next(whole, now, FRAME));
        assert!(fast.x + fast.width > slow.x + slow.width);
    }
}
