// SPDX-License-Identifier: MPL-2.0

//! Resampling of pictures: affine transforms, waves and thin-plate splines; blur.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::Size;
use super::settings::Border;
use super::spline::Spline;
use crate::Result;

/// Affine transform of a source to the output.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Radians.
    pub rotation: f64,
    /// Output pixels per source pixel.
    pub scale: f64,
    /// Offset of the source's centre from the output's, as fractions of the output's width and height.
    pub shift: (f64, f64),
    /// Output pixels to the right per source pixel down.
    pub shear: f64,
    /// Mirrors left to right, before all other transforms.
    pub flip: bool,
}

impl Placement {
    /// Returns a centred placement without rotation, shear or mirroring.
    pub fn scaled(scale: f64) -> Self {
        Self { rotation: 0.0, scale, shift: (0.0, 0.0), shear: 0.0, flip: false }
    }
}

/// Sinusoidal displacement.
#[derive(Clone, Copy, Debug)]
pub struct Wave {
    /// Output pixels.
    pub amplitude: f64,
    /// Radians per output pixel.
    pub frequency: f64,
    /// Phases of the horizontal and of the vertical displacement, radians.
    pub phase: (f64, f64),
}

/// Distance between the pixels at which a spline is evaluated.
const SPLINE_STEP: i64 = 4;

/// Maximum length of motion blur, pixels.
const MAX_LENGTH: f64 = 24.0;

/// Sampling grid (1, H, W, 2): the position of every output pixel in the source, x and y in [-1, 1] inside the
/// source.
#[derive(Debug)]
pub struct Grid(Tensor);

impl Grid {
    /// Builds the grid of a source whose nominal height and width are `extent`, independent of its resolution.
    pub fn new(extent: Size, output: Size, placement: &Placement, wave: Option<&Wave>) -> Result<Self> {
        let Placement { rotation, scale, shift, shear, flip } = *placement;
        // Forward: out = A (source - centre) + place. The grid needs the inverse of A.
        let (c, s) = (rotation.cos() * scale, rotation.sin() * scale);
        let (a, b, d, e) = (c, shear - s, s, c);
        let determinant = a * e - b * d;
        let (ia, ib, id, ie) = (e / determinant, -b / determinant, -d / determinant, a / determinant);
        let place = ((0.5 + shift.0) * output.1 as f64, (0.5 + shift.1) * output.0 as f64);
        let half = (0.5 * extent.1 as f64, 0.5 * extent.0 as f64);
        let side = if flip { -half.0 } else { half.0 };
        let source =
            |x: f64, y: f64| [((ia * x + ib * y) / side) as f32, ((id * x + ie * y) / half.1) as f32];
        // x is displaced as a function of y, and y of x, so the grid remains the sum of a row and a column.
        let (amplitude, frequency, phase) =
            wave.map_or((0.0, 0.0, (0.0, 0.0)), |wave| (wave.amplitude, wave.frequency, wave.phase));
        let across = (0..output.1).flat_map(|column| {
            let x = column as f64 + 0.5;
            source(x - place.0, amplitude * (frequency * x + phase.1).cos())
        });
        let down = (0..output.0).flat_map(|row| {
            let y = row as f64 + 0.5;
            source(amplitude * (frequency * y + phase.0).sin(), y - place.1)
        });
        let across = Tensor::f_from_slice(&across.collect::<Vec<f32>>())?.f_reshape([1, 1, output.1, 2])?;
        let down = Tensor::f_from_slice(&down.collect::<Vec<f32>>())?.f_reshape([1, output.0, 1, 2])?;
        Ok(Self(across.f_add(&down)?))
    }

    /// Returns the grid with the source bent by `spline`, which maps the displaced position of a point to its
    /// position in the source. The displacement is smooth, so it is computed at every [`SPLINE_STEP`]th pixel and
    /// interpolated.
    pub fn bent(&self, spline: &Spline) -> Result<Self> {
        let fine = self.0.f_permute([0, 3, 1, 2])?;
        let (height, width) = (fine.size()[2], fine.size()[3]);
        let resized =
            |x: &Tensor, height: i64, width: i64| x.f_upsample_bilinear2d([height, width], true, None, None);
        let coarse = |side: i64| (side - 1) / SPLINE_STEP + 2;
        let places =
            resized(&fine, coarse(height), coarse(width))?.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let offsets = spline.map(&places)?.f_sub(&places)?.f_permute([0, 3, 1, 2])?;
        let bent = resized(&offsets, height, width)?.f_add_(&fine)?;
        Ok(Self(bent.f_permute([0, 2, 3, 1])?.f_contiguous()?))
    }

    /// Samples `source` (1, C, h, w), float, as (1, C, H, W).
    pub fn sample(&self, source: &Tensor, border: Border) -> Result<Tensor> {
        let padding = match border {
            Border::Black => 0,
            Border::Reflect => 2,
        };
        Ok(source.f_grid_sampler(&self.0, 0, padding, false)?)
    }

    /// Returns a mask (1, 1, H, W), 1 where the output shows the source, else 0.
    pub fn inside(&self) -> Result<Tensor> {
        let farthest = self.0.f_abs()?.f_amax([3i64], false)?;
        Ok(farthest.f_le(1.0)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?)
    }
}

/// Gaussian blur of (N, C, H, W) with replicated borders; `sigma` in pixels.
pub fn blur(x: &Tensor, sigma: f64) -> Result<Tensor> {
    let radius = (3.0 * sigma).ceil().max(1.0) as i64;
    let kernel: Vec<f32> =
        (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp() as f32).collect();
    let sum: f32 = kernel.iter().sum();
    let kernel = Tensor::f_from_slice(&kernel)?.f_div_scalar(f64::from(sum))?;
    let (n, c, h, w) = x.size4()?;
    let planes = x.f_reshape([n * c, 1, h, w])?.f_replication_pad2d([radius; 4])?;
    let side = 2 * radius + 1;
    let none = None::<&Tensor>;
    let blurred = planes
        .f_conv2d(&kernel.f_reshape([1, 1, 1, side])?, none, [1, 1], [0, 0], [1, 1], 1)?
        .f_conv2d(&kernel.f_reshape([1, 1, side, 1])?, none, [1, 1], [0, 0], [1, 1], 1)?;
    Ok(blurred.f_reshape([n, c, h, w])?)
}

/// Maximum over the square of `radius` pixels around each pixel.
pub fn dilate(x: &Tensor, radius: i64) -> Result<Tensor> {
    let side = 2 * radius + 1;
    Ok(x.f_max_pool2d([1, side], [1, 1], [0, radius], [1, 1], false)?.f_max_pool2d(
        [side, 1],
        [1, 1],
        [radius, 0],
        [1, 1],
        false,
    )?)
}

/// Averages (N, C, H, W) along the motion (x, y) during the exposure, in pixels, half of it before and half after
/// the frame. Borders are replicated.
pub fn motion_blur(x: &Tensor, motion: (f64, f64)) -> Result<Tensor> {
    let length = motion.0.hypot(motion.1);
    if length < 0.5 {
        return Ok(x.shallow_clone());
    }
    let scale = (MAX_LENGTH / length).min(1.0);
    let kernel = line((motion.0 * scale, motion.1 * scale));
    let reach = |of: fn(&(i64, i64)) -> i64| kernel.keys().map(|offset| of(offset).abs()).max().unwrap_or(0);
    let (right, down) = (reach(|offset| offset.0), reach(|offset| offset.1));
    let padded = x.f_replication_pad2d([right, right, down, down])?;
    let (height, width) = (x.size()[2], x.size()[3]);
    let mut sum = x.f_zeros_like()?;
    for ((dx, dy), weight) in kernel {
        let moved = padded.f_narrow(2, down - dy, height)?.f_narrow(3, right - dx, width)?;
        sum = sum.f_addcmul_(&moved, &Tensor::f_from_slice(&[weight as f32])?)?;
    }
    Ok(sum)
}

/// Returns the weight of each pixel offset: steps of one pixel along the longer axis of the motion, each
/// distributed over two pixels of the other axis.
fn line(motion: (f64, f64)) -> BTreeMap<(i64, i64), f64> {
    let steep = motion.1.abs() > motion.0.abs();
    let (long, short) = if steep { (motion.1, motion.0) } else { (motion.0, motion.1) };
    let half = (0.5 * long.abs()).max(0.5);
    let last = half.ceil() as i64;
    let mut kernel = BTreeMap::new();
    for step in -last..=last {
        // Part of the motion within half a pixel of this step.
        let time = (step as f64 + 0.5).min(half) - (step as f64 - 0.5).max(-half);
        if time <= 0.0 {
            continue;
        }
        let across = step as f64 * short / long.abs();
        let below = across.floor();
        for (pixel, share) in [(below, 1.0 - (across - below)), (below + 1.0, across - below)] {
            let along = if long < 0.0 { -step } else { step };
            let offset = if steep { (pixel as i64, along) } else { (along, pixel as i64) };
            if share > 1e-9 {
                *kernel.entry(offset).or_default() += share * time / (2.0 * half);
            }
        }
    }
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: i64, width: i64) -> Tensor {
        Tensor::arange(height * width, (Kind::Float, tch::Device::Cpu)).reshape([1, 1, height, width])
    }

    fn spot(side: i64, row: i64, column: i64) -> Tensor {
        let x = Tensor::zeros([1, 1, side, side], (Kind::Float, tch::Device::Cpu));
        let _ = x.narrow(2, row, 1).narrow(3, column, 1).fill_(1.0);
        x
    }

    fn sample(x: &Tensor, placement: &Placement, wave: Option<&Wave>) -> Tensor {
        let size = (x.size()[2], x.size()[3]);
        Grid::new(size, size, placement, wave).unwrap().sample(x, Border::Black).unwrap()
    }

    #[test]
    fn placements_and_waves_move_pixels() {
        let plain = Placement::scaled(1.0);
        let quarter = std::f64::consts::FRAC_PI_2;
        // Frequency 0 makes the displacement constant: the sine is 1, the cosine 0.
        let wave = Wave { amplitude: 2.0, frequency: 0.0, phase: (quarter, quarter) };
        for (placement, wave, side, from, to) in [
            (Placement { shift: (0.25, 0.125), ..plain }, None, 8, (2, 3), (3, 5)),
            (Placement { rotation: quarter, ..plain }, None, 9, (4, 7), (7, 4)),
            (plain, Some(&wave), 9, (4, 4), (4, 2)),
        ] {
            let y = sample(&spot(side, from.0, from.1), &placement, wave);
            assert!((y.double_value(&[0, 0, to.0, to.1]) - 1.0).abs() < 1e-4, "{placement:?} {wave:?}");
        }
        let x = ramp(6, 8);
        for (flip, expected) in [(false, x.shallow_clone()), (true, x.flip([3]))] {
            let y = sample(&x, &Placement { flip, ..plain }, None);
            assert!((expected - y).abs().max().double_value(&[]) < 1e-4, "flip: {flip}");
        }
    }

    #[test]
    fn a_source_of_any_resolution_fills_its_extent() {
        let grid = Grid::new((4, 6), (4, 6), &Placement::scaled(1.0), None).unwrap();
        let y =
            grid.sample(&Tensor::ones([1, 1, 3, 9], (Kind::Float, tch::Device::Cpu)), Border::Black).unwrap();
        assert_eq!(y.size(), [1, 1, 4, 6]);
        assert_eq!(grid.inside().unwrap().sum(Kind::Float).double_value(&[]), 24.0);
    }

    #[test]
    fn pixels_beyond_the_border_are_not_inside() {
        let half = Placement { shift: (0.5, 0.0), ..Placement::scaled(1.0) };
        let inside = Grid::new((8, 8), (8, 8), &half, None).unwrap().inside().unwrap();
        assert_eq!(inside.narrow(3, 0, 4).sum(Kind::Float).double_value(&[]), 0.0);
        assert_eq!(inside.narrow(3, 4, 4).sum(Kind::Float).double_value(&[]), 32.0);
    }

    #[test]
    fn bending_moves_a_control_point_to_its_target() {
        let x = spot(81, 40, 40);
        let corners = [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]];
        let with = |point: [f64; 2]| [&corners[..], &[point]].concat();
        // The centre moves six pixels to the right and four down; the corners stay.
        let (displaced, place) = (with([12.0 / 81.0, 8.0 / 81.0]), with([0.0, 0.0]));
        let spline = Spline::through(&displaced, &place).unwrap();
        let grid = Grid::new((81, 81), (81, 81), &Placement::scaled(1.0), None).unwrap();
        let y = grid.bent(&spline).unwrap().sample(&x, Border::Black).unwrap();
        assert!(y.double_value(&[0, 0, 44, 46]) > 0.85);
        // Interpolation is accurate to a tenth of a pixel.
        let exact = spline.map(&grid.0).unwrap();
        let error = (grid.bent(&spline).unwrap().0 - exact).abs().max().double_value(&[]);
        assert!(error * 40.5 < 0.1, "{error}");
    }

    #[test]
    fn blur_keeps_the_sum_and_dilation_fills_a_square() {
        let x = spot(15, 7, 7);
        let blurred = blur(&x, 1.2).unwrap();
        assert!((blurred.sum(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-4);
        assert!(blurred.double_value(&[0, 0, 7, 7]) < 0.2);
        assert_eq!(dilate(&x, 2).unwrap().sum(Kind::Float).double_value(&[]), 25.0);
    }

    fn sum(x: &Tensor) -> f64 {
        x.sum(Kind::Double).double_value(&[])
    }

    #[test]
    fn brightness_is_conserved() {
        let _guard = tch::no_grad_guard();
        let flat = Tensor::full([1, 3, 20, 30], 0.7, (Kind::Float, tch::Device::Cpu));
        let spot = Tensor::zeros([1, 1, 41, 41], (Kind::Float, tch::Device::Cpu));
        let _ = spot.narrow(2, 18, 3).narrow(3, 19, 2).fill_(1.0);
        for motion in [(7.3, -2.6), (-4.0, 0.0), (0.0, 11.5), (300.0, 200.0)] {
            let blurred = motion_blur(&flat, motion).unwrap();
            assert!((&blurred - &flat).abs().max().double_value(&[]) < 1e-5, "{motion:?}");
            assert!((sum(&motion_blur(&spot, motion).unwrap()) - sum(&spot)).abs() < 1e-4, "{motion:?}");
        }
    }

    #[test]
    fn blur_follows_the_motion_and_stays_centred() {
        let _guard = tch::no_grad_guard();
        let spot = Tensor::zeros([1, 1, 21, 21], (Kind::Float, tch::Device::Cpu));
        let _ = spot.narrow(2, 10, 1).narrow(3, 10, 1).fill_(1.0);
        let blurred = motion_blur(&spot, (6.0, 0.0)).unwrap();
        assert!((sum(&blurred.narrow(2, 10, 1)) - 1.0).abs() < 1e-5, "within its row");
        let row: Vec<f64> = (6..15).map(|x| 6.0 * blurred.double_value(&[0, 0, 10, x])).collect();
        let even = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0];
        assert!(row.iter().zip(even).all(|(x, y)| (x - y).abs() < 1e-5), "evenly: {row:?}");
        let mirrored = blurred.flip([3]);
        assert!((&mirrored - &blurred).abs().max().double_value(&[]) < 1e-6, "symmetric");
    }

    #[test]
    fn motion_below_half_a_pixel_is_not_blurred() {
        let x = Tensor::rand([1, 1, 8, 8], (Kind::Float, tch::Device::Cpu));
        assert!(motion_blur(&x, (0.2, 0.1)).unwrap().equal(&x));
    }
}
