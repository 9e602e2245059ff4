// SPDX-License-Identifier: MPL-2.0

//! Temporal smoothing: alpha stays close to that of the previous frame where the picture is still, and follows at
//! once where luma or alpha changes by much.

use super::MaskView;
use super::guide::Guide;

/// Change of luma (0 to 255) from which a pixel counts as moved and keeps nothing of the previous frame.
const MIN_MOTION: i32 = 16;
/// Change of luma up to which it counts as noise.
const MAX_NOISE: i32 = 3;
/// Change of alpha (0 to 255) from which an edge counts as moved.
const MIN_JUMP: i32 = 160;
/// Weight of the previous frame, of 256, at full smoothing where nothing changes.
const MAX_KEEP: f64 = 230.0;

/// Smoothed alpha and luma of the previous frame.
#[derive(Debug, Default)]
pub struct History {
    size: (usize, usize),
    alpha: Vec<u8>,
    /// Empty if the previous frame had no guide.
    luma: Vec<u8>,
}

impl History {
    /// Returns the alpha of the frame, smoothed by `strength` (0 to 1). `restart` discards the previous frame.
    pub fn smooth(&mut self, now: MaskView, guide: Option<&Guide>, strength: f64, restart: bool) -> &[u8] {
        let size = (now.width, now.height);
        let guide = guide.filter(|guide| guide.size() == size);
        if restart || size != self.size {
            self.size = size;
            self.alpha.clear();
            self.alpha.extend_from_slice(now.values);
            self.luma.clear();
        }
        let keep = (strength.clamp(0.0, 1.0) * MAX_KEEP).round() as i32;
        let has_luma = !self.luma.is_empty();
        self.luma.resize(guide.map_or(0, |_| now.values.len()), 0);
        for (y, (before, now)) in
            self.alpha.chunks_exact_mut(size.0).zip(now.values.chunks_exact(size.0)).enumerate()
        {
            let Some(guide) = guide else {
                smooth_by_alpha(before, now, keep);
                continue;
            };
            let new_luma = guide.row(y, 0..size.0);
            let luma = &mut self.luma[y * size.0..][..size.0];
            if has_luma && *before != *now {
                smooth_by_alpha_and_luma(before, now, (luma, &new_luma), keep);
            } else {
                before.copy_from_slice(now);
            }
            luma.copy_from_slice(&new_luma);
        }
        &self.alpha
    }
}

fn smooth_by_alpha(before: &mut [u8], now: &[u8], keep: i32) {
    for (before, &now) in before.iter_mut().zip(now) {
        *before = mix(*before, now, keep, 0);
    }
}

fn smooth_by_alpha_and_luma(before: &mut [u8], now: &[u8], (old_luma, new_luma): (&[u8], &[u8]), keep: i32) {
    let lumas = old_luma.iter().zip(new_luma);
    for ((before, &now), (&old_luma, &new_luma)) in before.iter_mut().zip(now).zip(lumas) {
        *before = mix(*before, now, keep, i32::from(old_luma.abs_diff(new_luma)));
    }
}

/// Mixes the previous and the current value. The weight of the previous one is `keep` of 256, reduced by the
/// changes of alpha and luma.
#[inline(always)]
fn mix(before: u8, now: u8, keep: i32, luma: i32) -> u8 {
    let difference = i32::from(before) - i32::from(now);
    let steady = (MIN_JUMP - difference.abs()).max(0);
    let still = (MIN_MOTION - luma).clamp(0, MIN_MOTION - MAX_NOISE);
    let weight = (keep * steady * still) / (MIN_JUMP * (MIN_MOTION - MAX_NOISE));
    // Rounded towards the current value, so that a constant input is reached exactly in the end.
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
    fn still_pixels_flicker_less_with_more_smoothing() {
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
    fn strength_0_changes_nothing() {
        let mut history = History::default();
        for alpha in [[0, 9, 255], [255, 8, 254], [1, 7, 0]] {
            assert_eq!(smooth(&mut history, &alpha, Some(&[3; 3]), 0.0), alpha);
        }
    }

    #[test]
    fn moving_objects_leave_no_trail() {
        let mut history = History::default();
        smooth(&mut history, &[255, 200, 100], Some(&[200, 200, 90]), 1.0);
        // Luma changed, or alpha changed by much.
        assert_eq!(smooth(&mut history, &[100, 30, 0], Some(&[90, 200, 70]), 1.0), [100, 30, 0]);
        let mut history = History::default();
        smooth(&mut history, &[255], None, 1.0);
        assert_eq!(smooth(&mut history, &[0], None, 1.0), [0]);
    }

    #[test]
    fn smoothing_converges_to_a_constant_input() {
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
    fn a_restart_a_new_size_or_a_new_guide_keeps_nothing() {
        let mut history = History::default();
        smooth(&mut history, &[100, 100], Some(&[5, 5]), 1.0);
        assert_eq!(smooth(&mut history, &[110], Some(&[5]), 1.0), [110]);
        let now = MaskView { values: &[120], width: 1, height: 1 };
        assert_eq!(history.smooth(now, None, 1.0, true), [120]);
        assert_eq!(smooth(&mut history, &[110], Some(&[5]), 1.0), [110], "no luma to compare with");
    }
}
