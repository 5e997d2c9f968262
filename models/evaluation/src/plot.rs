//! Figures of evaluations as SVG, all in one style: a title, one legend, and
//! panels side by side whose axes have units. What a figure shows is said as
//! data ([`Figure`]); only this file draws.

mod draw;

/// Points of a line at most: what lies between is narrower than a pixel.
const POINTS_MAX: usize = 600;
/// Points of a band at most, likewise.
const BAND_POINTS_MAX: usize = 200;

/// A drawing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figure {
    /// What is shown.
    pub(crate) title: String,
    /// What marks mean.
    pub(crate) legend: Vec<Entry>,
    /// Panels in a row.
    pub(crate) columns: usize,
    /// Row by row.
    pub(crate) panels: Vec<Panel>,
}

/// A line of the legend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) label: String,
    pub(crate) colour: Colour,
    pub(crate) sign: Sign,
}

/// How an entry of the legend looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sign {
    Line,
    Dashes,
    Area(f64),
    Dot,
}

/// Two axes with marks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// A second scale at the right, for marks on it.
    pub(crate) right: Option<Axis>,
    pub(crate) marks: Vec<Mark>,
}

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// Quantity with its unit.
    pub(crate) label: String,
    /// From the first to the last value; of a logarithmic one, in natural units.
    pub(crate) range: [f64; 2],
    pub(crate) logarithmic: bool,
}

/// What is drawn in a panel. Lines break where a value is not finite.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
    },
    /// A line on the scale at the right.
    RightLine {
        points: Vec<(f64, f64)>,
        colour: Colour,
    },
    Dashes {
        points: Vec<(f64, f64)>,
        colour: Colour,
    },
    /// Between two lines of x, low, high; so opaque, 0..=1.
    Band {
        points: Vec<(f64, [f64; 2])>,
        colour: Colour,
        opacity: f64,
    },
    Dots {
        points: Vec<(f64, f64)>,
        colour: Colour,
    },
    /// From the lower end of the axis up to y, from x to x.
    Bar { x: [f64; 2], y: f64, colour: Colour },
    /// The whole height from x to x.
    Span { x: [f64; 2], colour: Colour },
    /// A line from bottom to top.
    Upright { x: f64, colour: Colour },
}

/// Colours that the colour-blind tell apart (Okabe and Ito 2008).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Black,
    Grey,
    Blue,
    Orange,
    Green,
    Red,
}

impl Axis {
    /// From `low` to `high`, with room around where they are equal.
    pub(crate) fn new(label: impl Into<String>, low: f64, high: f64) -> Self {
        let range = if !(low.is_finite() && high.is_finite()) {
            [0.0, 1.0]
        } else if low < high {
            [low, high]
        } else {
            let room = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
            [low - room, low + room]
        };
        Axis {
            label: label.into(),
            range,
            logarithmic: false,
        }
    }

    /// From the least to the largest finite value, with a margin of 5 %.
    pub(crate) fn around(label: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        let margin = 0.05 * (high - low);
        // What is never negative has no axis below 0.
        let lowest = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        Self::new(label, (low - margin).max(lowest), high + margin)
    }

    /// With a logarithmic scale between two values above 0.
    pub(crate) fn logarithmic(label: impl Into<String>, low: f64, high: f64) -> Self {
        Axis {
            label: label.into(),
            range: [low, high],
            logarithmic: true,
        }
    }
}

impl Entry {
    pub(crate) fn new(label: impl Into<String>, colour: Colour, sign: Sign) -> Self {
        Entry {
            label: label.into(),
            colour,
            sign,
        }
    }
}

impl Figure {
    /// It, drawn.
    ///
    /// # Panics
    /// Never: text has no failing output.
    pub(crate) fn svg(&self) -> String {
        let mut svg = String::new();
        draw::figure(self, &mut svg).expect("drawing into a string cannot fail");
        svg
    }
}

/// The longest of s, min, h and d of which `secs` are at least three, and its
/// length in seconds.
pub(crate) fn unit_of_time(secs: f64) -> (&'static str, f64) {
    const UNITS: [(&str, f64); 3] = [("d", 86_400.0), ("h", 3600.0), ("min", 60.0)];
    let long = UNITS.into_iter().find(|(_, unit)| secs >= 3.0 * unit);
    long.unwrap_or(("s", 1.0))
}

/// A name for a file: letters, digits and `-`.
pub(crate) fn file_name(parts: &[&str]) -> String {
    let mut name = String::new();
    for c in parts.join("-").chars() {
        match c {
            c if c.is_alphanumeric() => name.extend(c.to_lowercase()),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.trim_matches('-').to_owned()
}

/// Low and high ends at an x.
type Ends = (f64, [f64; 2]);

/// Runs of a band that are known, with the widest of every few points where there
/// are more than can be seen.
fn band_runs(points: &[Ends]) -> Vec<Vec<Ends>> {
    let known = |(_, [low, high]): &Ends| low.is_finite() && high.is_finite();
    let every = points.len().div_ceil(BAND_POINTS_MAX).max(1);
    let widest = |group: &[Ends]| {
        let wider = |a: [f64; 2], b: &Ends| [a[0].min(b.1[0]), a[1].max(b.1[1])];
        (group[0].0, group.iter().fold(group[0].1, wider))
    };
    let runs = points.split(|point| !known(point));
    runs.map(|run| {
        let mut thinned: Vec<Ends> = run.chunks(every).map(widest).collect();
        // It ends where the run does.
        if let (Some(end), Some(last)) = (thinned.last_mut(), run.last()) {
            end.0 = last.0;
        }
        thinned
    })
    .filter(|run| run.len() > 1)
    .collect()
}

/// Runs of points that are known, each thinned to the least and largest of every
/// few where there are more than can be seen.
fn runs(points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    let known = points.split(|(x, y)| !(x.is_finite() && y.is_finite()));
    let known: Vec<_> = known.filter(|run| !run.is_empty()).collect();
    let all: usize = known.iter().map(|run| run.len()).sum();
    let every = (2 * all).div_ceil(POINTS_MAX).max(1);
    known.iter().map(|run| thinned(run, every)).collect()
}

fn thinned(run: &[(f64, f64)], every: usize) -> Vec<(f64, f64)> {
    if every <= 2 {
        return run.to_vec();
    }
    let ends = |group: &[(f64, f64)]| {
        let order = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let low = group.iter().min_by(order).copied();
        let high = group.iter().max_by(order).copied();
        let mut ends: Vec<(f64, f64)> = low.into_iter().chain(high).collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        ends
    };
    run.chunks(every).flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 2.0)];
        Figure {
            title: "What & why".to_owned(),
            legend: vec![
                Entry::new("truth", Colour::Black, Sign::Line),
                Entry::new("80 %", Colour::Blue, Sign::Area(0.3)),
            ],
            columns: 2,
            panels: vec![
                Panel {
                    title: "left".to_owned(),
                    x: Axis::new("time in h", 0.0, 3.0),
                    y: Axis::around("latency in ms", [1.0, 3.0]),
                    right: Some(Axis::new("risk", 0.0, 1.0)),
                    marks: vec![
                        Mark::Band {
                            points: vec![(0.0, [1.0, 2.0]), (3.0, [0.5, 3.0])],
                            colour: Colour::Blue,
                            opacity: 0.3,
                        },
                        Mark::Line {
                            points: points.clone(),
                            colour: Colour::Black,
                        },
                        Mark::RightLine {
                            points: vec![(0.0, 0.0), (3.0, 1.0)],
                            colour: Colour::Red,
                        },
                        Mark::Upright {
                            x: 2.0,
                            colour: Colour::Red,
                        },
                    ],
                },
                Panel {
                    title: "right".to_owned(),
                    x: Axis::new("said", 0.0, 1.0),
                    y: Axis::logarithmic("steps", 1.0, 1e4),
                    right: None,
                    marks: vec![Mark::Bar {
                        x: [0.2, 0.4],
                        y: 100.0,
                        colour: Colour::Grey,
                    }],
                },
            ],
        }
    }

    #[test]
    fn a_figure_has_title_legend_axes_and_marks() {
        let svg = figure().svg();
        for text in [
            "What &amp; why",
            "truth",
            "80 %",
            "time in h",
            "latency in ms",
            "risk",
            "steps",
            "1000",
            "<polygon",
            "<polyline",
        ] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert_eq!(svg, figure().svg());
    }

    #[test]
    fn lines_break_where_nothing_is_known_and_keep_their_extremes() {
        let broken = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)];
        assert_eq!(runs(&broken), [vec![(0.0, 1.0)], vec![(2.0, 3.0)]]);
        let mut long: Vec<(f64, f64)> = (0..20_000).map(|i| (f64::from(i), 1.0)).collect();
        long[7777].1 = 9.0;
        let drawn = runs(&long).concat();
        assert!(drawn.len() <= POINTS_MAX + 2, "{}", drawn.len());
        assert!(drawn.contains(&(7777.0, 9.0)));
        let mut band: Vec<Ends> = (0..5000).map(|i| (f64::from(i), [1.0, 2.0])).collect();
        band[3333].1[1] = 5.0;
        let drawn = band_runs(&band).concat();
        assert!(drawn.len() <= BAND_POINTS_MAX, "{}", drawn.len());
        assert!(drawn.iter().any(|(_, ends)| *ends == [1.0, 5.0]));
        assert_eq!(drawn.last().map(|(x, _)| *x), Some(4999.0));
    }

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(file_name(&["fan", "l2c/5T/short"]), "fan-l2c-5t-short");
        assert_eq!(file_name(&["a: (b)"]), "a-b");
    }
}
