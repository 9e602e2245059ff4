// SPDX-License-Identifier: MPL-2.0

//! Plot of the curve: one chart per group of scalars.

use image::RgbImage;
use plotters::prelude::{ChartBuilder, Circle, IntoFont, LineSeries, PathElement, Text, WHITE};
use plotters::style::{Color, TextStyle};

use super::curve::Row;
use crate::Result;
use crate::report::canvas::{Area, DrawResult, FONT, GRID, INK, colour, paint};

/// Scalars without a chart.
const HIDDEN: [&str; 1] = ["seconds"];
/// Charts per row.
const COLUMNS: usize = 2;
/// Width and height of a chart, pixels.
const SIZE: (u32, u32) = (640, 360);
/// Position of the vertical axis in a chart, pixels.
const AXIS_X: i32 = 68;
/// Size of labels, pixels.
const TEXT_SIZE: u32 = 15;
/// Number of values from which a series is drawn without markers.
const MAX_MARKERS: usize = 60;

pub struct Chart {
    /// Its title, the name of a group of scalars.
    pub group: String,
    /// Names with their points (step, value).
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws the charts. Returns `None` if there is no value to draw.
pub fn draw(columns: &[String], rows: &[Row]) -> Result<Option<RgbImage>> {
    let charts = charts(columns, rows);
    if charts.is_empty() {
        return Ok(None);
    }
    let columns = charts.len().min(COLUMNS);
    let rows = charts.len().div_ceil(columns);
    let (width, height) = (SIZE.0 * columns as u32, SIZE.1 * rows as u32);
    let picture = paint(width, height, |area| {
        area.split_evenly((rows, columns))
            .iter()
            .zip(&charts)
            .try_for_each(|(part, chart)| draw_chart(part, chart))
    })?;
    Ok(Some(picture))
}

/// Groups the columns by the part of the name before a `/`, in the order of their first columns. A name without a
/// `/` is also the name of its group.
fn charts(columns: &[String], rows: &[Row]) -> Vec<Chart> {
    let mut charts = Vec::<Chart>::new();
    for (column, name) in columns.iter().enumerate() {
        if HIDDEN.contains(&name.as_str()) {
            continue;
        }
        let (group, label) = name.split_once('/').unwrap_or((name, name));
        let value = |row: &Row| Some((row.step as f64, row.values.get(column).copied().flatten()?));
        let values: Vec<_> = rows.iter().filter_map(value).filter(|(_, y)| y.is_finite()).collect();
        if values.is_empty() {
            continue;
        }
        let series = (label.to_owned(), values);
        match charts.iter_mut().find(|chart| chart.group == group) {
            Some(chart) => chart.series.push(series),
            None => charts.push(Chart { group: group.to_owned(), series: vec![series] }),
        }
    }
    charts
}

/// Draws a chart in an area as wide as the charts of the curve.
pub fn draw_chart(area: &Area, chart: &Chart) -> DrawResult {
    let points = || chart.series.iter().flat_map(|(_, values)| values);
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let (low, high) = span(points().map(|point| point.1));
    let (_, body) = area.split_vertically(draw_header(area, chart)?);
    let mut builder = ChartBuilder::on(&body);
    builder
        .margin(12)
        .margin_top(6)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(AXIS_X as u32 - 12);
    let mut context = builder.build_cartesian_2d(0.0..last, low..high)?;
    context
        .configure_mesh()
        .x_desc("step")
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| label(*value, high - low))
        .label_style((FONT, TEXT_SIZE).into_font().color(&INK))
        .axis_desc_style((FONT, TEXT_SIZE).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (index, (_, values)) in chart.series.iter().enumerate() {
        let style = colour(index).stroke_width(2);
        context.draw_series(LineSeries::new(values.iter().copied(), style))?;
        if values.len() < MAX_MARKERS {
            context.draw_series(values.iter().map(|&point| Circle::new(point, 3, colour(index).filled())))?;
        }
    }
    Ok(())
}

/// Draws the name of the group and the legend above the chart. Returns their height in pixels.
fn draw_header(area: &Area, chart: &Chart) -> std::result::Result<u32, Box<dyn std::error::Error>> {
    let title: TextStyle = (FONT, 22).into_font().color(&INK);
    let text: TextStyle = (FONT, TEXT_SIZE + 1).into_font().color(&INK);
    let name = chart.group.replace('_', " ");
    area.draw(&Text::new(name.clone(), (AXIS_X, 10), title.clone()))?;
    let (line, dash) = (TEXT_SIZE as i32 + 7, 18);
    let mut top = 14;
    if chart.series.len() > 1 || chart.series[0].0 != chart.group {
        let first = AXIS_X + area.estimate_text_size(&name, &title)?.0 as i32 + 24;
        let mut left = first;
        for (index, (name, _)) in chart.series.iter().enumerate() {
            let name = name.replace('_', " ");
            let width = dash + 6 + area.estimate_text_size(&name, &text)?.0 as i32;
            if left > first && left + width > SIZE.0 as i32 - 16 {
                (left, top) = (first, top + line);
            }
            let middle = top + line / 2 - 3;
            let style = colour(index).stroke_width(3);
            area.draw(&PathElement::new([(left, middle), (left + dash, middle)], style))?;
            area.draw(&Text::new(name, (left + dash + 6, top), text.clone()))?;
            left += width + 18;
        }
    }
    Ok((top + line) as u32)
}

/// Range of the vertical axis: the range of the values with a margin, never empty.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (value.min(low), value.max(high)));
    let margin = if high > low { (high - low) * 0.06 } else { high.abs().max(1e-6) * 0.5 };
    (low - margin, high + margin)
}

/// Formats a label of an axis of length `span` with enough digits to distinguish neighbouring labels.
fn label(value: f64, span: f64) -> String {
    let digits = (1.0 - (span / 6.0).log10().floor()).clamp(0.0, 9.0) as usize;
    if span < 1e-4 || value.abs() >= 1e6 { format!("{value:.1e}") } else { format!("{value:.digits$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&[Option<f64>]]) -> Vec<Row> {
        (1..).zip(values).map(|(step, values)| Row { step: 25 * step, values: values.to_vec() }).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn groups_share_a_chart_and_empty_columns_have_none() {
        let columns = names(&["loss", "loss/spatial", "score/J", "seconds", "late"]);
        let rows = rows(&[
            &[Some(1.0), Some(f64::NAN), None, Some(3.0), None],
            &[Some(2.0), Some(0.5), Some(0.7), Some(6.0), None],
        ]);
        let charts = charts(&columns, &rows);
        let groups: Vec<_> = charts.iter().map(|chart| (chart.group.as_str(), chart.series.len())).collect();
        assert_eq!(groups, [("loss", 2), ("score", 1)]);
        assert_eq!(charts[0].series[1].1, [(50.0, 0.5)], "NaN is left out");
        let picture = draw(&columns, &rows).unwrap().unwrap();
        assert_eq!(picture.dimensions(), (2 * SIZE.0, SIZE.1));
        assert!(draw(&columns, &[]).unwrap().is_none());
    }

    #[test]
    fn single_and_constant_values_are_drawn() {
        let columns = names(&["a", "b", "c"]);
        let all = rows(&[&[Some(0.0), Some(1e-9), Some(-3e8)], &[None, Some(1e-9), Some(4e9)]]);
        assert_eq!(draw(&columns, &all).unwrap().unwrap().dimensions(), (2 * SIZE.0, 2 * SIZE.1));
    }

    #[test]
    fn larger_values_are_drawn_higher() {
        let values: Vec<[Option<f64>; 1]> = (0..100).map(|i| [Some(1.0 - f64::from(i) / 100.0)]).collect();
        let values: Vec<&[Option<f64>]> = values.iter().map(|row| &row[..]).collect();
        let picture = draw(&names(&["loss"]), &rows(&values)).unwrap().unwrap();
        let line = colour(0);
        let height = |from: u32, to: u32| {
            let pixels = (from..to).flat_map(|x| (0..picture.height()).map(move |y| (x, y)));
            let blue = pixels.filter(|&(x, y)| picture.get_pixel(x, y).0 == [line.0, line.1, line.2]);
            let rows: Vec<u32> = blue.map(|(_, y)| y).collect();
            rows.iter().sum::<u32>() as f64 / rows.len() as f64
        };
        assert!(height(80, 240) + 50.0 < height(440, 600));
    }

    #[test]
    fn neighbouring_labels_differ() {
        assert_eq!((label(0.25, 0.6), label(125.0, 600.0)), ("0.25".into(), "125".into()));
        assert_eq!(label(0.00012, 1e-5), "1.2e-4");
    }
}
