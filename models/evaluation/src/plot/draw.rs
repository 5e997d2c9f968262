//! From figures to SVG.

use plotters::{
    chart::ChartContext,
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Axis, Colour, Entry, Figure, Mark, Panel, Sign, band_runs, runs};

type Failure = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Sizes in pixels: of a single panel, of one of several, of what is above them.
const SINGLE: (u32, u32) = (720, 400);
const PANEL: (u32, u32) = (360, 230);
const WIDE: (u32, u32) = (900, 230);
const TITLE: i32 = 30;
const LEGEND_ROW: i32 = 18;
/// Room for the numbers of the axis at the right.
const RIGHT: u32 = 44;
/// Width of a letter of the legend, about.
const LETTER: f64 = 6.2;
const FONT: &str = "sans-serif";

pub(super) fn figure(figure: &Figure, svg: &mut String) -> Result<(), Failure> {
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let rows = figure.panels.len().div_ceil(columns);
    let (width, height) = match figure.panels.len() {
        1 => SINGLE,
        _ if columns == 1 => (WIDE.0, WIDE.1 * rows as u32),
        _ => (PANEL.0 * columns as u32, PANEL.1 * rows as u32),
    };
    let entries = rows_of_legend(&figure.legend, f64::from(width));
    let head = TITLE + LEGEND_ROW * entries.len() as i32;
    let root = SVGBackend::with_string(svg, (width, height + head as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = (FONT, 16).into_font().color(&BLACK);
    root.draw(&Text::new(figure.title.clone(), (10, 8), title))?;
    for (row, entries) in entries.iter().enumerate() {
        for (x, entry) in entries {
            legend(&root, entry, *x, TITLE + LEGEND_ROW * row as i32)?;
        }
    }
    let (_, body) = root.split_vertically(head);
    for (area, of) in body
        .split_evenly((rows.max(1), columns))
        .iter()
        .zip(&figure.panels)
    {
        panel(&root, area, of)?;
    }
    root.present()
}

/// Entries with their place from the left, as many in a row as fit.
fn rows_of_legend(legend: &[Entry], width: f64) -> Vec<Vec<(i32, &Entry)>> {
    let mut rows: Vec<Vec<(i32, &Entry)>> = Vec::new();
    let mut x = f64::INFINITY;
    for entry in legend {
        let wide = 44.0 + LETTER * entry.label.chars().count() as f64;
        if x + wide > width {
            x = 12.0;
            rows.push(Vec::new());
        }
        if let Some(row) = rows.last_mut() {
            row.push((x as i32, entry));
        }
        x += wide;
    }
    rows
}

fn legend(root: &Area<'_>, entry: &Entry, x: i32, y: i32) -> Result<(), Failure> {
    let (colour, middle) = (rgb(entry.colour), y + 7);
    match entry.sign {
        Sign::Line => root.draw(&PathElement::new(
            [(x, middle), (x + 20, middle)],
            colour.stroke_width(2),
        ))?,
        Sign::Dashes => {
            for at in [x, x + 8, x + 16] {
                let dash = [(at, middle), (at + 4, middle)];
                root.draw(&PathElement::new(dash, colour.stroke_width(2)))?;
            }
        }
        Sign::Area(opacity) => {
            let corners = [(x, y + 2), (x + 20, y + 12)];
            root.draw(&Rectangle::new(corners, colour.mix(opacity).filled()))?;
        }
        Sign::Dot => root.draw(&Circle::new((x + 10, middle), 4, colour.filled()))?,
    }
    let style = (FONT, 12).into_font().color(&BLACK);
    root.draw(&Text::new(entry.label.clone(), (x + 25, y + 1), style))
}

fn panel(root: &Area<'_>, area: &Area<'_>, panel: &Panel) -> Result<(), Failure> {
    let [x, y] = [&panel.x, &panel.y].map(Scale::new);
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(&panel.title, (FONT, 13))
        .margin(6)
        .margin_right(16)
        .x_label_area_size(36)
        .y_label_area_size(56);
    if panel.right.is_some() {
        builder.margin_right(RIGHT);
    }
    let mut chart = builder.build_cartesian_2d(x.low..x.high, y.low..y.high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_labels(7)
        .y_labels(6)
        .x_label_formatter(&|value| x.tick(*value))
        .y_label_formatter(&|value| y.tick(*value))
        .x_desc(&panel.x.label)
        .y_desc(&panel.y.label)
        .label_style((FONT, 11))
        .axis_desc_style((FONT, 11))
        .draw()?;
    let right = panel.right.as_ref().map(Scale::new);
    for of in &panel.marks {
        mark(&mut chart, of, [&x, &y], right.as_ref())?;
    }
    match &panel.right {
        Some(axis) => right_axis(root, &chart, axis, &y),
        None => Ok(()),
    }
}

/// Numbers of the second scale and what they are of.
fn right_axis(
    root: &Area<'_>,
    chart: &Chart<'_, '_>,
    axis: &Axis,
    y: &Scale,
) -> Result<(), Failure> {
    let right = Scale::new(axis);
    let end = chart.x_range().end;
    let number = (FONT, 11).into_font().color(&BLACK);
    let number = number.pos(Pos::new(HPos::Left, VPos::Center));
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at_x, at_y) = chart.backend_coord(&(end, y.low + part * (y.high - y.low)));
        let text = right.tick(right.low + part * (right.high - right.low));
        root.draw(&Text::new(text, (at_x + 4, at_y), number.clone()))?;
    }
    let middle = 0.5 * (y.low + y.high);
    let (at_x, at_y) = chart.backend_coord(&(end, middle));
    let label = FontDesc::from((FONT, 11)).transform(FontTransform::Rotate90);
    let label = label
        .color(&BLACK)
        .pos(Pos::new(HPos::Center, VPos::Bottom));
    root.draw(&Text::new(axis.label.clone(), (at_x + 32, at_y), label))
}

/// Where values lie on an axis.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn new(axis: &Axis) -> Self {
        let place = |value: f64| {
            if axis.logarithmic {
                value.log10()
            } else {
                value
            }
        };
        let [low, high] = axis.range.map(place);
        Scale {
            low,
            high,
            logarithmic: axis.logarithmic,
        }
    }

    /// NaN of what a logarithmic scale cannot show.
    fn place(&self, value: f64) -> f64 {
        match self.logarithmic {
            true if value > 0.0 => value.log10().clamp(self.low, self.high),
            true => f64::NAN,
            false => value.clamp(self.low, self.high),
        }
    }

    fn tick(&self, place: f64) -> String {
        number(if self.logarithmic {
            10f64.powf(place)
        } else {
            place
        })
    }
}

/// Short, to three digits.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1e-12 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&magnitude) {
        return format!("{value:.1e}");
    }
    let digits = (2.0 - magnitude.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn mark(
    chart: &mut Chart<'_, '_>,
    mark: &Mark,
    [x, y]: [&Scale; 2],
    right: Option<&Scale>,
) -> Result<(), Failure> {
    let at = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        points
            .iter()
            .map(|(a, b)| (x.place(*a), y.place(*b)))
            .collect()
    };
    match mark {
        Mark::Line { points, colour } => line(chart, &at(points), *colour),
        Mark::RightLine { points, colour } => {
            let Some(right) = right else { return Ok(()) };
            let share = |value: f64| (right.place(value) - right.low) / (right.high - right.low);
            let to_left = |value: f64| y.low + share(value) * (y.high - y.low);
            let points = points.iter().map(|(a, b)| (x.place(*a), to_left(*b)));
            line(chart, &points.collect::<Vec<_>>(), *colour)
        }
        Mark::Dashes { points, colour } => {
            let style = rgb(*colour).stroke_width(1);
            for run in runs(&at(points)) {
                chart.draw_series(DashedLineSeries::new(run, 5, 4, style))?;
            }
            Ok(())
        }
        Mark::Band {
            points,
            colour,
            opacity,
        } => {
            for run in band_runs(points) {
                let upper = run.iter().map(|(a, [_, high])| (*a, *high));
                let lower = run.iter().rev().map(|(a, [low, _])| (*a, *low));
                let border: Vec<(f64, f64)> = upper.chain(lower).collect();
                let style = rgb(*colour).mix(*opacity).filled();
                chart.draw_series([Polygon::new(at(&border), style)])?;
            }
            Ok(())
        }
        Mark::Dots { points, colour } => {
            let dots = at(points)
                .into_iter()
                .filter(|(a, b)| a.is_finite() && b.is_finite());
            let dot = |place| Circle::new(place, 3, rgb(*colour).filled());
            chart.draw_series(dots.map(dot))?;
            Ok(())
        }
        Mark::Bar {
            x: ends,
            y: to,
            colour,
        } => {
            let corners = [(x.place(ends[0]), y.low), (x.place(ends[1]), y.place(*to))];
            chart.draw_series([Rectangle::new(corners, rgb(*colour).mix(0.6).filled())])?;
            Ok(())
        }
        Mark::Span { x: ends, colour } => {
            let corners = [(x.place(ends[0]), y.low), (x.place(ends[1]), y.high)];
            chart.draw_series([Rectangle::new(corners, rgb(*colour).mix(0.2).filled())])?;
            Ok(())
        }
        Mark::Upright { x: at, colour } => {
            let ends = [(x.place(*at), y.low), (x.place(*at), y.high)];
            chart.draw_series([PathElement::new(ends, rgb(*colour).stroke_width(1))])?;
            Ok(())
        }
    }
}

fn line(chart: &mut Chart<'_, '_>, points: &[(f64, f64)], colour: Colour) -> Result<(), Failure> {
    for run in runs(points) {
        let colour = rgb(colour);
        if let [alone] = run[..] {
            chart.draw_series([Circle::new(alone, 1, colour.filled())])?;
        } else {
            chart.draw_series(LineSeries::new(run, colour.stroke_width(1)))?;
        }
    }
    Ok(())
}

const fn rgb(colour: Colour) -> RGBColor {
    match colour {
        Colour::Black => RGBColor(0, 0, 0),
        Colour::Grey => RGBColor(130, 130, 130),
        Colour::Blue => RGBColor(0, 114, 178),
        Colour::Orange => RGBColor(230, 159, 0),
        Colour::Green => RGBColor(0, 158, 115),
        Colour::Red => RGBColor(213, 94, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.05, 1.0, 12.5, 1500.0, 2e7, -0.333_33].map(number);
        assert_eq!(texts, ["0", "0.05", "1", "12.5", "1500", "2.0e7", "-0.333"]);
    }

    #[test]
    fn a_legend_that_is_too_wide_goes_on_in_another_row() {
        let entry = Entry::new("0123456789", Colour::Blue, Sign::Line);
        let legend = vec![entry; 5];
        let rows = rows_of_legend(&legend, 240.0);
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
