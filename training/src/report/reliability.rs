//! Region similarity over confidence: on the diagonal a tracker knows how good its masks are.

use image::RgbImage;
use plotters::prelude::{ChartBuilder, Circle, IntoFont, LineSeries, PathElement, Rectangle};
use plotters::style::{Color, TextStyle, WHITE};

use super::canvas::{Area, Drawn, FONT, GRID, INK, colour, paint};
use crate::Result;
use crate::calibration::Calibration;

const SIZE: (u32, u32) = (640, 640);
/// Rows of it for the histogram.
const HISTOGRAM: u32 = 150;

/// A mark for the mean of each bin, and beneath how many masks it holds.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn draw(calibration: &Calibration) -> Result<RgbImage> {
    paint(SIZE.0, SIZE.1, |area| {
        let (upper, lower) = area.split_vertically(SIZE.1 - HISTOGRAM);
        diagram(&upper, calibration)?;
        histogram(&lower, calibration)
    })
}

/// From where on there is anything to be shown, in tenths.
fn start(calibration: &Calibration) -> f64 {
    let least = |a: f64, bin: &crate::calibration::Bin| a.min(bin.confidence).min(bin.similarity);
    let least = calibration.bins.iter().fold(0.9, least);
    ((least * 10.0).floor() / 10.0).max(0.0)
}

fn text() -> TextStyle<'static> {
    (FONT, 15).into_font().color(&INK)
}

fn diagram(area: &Area, calibration: &Calibration) -> Drawn {
    let least = start(calibration);
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).margin_right(24).x_label_area_size(24).y_label_area_size(60);
    builder.caption(
        format!("{} masks, expected calibration error {:.3}", calibration.masks, calibration.error),
        (FONT, 20).into_font().color(&INK),
    );
    let mut context = builder.build_cartesian_2d(least..1.0, least..1.0)?;
    context
        .configure_mesh()
        .y_desc("region similarity J")
        .label_style(text())
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .x_label_formatter(&|value| format!("{value:.2}"))
        .y_label_formatter(&|value| format!("{value:.2}"))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    context.draw_series([PathElement::new([(least, least), (1.0, 1.0)], INK.mix(0.4))])?;
    let points: Vec<(f64, f64)> =
        calibration.bins.iter().map(|bin| (bin.confidence, bin.similarity)).collect();
    context.draw_series(LineSeries::new(points.iter().copied(), colour(0).stroke_width(2)))?;
    context.draw_series(points.iter().map(|&point| Circle::new(point, 5, colour(0).filled())))?;
    Ok(())
}

fn histogram(area: &Area, calibration: &Calibration) -> Drawn {
    let most = calibration.bins.iter().map(|bin| bin.count).max().unwrap_or(0).max(1);
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).margin_top(0).margin_right(24).x_label_area_size(44).y_label_area_size(60);
    let mut context = builder.build_cartesian_2d(start(calibration)..1.0, 0.0..most as f64 * 1.08)?;
    context
        .configure_mesh()
        .x_desc("confidence")
        .y_desc("masks")
        .y_labels(3)
        .label_style(text())
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .x_label_formatter(&|value| format!("{value:.2}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    context.draw_series(calibration.bins.iter().map(|bin| {
        let corners = [(bin.from, 0.0), ((bin.from + calibration.width).min(1.0), bin.count as f64)];
        Rectangle::new(corners, colour(0).mix(0.6).filled())
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Bin;

    #[test]
    fn marks_are_where_the_bins_are() {
        let bin = |from, confidence, similarity, count| Bin { from, count, confidence, similarity };
        let calibration = Calibration {
            bins: vec![bin(0.6, 0.62, 0.3, 5), bin(0.95, 0.97, 0.96, 40)],
            width: 0.05,
            masks: 45,
            error: 0.1,
            rank_correlation: [None, None],
            silent: [0, 0],
        };
        assert_eq!(start(&calibration), 0.3);
        let picture = draw(&calibration).unwrap();
        let mark = colour(0);
        let upper = picture.enumerate_pixels().filter(|(_, y, _)| *y < SIZE.1 - HISTOGRAM);
        let blue: Vec<_> = upper.filter(|(_, _, p)| p.0 == [mark.0, mark.1, mark.2]).collect();
        let right = blue.iter().map(|(x, _, _)| *x).max().unwrap();
        let high = blue.iter().map(|(_, y, _)| *y).min().unwrap();
        let at = blue.iter().find(|(x, _, _)| *x == right).unwrap();
        assert!(right > 500 && at.1 < high + 12, "the better bin is up to the right");
        let empty = Calibration { bins: Vec::new(), masks: 0, error: 0.0, ..calibration };
        assert!(draw(&empty).is_ok());
    }
}
