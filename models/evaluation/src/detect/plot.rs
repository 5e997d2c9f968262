//! How much hangs on the threshold.

use plotters::prelude::*;

use crate::nab::Profile;

/// Size in pixels.
const SIZE: (u32, u32) = (720, 420);
const COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
];

/// NAB scores of the three profiles over the threshold, as SVG.
///
/// # Panics
/// Never: text has no failing output.
pub(super) fn curve(points: &[(f64, [f64; 3])]) -> String {
    let mut svg = String::new();
    draw(&mut svg, points).expect("drawing into a string cannot fail");
    svg
}

fn draw(
    svg: &mut String,
    points: &[(f64, [f64; 3])],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>> {
    let (first, last) = match points {
        [first, .., last] => (first.0, last.0),
        _ => return Ok(()),
    };
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("NAB score over the threshold", ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(40)
        .build_cartesian_2d(first..last, 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("threshold (1.0 is in use)")
        .y_desc("score")
        .draw()?;
    for (k, (profile, colour)) in Profile::ALL.into_iter().zip(COLOURS).enumerate() {
        let line = points
            .iter()
            .map(|(threshold, scores)| (*threshold, scores[k]));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(profile.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()
}
