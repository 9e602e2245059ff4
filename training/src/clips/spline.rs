// SPDX-License-Identifier: MPL-2.0

//! Thin-plate splines: the smoothest maps of the plane that interpolate given pairs of points (Bookstein,
//! *Principal Warps*, 1989).

use tch::{Device, Kind, Tensor};

use crate::Result;

/// Point, x and y.
pub type Point = [f64; 2];

#[derive(Debug)]
pub struct Spline {
    /// (N, 2), control points.
    points: Tensor,
    /// (N + 3, 2): weights of the control points, then of 1, x and y.
    weights: Tensor,
}

impl Spline {
    /// Returns the map from `from[i]` to `to[i]`.
    ///
    /// # Errors
    /// If there is no such map, for example if all points of `from` are collinear.
    pub fn through(from: &[Point], to: &[Point]) -> Result<Self> {
        let n = from.len() as i64;
        let tensor = |points: &[Point]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(points.as_flattened())?.f_reshape([n, 2])?)
        };
        let (points, to) = (tensor(from)?, tensor(to)?);
        let bends = kernel(&points, &points)?;
        // 1, x and y of each point, (N, 3).
        let plane = Tensor::f_cat(&[&points.f_narrow(1, 0, 1)?.f_ones_like()?, &points], 1)?;
        let zeros = |rows: i64, columns: i64| Tensor::f_zeros([rows, columns], (Kind::Double, Device::Cpu));
        let above = Tensor::f_cat(&[&bends, &plane], 1)?;
        let below = Tensor::f_cat(&[plane.f_tr()?, zeros(3, 3)?], 1)?;
        let system = Tensor::f_cat(&[above, below], 0)?;
        let weights = Tensor::f_linalg_solve(&system, &Tensor::f_cat(&[to, zeros(3, 2)?], 0)?, true)?;
        Ok(Self { points, weights })
    }

    /// Maps the points `places` (…, 2); the result has their kind.
    pub fn map(&self, places: &Tensor) -> Result<Tensor> {
        let kind = places.kind();
        let flat = places.f_reshape([-1, 2])?;
        let (points, weights) = (self.points.f_to_kind(kind)?, self.weights.f_to_kind(kind)?);
        let n = points.size()[0];
        let bent = kernel(&flat, &points)?.f_matmul(&weights.f_narrow(0, 0, n)?)?;
        let straight = flat.f_matmul(&weights.f_narrow(0, n + 1, 2)?)?.f_add(&weights.f_get(n)?)?;
        Ok(bent.f_add(&straight)?.f_reshape(places.size())?)
    }
}

/// Returns r² log r² of all distances r between (M, 2) and (N, 2), as (M, N).
fn kernel(places: &Tensor, points: &Tensor) -> Result<Tensor> {
    let axis = |axis: i64| -> Result<Tensor> {
        let place = places.f_narrow(1, axis, 1)?;
        Ok(place.f_sub(&points.f_select(1, axis)?)?.f_square_()?)
    };
    let squared = axis(0)?.f_add_(&axis(1)?)?.f_clamp_min_(1e-30)?;
    Ok(squared.f_log()?.f_mul_(&squared)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORNERS: [Point; 5] = [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.1, 0.2]];

    fn tensor(points: &[Point]) -> Tensor {
        Tensor::from_slice(points.as_flattened()).reshape([-1, 2])
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn control_points_are_mapped_exactly() {
        let to = [[-0.8, -1.1], [1.2, -0.9], [-1.0, 0.7], [0.9, 1.3], [0.3, -0.1]];
        let spline = Spline::through(&CORNERS, &to).unwrap();
        assert!(distance(&spline.map(&tensor(&CORNERS)).unwrap(), &tensor(&to)) < 1e-12);
        let single = spline.map(&tensor(&CORNERS).to_kind(Kind::Float)).unwrap();
        assert!(distance(&single.to_kind(Kind::Double), &tensor(&to)) < 1e-5);
    }

    #[test]
    fn equal_points_give_the_identity() {
        let spline = Spline::through(&CORNERS, &CORNERS).unwrap();
        let places = tensor(&[[0.5, -0.3], [-3.0, 2.0], [0.0, 0.0]]);
        assert!(distance(&spline.map(&places).unwrap(), &places) < 1e-12);
    }

    #[test]
    fn an_affine_map_is_reproduced_everywhere() {
        let affine = |[x, y]: Point| [0.9 * x - 0.2 * y + 0.3, 0.1 * x + 1.1 * y - 0.4];
        let spline = Spline::through(&CORNERS, &CORNERS.map(affine)).unwrap();
        let places = [[0.5, -0.3], [-3.0, 2.0], [0.0, 0.0]];
        let mapped = spline.map(&tensor(&places)).unwrap();
        assert!(distance(&mapped, &tensor(&places.map(affine))) < 1e-11);
    }

    #[test]
    fn points_on_a_line_are_an_error() {
        let line = [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]];
        assert!(Spline::through(&line, &line).is_err());
    }
}
