//! Smoothing over time: alpha stays near what it was in the frame before where the picture stays as it
//! was, and follows at once where the picture, or the alpha itself, changes much.

use super::MaskView;
use super::guide::Guide;

/// From this change of luma on, of 255, a pixel shows something else, and keeps nothing.
const MOVED: i32 = 16;
/// Changes of luma up to this one are noise.
const NOISE: i32 = 3;
/// From this change of alpha on, of 255, an edge has moved on.
const JUMP: i32 = 160;
/// Share of the frame before, of 256, that full smoothing keeps where nothing changes.
const MOST: f64 = 230.0;

/// What is kept of the frame before.
#[derive(Debug, Default)]
pub struct History {
    size: (usize, usize),
    alpha: Vec<u8>,
    /// Empty if the frame before had no guide.
    luma: Vec<u8>,
}

impl History {
    /// The alpha of the frame, smoothed by `strength` from 0 to 1; with `anew`, the first of its kind.
    pub fn smooth(&mut self, now: MaskView, guide: Option<&Guide>, strength: f64, anew: bool) -> &[u8] {
        let size = (now.width, now.height);
        let guide = guide.filter(|guide| guide.size() == size);
        if anew || size != self.size {
            self.size = size;
            self.alpha.clear();
            self.alpha.extend_from_slice(now.values);
            self.luma.clear();
        }
        let keep = (strength.clamp(0.0, 1.0) * MOST).round() as i32;
        let seen = !self.luma.is_empty();
        self.luma.resize(guide.map_or(0, |_| now.values.len()), 0);
        for (y, (before, now)) in
            self.alpha.chunks_exact_mut(size.0).zip(now.values.chunks_exact(size.0)).enumerate()
        {
            let Some(guide) = guide else {
                settle(before, now, keep);
                continue;
            };
            let shown = guide.row(y, 0..size.0);
            let luma = &mut self.luma[y * size.0..][..size.0];
            if seen && *before != *now {
                settle_where_still(before, now, (luma, &shown), keep);
            } else {
                before.copy_from_slice(now);
            }
            luma.copy_from_slice(&shown);
        }
        &self.alpha
    }
}

fn settle(before: &mut [u8], now: &[u8], keep: i32) {
    for (before, &now) in before.iter_mut().zip(now) {
        *before = mix(*before, now, keep, 0);
    }
}

fn settle_where_still(before: &mut [u8], now: &[u8], (was, shown): (&[u8], &[u8]), keep: i32) {
    let lumas = was.iter().zip(shown);
    for ((before, &now), (&was, &shown)) in before.iter_mut().zip(now).zip(lumas) {
        *before = mix(*before, now, keep, i32::from(was.abs_diff(shown)));
    }
}

/// `keep` of 256 of the value before, less the more it and the luma differ.
#[inline(always)]
fn mix(before: u8, now: u8, keep: i32, luma: i32) -> u8 {
    let difference = i32::from(before) - i32::from(now);
    let steady = (JUMP - difference.abs()).max(0);
    let still = (MOVED - luma).clamp(0, MOVED - NOISE);
    let weight = (keep * steady * still) / (JUMP * (MOVED - NOISE));
    // Towards the present: what does not change any more gets there in the end.
    (i32::from(now) + difference * weight / 256) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smooth<'a>(history: &'a mut History, alpha: &[u8], luma: Option<&[u8]>, strength: f64) -> &'a [u8] {
        let size = (alpha.len(), 1);
        let guide = luma.map(|luma| Guide::bytes(luma, size, size.0, 1).unwrap());
        let now = MaskView { values: alpha, width: size.0, height: 1 };
        history.smooth(now, guide.as_ref(), strength, false)
    }

    #[test]
    fn still_pixels_flicker_less_the_stronger_it_is() {
        let mut last = f64::MAX;
        for strength in [0.0, 0.3, 0.5, 0.8, 1.0] {
            let mut history = History::default();
            let mut before = smooth(&mut history, &[100], Some(&[50]), strength)[0];
            let mut flicker = 0.0;
            for step in 0..40u8 {
                let luma = 50 + step % 2;
                let alpha = if step % 2 == 0 { 130 } else { 100 };
                let after = smooth(&mut history, &[alpha], Some(&[luma]), strength)[0];
                flicker += f64::from(before.abs_diff(after)) / 40.0;
                before = after;
            }
            assert!(flicker < last, "{strength}: {flicker}");
            last = flicker;
        }
        assert!(last < 5.0, "{last} instead of 30");
    }

    #[test]
    fn nothing_is_smoothed_at_0() {
        let mut history = History::default();
        for alpha in [[0, 9, 255], [255, 8, 254], [1, 7, 0]] {
            assert_eq!(smooth(&mut history, &alpha, Some(&[3; 3]), 0.0), alpha);
        }
    }

    #[test]
    fn what_moves_leaves_no_trail() {
        let mut history = History::default();
        smooth(&mut history, &[255, 200, 100], Some(&[200, 200, 90]), 1.0);
        // The luma changed; or alpha, and much.
        assert_eq!(smooth(&mut history, &[100, 30, 0], Some(&[90, 200, 70]), 1.0), [100, 30, 0]);
        let mut history = History::default();
        smooth(&mut history, &[255], None, 1.0);
        assert_eq!(smooth(&mut history, &[0], None, 1.0), [0]);
    }

    #[test]
    fn it_settles_on_what_stays() {
        for (first, last) in [(0, 100), (100, 0), (255, 200), (200, 255), (7, 8)] {
            let mut history = History::default();
            smooth(&mut history, &[first], Some(&[1]), 1.0);
            for _ in 0..80 {
                smooth(&mut history, &[last], Some(&[1]), 1.0);
            }
            assert_eq!(smooth(&mut history, &[last], Some(&[1]), 1.0), [last]);
        }
    }

    #[test]
    fn a_new_start_size_or_guide_keeps_nothing() {
        let mut history = History::default();
        smooth(&mut history, &[100, 100], Some(&[5, 5]), 1.0);
        assert_eq!(smooth(&mut history, &[110], Some(&[5]), 1.0), [110]);
        let now = MaskView { values: &[120], width: 1, height: 1 };
        assert_eq!(history.smooth(now, None, 1.0, true), [120]);
        assert_eq!(smooth(&mut history, &[110], Some(&[5]), 1.0), [110], "no luma to compare with");
    }
}
