//! Affine placement of pictures, with an optional wobble, by sampling.

use tch::{Kind, Tensor};

use super::Size;
use crate::Result;

/// Where the middle of a source lands in the output, and how it is turned and scaled on the way.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Radians.
    pub rotation: f64,
    /// Output pixels per source pixel.
    pub scale: f64,
    /// Of the source's middle from the output's, in parts of the output's width and height.
    pub shift: (f64, f64),
    /// Output pixels to the right per source pixel down.
    pub shear: f64,
    /// Mirrored left to right before all else.
    pub flip: bool,
}

impl Placement {
    #[cfg(test)]
    pub fn scaled(scale: f64) -> Self {
        Self { rotation: 0.0, scale, shift: (0.0, 0.0), shear: 0.0, flip: false }
    }
}

/// A travelling wave that bends what it is applied to.
#[derive(Clone, Copy, Debug)]
pub struct Wobble {
    /// Output pixels.
    pub amplitude: f64,
    /// Radians per output pixel.
    pub frequency: f64,
    /// Radians, of the horizontal and of the vertical displacement.
    pub phase: (f64, f64),
}

/// What lies beyond the border of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    Reflect,
    Zero,
}

/// Samples `source` (1, C, h, w) float into (1, C, H, W).
pub fn sample(
    source: &Tensor,
    output: Size,
    placement: &Placement,
    wobble: Option<&Wobble>,
    border: Border,
) -> Result<Tensor> {
    let size = source.size();
    let grid = grid((size[2], size[3]), output, placement, wobble)?;
    let padding = match border {
        Border::Zero => 0,
        Border::Reflect => 2,
    };
    Ok(source.f_grid_sampler(&grid, 0, padding, false)?)
}

/// For every output pixel the place in the source, (1, H, W, 2) in [-1, 1].
fn grid(source: Size, output: Size, placement: &Placement, wobble: Option<&Wobble>) -> Result<Tensor> {
    let Placement { rotation, scale, shift, shear, flip } = *placement;
    let (height, width) = (output.0 as f64, output.1 as f64);
    // Forward: out = A (source - middle) + place. The grid wants the inverse of A.
    let (c, s) = (rotation.cos() * scale, rotation.sin() * scale);
    let (a, b, d, e) = (c, shear - s, s, c);
    let determinant = a * e - b * d;
    let (ia, ib, id, ie) = (e / determinant, -b / determinant, -d / determinant, a / determinant);
    let place = ((0.5 + shift.0) * width, (0.5 + shift.1) * height);
    let half = (0.5 * source.1 as f64, 0.5 * source.0 as f64);
    let mirror = if flip { -1.0 } else { 1.0 };

    let mut values = Vec::with_capacity((2 * output.0 * output.1) as usize);
    for row in 0..output.0 {
        for column in 0..output.1 {
            let (mut x, mut y) = (column as f64 + 0.5, row as f64 + 0.5);
            if let Some(wave) = wobble {
                let (dx, dy) = (
                    wave.amplitude * (wave.frequency * y + wave.phase.0).sin(),
                    wave.amplitude * (wave.frequency * x + wave.phase.1).cos(),
                );
                (x, y) = (x + dx, y + dy);
            }
            let (x, y) = (x - place.0, y - place.1);
            values.push((mirror * (ia * x + ib * y) / half.0) as f32);
            values.push(((id * x + ie * y) / half.1) as f32);
        }
    }
    let grid = Tensor::f_from_slice(&values)?;
    Ok(grid.f_reshape([1, output.0, output.1, 2])?.f_to_kind(Kind::Float)?)
}

/// Gaussian blur of (N, C, H, W), borders replicated.
pub fn blur(x: &Tensor, sigma: f64) -> Result<Tensor> {
    let radius = (3.0 * sigma).ceil().max(1.0) as i64;
    let taps: Vec<f32> =
        (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp() as f32).collect();
    let sum: f32 = taps.iter().sum();
    let taps = Tensor::f_from_slice(&taps)?.f_div_scalar(f64::from(sum))?;
    let (n, c, h, w) = x.size4()?;
    let planes = x.f_reshape([n * c, 1, h, w])?.f_replication_pad2d([radius; 4])?;
    let side = 2 * radius + 1;
    let none = None::<&Tensor>;
    let blurred = planes
        .f_conv2d(&taps.f_reshape([1, 1, 1, side])?, none, [1, 1], [0, 0], [1, 1], 1)?
        .f_conv2d(&taps.f_reshape([1, 1, side, 1])?, none, [1, 1], [0, 0], [1, 1], 1)?;
    Ok(blurred.f_reshape([n, c, h, w])?)
}

/// The greatest value within `radius` pixels in rows and columns.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: i64, width: i64) -> Tensor {
        Tensor::arange(height * width, (Kind::Float, tch::Device::Cpu)).reshape([1, 1, height, width])
    }

    #[test]
    fn unit_placement_is_the_identity() {
        let x = ramp(6, 8);
        let y = sample(&x, (6, 8), &Placement::scaled(1.0), None, Border::Zero).unwrap();
        assert!((&x - &y).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn a_flip_mirrors_columns() {
        let x = ramp(6, 8);
        let placement = Placement { flip: true, ..Placement::scaled(1.0) };
        let y = sample(&x, (6, 8), &placement, None, Border::Zero).unwrap();
        assert!((x.flip([3]) - &y).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn a_shift_moves_to_the_right_and_down() {
        let x = Tensor::zeros([1, 1, 8, 8], (Kind::Float, tch::Device::Cpu));
        let _ = x.narrow(2, 2, 1).narrow(3, 3, 1).fill_(1.0);
        let placement = Placement { shift: (0.25, 0.125), ..Placement::scaled(1.0) };
        let y = sample(&x, (8, 8), &placement, None, Border::Zero).unwrap();
        assert!((y.double_value(&[0, 0, 3, 5]) - 1.0).abs() < 1e-4);
    }

    #[test]
    fn rotation_turns_right_into_down() {
        let x = Tensor::zeros([1, 1, 9, 9], (Kind::Float, tch::Device::Cpu));
        let _ = x.narrow(2, 4, 1).narrow(3, 7, 1).fill_(1.0);
        let placement = Placement { rotation: std::f64::consts::FRAC_PI_2, ..Placement::scaled(1.0) };
        let y = sample(&x, (9, 9), &placement, None, Border::Zero).unwrap();
        assert!((y.double_value(&[0, 0, 7, 4]) - 1.0).abs() < 1e-4);
    }

    #[test]
    fn blur_keeps_the_sum_and_dilation_grows() {
        let x = Tensor::zeros([1, 1, 15, 15], (Kind::Float, tch::Device::Cpu));
        let _ = x.narrow(2, 7, 1).narrow(3, 7, 1).fill_(1.0);
        let blurred = blur(&x, 1.2).unwrap();
        assert!((blurred.sum(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-4);
        assert!(blurred.double_value(&[0, 0, 7, 7]) < 0.2);
        assert_eq!(dilate(&x, 2).unwrap().sum(Kind::Float).double_value(&[]), 25.0);
    }
}
