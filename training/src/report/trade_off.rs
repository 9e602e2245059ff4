//! Accuracy against speed, as the paper's figure 3 shows methods.

use std::path::Path;

use image::RgbImage;
use plotters::prelude::{ChartBuilder, Circle, IntoFont, IntoLogRange, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, TextStyle, WHITE};
use serde::Deserialize;

use super::canvas::{Area, Drawn, FONT, GRID, INK, colour, paint};
use crate::{Error, Result};

const SIZE: (u32, u32) = (1000, 640);
/// Of names and axes, in pixels.
const TEXT: u32 = 17;
/// Radius of a mark.
const MARK: i32 = 6;

/// A method, or one setting of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// What is written at its mark.
    pub name: String,
    /// Milliseconds a frame.
    pub milliseconds: f64,
    /// J&F in per cent.
    pub score: f64,
    /// Methods of one group have one colour; empty for none.
    pub group: String,
}

#[derive(Deserialize)]
struct Record {
    name: String,
    ms: Option<f64>,
    fps: Option<f64>,
    #[serde(rename = "j&f")]
    score: f64,
    group: Option<String>,
}

/// Reads methods from CSV with the columns `name`, `ms` (a frame) or `fps`, `J&F` (per cent) and, if wanted,
/// `group`, in any order.
///
/// # Errors
/// A file that cannot be read, a column that is missing, a value that is no measurement; with the line.
pub fn read(path: &Path) -> Result<Vec<Method>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
    let refuse = |reason: String| Error::Chart(format!("{}: {reason}", path.display()));
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| refuse(error.to_string()))?.clone();
    let header: csv::StringRecord = header.iter().map(str::to_lowercase).collect();
    let has = |name: &str| header.iter().any(|known| known == name);
    if !has("name") || !has("j&f") || !(has("ms") || has("fps")) {
        return Err(refuse("its first line must name the columns name, ms or fps, and J&F".into()));
    }
    let mut methods = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| refuse(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let at = |reason: &str| refuse(format!("line {line}: {reason}"));
        let row: Record = record.deserialize(Some(&header)).map_err(|error| at(&error.to_string()))?;
        let milliseconds = match (row.ms, row.fps) {
            (Some(ms), None) => ms,
            (None, Some(fps)) => 1000.0 / fps,
            (Some(_), Some(_)) => return Err(at("give ms or fps, not both")),
            (None, None) => return Err(at("there is neither ms nor fps")),
        };
        if !(milliseconds.is_finite() && milliseconds > 0.0) {
            return Err(at("the time of a frame must be positive"));
        }
        if !(0.0..=100.0).contains(&row.score) {
            return Err(at("J&F is in per cent, 0 to 100"));
        }
        let (name, group) = (row.name, row.group.unwrap_or_default());
        methods.push(Method { name, milliseconds, score: row.score, group });
    }
    if methods.is_empty() {
        return Err(refuse("there is no method in it".into()));
    }
    Ok(methods)
}

/// A mark for each method over time (logarithmic) and J&F, with its name where it hides no other.
///
/// # Errors
/// No method at all.
pub fn draw(methods: &[Method], title: &str) -> Result<RgbImage> {
    if methods.is_empty() {
        return Err(Error::Chart("there is no method to draw".into()));
    }
    paint(SIZE.0, SIZE.1, |area| chart(area, methods, title))
}

fn chart(area: &Area, methods: &[Method], title: &str) -> Drawn {
    let fold = |of: fn(&Method) -> f64| {
        let values = methods.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (v.min(low), v.max(high)))
    };
    let (fast, slow) = fold(|method| method.milliseconds);
    let (worst, best) = fold(|method| method.score);
    let times = (fast / 1.6)..(slow * 2.2);
    let room = ((best - worst) * 0.12).max(2.0);
    let scores = (worst - room).max(0.0)..(best + room).min(100.0);
    let mut builder = ChartBuilder::on(area);
    builder.margin(16).margin_right(28).x_label_area_size(52).y_label_area_size(60);
    if !title.is_empty() {
        builder.caption(title, (FONT, 24).into_font().color(&INK));
    }
    let ticks = ticks(times.start, times.end);
    let (bottom, top) = (scores.start, scores.end);
    let mut context = builder.build_cartesian_2d(times.log_scale(), scores)?;
    context.draw_series(ticks.iter().map(|&time| PathElement::new([(time, bottom), (time, top)], GRID)))?;
    context
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("milliseconds a frame (faster is to the left)")
        .y_desc("J&F, %")
        .x_labels(1)
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((FONT, TEXT).into_font().color(&INK))
        .axis_desc_style((FONT, TEXT + 2).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;

    let beneath: TextStyle = (FONT, TEXT).into_font().color(&INK);
    let beneath = beneath.pos(Pos::new(HPos::Center, VPos::Top));
    for &time in &ticks {
        let (x, y) = context.backend_coord(&(time, bottom));
        area.draw(&PathElement::new([(x, y), (x, y + 5)], INK))?;
        area.draw(&Text::new(short(time), (x, y + 8), beneath.clone()))?;
    }

    let groups = groups(methods);
    let number = |method: &Method| groups.iter().position(|group| **group == method.group).unwrap_or(0);
    let marks: Vec<(i32, i32)> =
        methods.iter().map(|method| context.backend_coord(&(method.milliseconds, method.score))).collect();
    let style: TextStyle = (FONT, TEXT).into_font().color(&INK);
    let sizes = methods
        .iter()
        .map(|method| Ok(area.estimate_text_size(&method.name, &style)?))
        .collect::<std::result::Result<Vec<(u32, u32)>, Box<dyn std::error::Error>>>()?;
    let (columns, rows) = context.plotting_area().get_pixel_range();
    let frame = Box4 { left: columns.start, top: rows.start, right: columns.end, bottom: rows.end };
    let legend = legend(&groups, frame, area)?;
    let boxes = place(&marks, &sizes, frame, legend);
    for (((method, &mark), label), index) in methods.iter().zip(&marks).zip(&boxes).zip(0..) {
        let near = (mark.0.clamp(label.left, label.right), mark.1.clamp(label.top, label.bottom));
        if label.distance(mark) > 2 * MARK {
            area.draw(&PathElement::new([mark, near], INK.mix(0.5)))?;
        }
        let fill = colour(number(&methods[index])).filled();
        area.draw(&Circle::new(mark, MARK, fill))?;
        area.draw(&Text::new(method.name.clone(), (label.left, label.top), style.clone()))?;
    }
    Ok(())
}

/// Those that there are, in the order in which they first come.
fn groups(methods: &[Method]) -> Vec<&String> {
    let mut groups = Vec::<&String>::new();
    for method in methods {
        if !groups.contains(&&method.group) {
            groups.push(&method.group);
        }
    }
    groups
}

/// Names the groups' colours in the lower right corner, where slow and bad methods would be; tells where.
fn legend(
    groups: &[&String],
    frame: Box4,
    area: &Area,
) -> std::result::Result<Option<Box4>, Box<dyn std::error::Error>> {
    let named: Vec<(usize, &String)> =
        groups.iter().copied().enumerate().filter(|(_, group)| !group.is_empty()).collect();
    if named.is_empty() {
        return Ok(None);
    }
    let style: TextStyle = (FONT, TEXT).into_font().color(&INK);
    let mut width = 0;
    for (_, group) in &named {
        width = width.max(area.estimate_text_size(group, &style)?.0 as i32);
    }
    let line = TEXT as i32 + 8;
    let place = Box4 {
        left: frame.right - width - 44,
        top: frame.bottom - line * named.len() as i32 - 16,
        right: frame.right - 8,
        bottom: frame.bottom - 8,
    };
    let corners = [(place.left, place.top), (place.right, place.bottom)];
    area.draw(&Rectangle::new(corners, WHITE.filled()))?;
    area.draw(&Rectangle::new(corners, GRID))?;
    for (row, (index, group)) in (0..).zip(named) {
        let y = place.top + 6 + row * line;
        let mark = (place.left + 14, y + line / 2 - 2);
        area.draw(&Circle::new(mark, MARK, colour(index).filled()))?;
        area.draw(&Text::new(group.clone(), (place.left + 28, y + 2), style.clone()))?;
    }
    Ok(Some(place))
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Box4 {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Box4 {
    /// Pixels that both cover.
    fn common(&self, other: &Self) -> i32 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0) * height.max(0)
    }

    fn area(&self) -> i32 {
        (self.right - self.left) * (self.bottom - self.top)
    }

    /// From the point to the nearest of its pixels, along the further axis.
    fn distance(&self, (x, y): (i32, i32)) -> i32 {
        let along = |at: i32, from: i32, to: i32| (from - at).max(at - to).max(0);
        along(x, self.left, self.right).max(along(y, self.top, self.bottom))
    }

    fn around((x, y): (i32, i32)) -> Self {
        let reach = MARK + 2;
        Self { left: x - reach, top: y - reach, right: x + reach, bottom: y + reach }
    }
}

/// A place for every name beside its mark: of many places around it the nearest that covers no mark, no other
/// name and nothing outside of the frame, or else the one that covers least. Those with the least room choose
/// first.
fn place(marks: &[(i32, i32)], sizes: &[(u32, u32)], frame: Box4, legend: Option<Box4>) -> Vec<Box4> {
    let obstacles: Vec<Box4> = marks.iter().map(|&mark| Box4::around(mark)).chain(legend).collect();
    let neighbours = |index: usize| {
        let near = Box4 {
            left: marks[index].0 - 120,
            right: marks[index].0 + 120,
            top: marks[index].1 - 40,
            bottom: marks[index].1 + 40,
        };
        obstacles.iter().filter(|other| near.common(other) > 0).count()
    };
    let mut order: Vec<usize> = (0..marks.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(neighbours(index)));
    let mut placed: Vec<Option<Box4>> = vec![None; marks.len()];
    for index in order {
        let (width, height) = (sizes[index].0 as i32 + 4, sizes[index].1 as i32 + 4);
        let cost = |candidate: &Box4, far: i32| {
            let covered: i32 = obstacles.iter().map(|other| candidate.common(other)).sum();
            let names: i32 = placed.iter().flatten().map(|other| candidate.common(other)).sum();
            let outside = candidate.area() - candidate.common(&frame);
            (covered + names + outside, far)
        };
        let candidates = (0..12).flat_map(|ring| {
            let gap = MARK + 3 + 9 * ring;
            around(marks[index], width, height, gap).map(move |candidate| (candidate, ring))
        });
        let best = candidates.min_by_key(|(candidate, ring)| cost(candidate, *ring));
        placed[index] = best.map(|(candidate, _)| candidate);
    }
    placed.into_iter().zip(marks).map(|(label, &mark)| label.unwrap_or(Box4::around(mark))).collect()
}

/// Right, left, above, below and the corners, in the order in which eyes like them.
fn around((x, y): (i32, i32), width: i32, height: i32, gap: i32) -> impl Iterator<Item = Box4> {
    let middle = (x - width / 2, y - height / 2);
    let (right, left) = (x + gap, x - gap - width);
    let (above, below) = (y - gap - height, y + gap);
    let corners = [
        (right, middle.1),
        (right, above),
        (right, below),
        (middle.0, above),
        (middle.0, below),
        (left, middle.1),
        (left, above),
        (left, below),
    ];
    corners.into_iter().map(move |(left, top)| Box4 { left, top, right: left + width, bottom: top + height })
}

/// Round numbers between the two for a logarithmic axis: as many as can be read, and as few.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let of = |digits: &[f64]| -> Vec<f64> {
        let all =
            decades.clone().flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let finer: [&[f64]; 4] = [
        &[1.0],
        &[1.0, 2.0, 5.0],
        &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        &[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0],
    ];
    finer.map(of).into_iter().find(|ticks| ticks.len() >= 4).unwrap_or_else(|| vec![low, high])
}

/// 0.05, 1.5, 20, 1000.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    format!("{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("methods.csv");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn rows_in_milliseconds_or_frames_a_second() {
        let (_folder, path) =
            file("# measured\nname, fps, J&F, group\n lite, 50, 83.3, ours\nslow, 2, 50,\n");
        let methods = read(&path).unwrap();
        assert_eq!(methods[0].name, "lite");
        assert_eq!((methods[0].milliseconds, methods[0].score), (20.0, 83.3));
        assert_eq!((methods[1].milliseconds, methods[1].group.as_str()), (500.0, ""));
        let (_folder, path) = file("J&F,name,MS\n10,a,7.5\n");
        assert_eq!(read(&path).unwrap()[0].milliseconds, 7.5);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, word) in [
            ("name,J&F\na,1\n", "ms or fps"),
            ("name,ms,J&F\na,1,50\nb,0,50\n", "line 3: the time"),
            ("name,ms,J&F\na,1,150\n", "per cent"),
            ("name,ms,J&F\na,x,50\n", "line 2"),
            ("name,ms,fps,J&F\na,1,2,50\n", "not both"),
            ("name,ms,J&F\n", "no method"),
        ] {
            let (_folder, path) = file(text);
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("methods.csv"), "{error}");
        }
        assert!(read(Path::new("/nowhere.csv")).unwrap_err().to_string().contains("/nowhere.csv"));
    }

    #[test]
    fn an_axis_has_round_numbers_to_read_by() {
        assert_eq!(ticks(0.3, 4500.0), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(ticks(4.0, 110.0), [5.0, 10.0, 20.0, 50.0, 100.0]);
        assert!(ticks(15.0, 41.8).len() >= 4);
        assert!((2..=12).contains(&ticks(10.0, 35.2).len()));
        assert_eq!([0.05, 1.1 * 10.0, 1000.0].map(short), ["0.05", "11", "1000"]);
    }

    #[test]
    fn no_name_covers_another_or_a_mark_or_leaves_the_frame() {
        let frame = Box4 { left: 60, top: 10, right: 960, bottom: 560 };
        // A crowd in one corner, one on top of the other, and one at each border.
        let mut marks: Vec<(i32, i32)> = (0..8).map(|i| (100 + 11 * i, 60 + 7 * (i % 3))).collect();
        marks.extend([(500, 300), (500, 300), (955, 20), (65, 555), (955, 300)]);
        let sizes: Vec<(u32, u32)> = (0..marks.len() as u32).map(|i| (60 + 10 * (i % 4), 17)).collect();
        let legend = Box4 { left: 800, top: 480, right: 950, bottom: 550 };
        let boxes = place(&marks, &sizes, frame, Some(legend));
        for (i, label) in boxes.iter().enumerate() {
            assert_eq!(label.common(&frame), label.area(), "{i} is inside");
            assert!(marks.iter().all(|&mark| label.common(&Box4::around(mark)) == 0), "{i} hides a mark");
            assert!(boxes[i + 1..].iter().all(|other| label.common(other) == 0), "{i} hides a name");
            assert_eq!(label.common(&legend), 0);
        }
        let alone = place(&[(500, 300)], &[(80, 17)], frame, None);
        assert!(alone[0].left > 500 && alone[0].distance((500, 300)) <= 2 * MARK, "beside its mark");
    }

    #[test]
    fn the_picture_has_a_mark_where_a_method_is() {
        let method = |name: &str, milliseconds, score, group: &str| Method {
            name: name.into(),
            milliseconds,
            score,
            group: group.into(),
        };
        let methods = [method("fast", 10.0, 80.0, "a"), method("slow", 1000.0, 60.0, "b")];
        let picture = draw(&methods, "").unwrap();
        let centre = |index: usize| {
            let fill = colour(index);
            let inside = picture.enumerate_pixels().filter(|(_, _, p)| p.0 == [fill.0, fill.1, fill.2]);
            let places: Vec<(u32, u32)> =
                inside.map(|(x, y, _)| (x, y)).filter(|&(x, y)| x < 900 || y < 500).collect();
            let count = places.len() as f64;
            assert!(count > 50.0, "{count}");
            (
                places.iter().map(|p| f64::from(p.0)).sum::<f64>() / count,
                places.iter().map(|p| f64::from(p.1)).sum::<f64>() / count,
            )
        };
        let (fast, slow) = (centre(0), centre(1));
        assert!(fast.0 < slow.0 && fast.1 < slow.1, "{fast:?} {slow:?}");
        assert!(draw(&[], "").is_err());
        assert!(draw(&methods[..1], "one method").is_ok());
    }
}
