//! The live table.
//!
//! Pure: [`draw`] puts a [`Screen`] on a frame; the terminal belongs to the caller.

use honeyguide_proto::v1::{Alert, Forecast, LatencyQuantiles, RouteSummary, Side, Target};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    alert_line, is_firing, latency, point, rate, reason, routes::share, time_to, worst_breach,
};

/// Routes shown beneath the series, those that need attention.
pub const ROUTES_MAX: usize = 5;
/// Alerts shown at the foot.
const ALERTS_MAX: usize = 4;
/// Log lines shown at the foot.
const LOG_LINES_MAX: usize = 3;

/// All that the live table shows.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    pub forecasts: Vec<Forecast>,
    /// The worst ones first.
    pub routes: Vec<RouteSummary>,
    pub alerts: Vec<Alert>,
    pub sensor: SensorView,
    pub log: Vec<String>,
}

/// What the sensor does and costs.
#[derive(Clone, Debug, Default)]
pub struct SensorView {
    /// Fraction of the node's CPU time that sensor and kernel programs took; `None` until measured.
    pub cost: Option<f64>,
    /// What it may be.
    pub cost_ceiling: f64,
    /// What is shed because of that; empty when nothing is.
    pub shedding: String,
    /// Hints in force.
    pub hints: usize,
    pub services: usize,
    pub events_lost: u64,
    /// Name, whether it runs, and at which level or why not.
    pub probes: Vec<(String, bool, String)>,
}

impl Screen {
    /// Active series first; of those the riskiest, then the anomalous, then by name.
    pub fn sort(&mut self) {
        let risk =
            |forecast: &Forecast| worst_breach(forecast).map_or(0.0, |breach| breach.probability);
        self.forecasts.sort_by(|a, b| {
            // Whole per cents, so that noise does not make rows jump.
            let per_cent = |forecast: &Forecast| (risk(forecast) * 100.0).round() as i64;
            let anomalous = |forecast: &Forecast| forecast.anomaly_score >= 1.0;
            let at_rest = |forecast: &Forecast| {
                forecast
                    .now
                    .as_ref()
                    .is_none_or(|now| now.latency.is_none())
            };
            at_rest(a)
                .cmp(&at_rest(b))
                .then(per_cent(b).cmp(&per_cent(a)))
                .then(anomalous(b).cmp(&anomalous(a)))
                .then_with(|| name(a).cmp(&name(b)))
        });
    }
}

fn name(forecast: &Forecast) -> (&str, &str) {
    forecast
        .key
        .as_ref()
        .map_or(("", ""), |key| (&key.service, &key.signal))
}

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let alerts = screen.alerts.len().clamp(1, ALERTS_MAX) as u16;
    let log = screen.log.len().min(LOG_LINES_MAX) as u16;
    // With their header and a line above; nothing where there are none.
    let routes = match screen.routes.len().min(ROUTES_MAX) as u16 {
        0 => 0,
        routes => routes + 2,
    };
    let [head, table, routes, alerts, log] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(routes),
        Constraint::Length(alerts),
        Constraint::Length(log),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(&screen.sensor)), head);
    draw_table(frame, table, &screen.forecasts);
    draw_routes(frame, routes, &screen.routes);
    frame.render_widget(Paragraph::new(alert_lines(&screen.alerts)), alerts);
    let lines = screen.log.iter().rev().take(LOG_LINES_MAX).rev();
    let lines: Vec<Line<'_>> = lines.map(|line| Line::from(line.as_str()).dim()).collect();
    frame.render_widget(Paragraph::new(lines), log);
}

fn head_lines(sensor: &SensorView) -> Vec<Line<'_>> {
    let cost = match sensor.cost {
        Some(cost) => format!(
            "{:.3} of at most {:.1} % of this machine",
            cost * 100.0,
            sensor.cost_ceiling * 100.0
        ),
        None => "being measured".to_owned(),
    };
    let mut first = vec![
        Span::styled("honeyguide", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {} services  cost {cost}  ", sensor.services)),
    ];
    if sensor.hints > 0 {
        first.push(Span::raw(format!("{} hints  ", sensor.hints)));
    }
    if !sensor.shedding.is_empty() {
        first.push(Span::styled(
            format!("shed: {}  ", sensor.shedding),
            Style::new().fg(Color::Yellow),
        ));
    }
    if sensor.events_lost > 0 {
        first.push(Span::styled(
            format!("{} events lost", sensor.events_lost),
            Style::new().fg(Color::Yellow),
        ));
    }
    let mut probes = vec![Span::raw("probes ")];
    for (name, runs, detail) in &sensor.probes {
        let style = Style::new().fg(if *runs { Color::Green } else { Color::DarkGray });
        probes.push(Span::styled(format!(" {name}"), style));
        if !detail.is_empty() {
            probes.push(Span::raw(format!(" ({detail})")));
        }
    }
    vec![Line::from(first), Line::from(probes)]
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, forecasts: &[Forecast]) {
    let header = Row::new([
        "SERVICE",
        "SIGNAL",
        "RATE",
        "P50",
        "P99",
        "P99 IN 15 MIN",
        "RISK",
        "ETA",
        "ANOMALY",
        "SAMPLED",
        "BECAUSE",
    ])
    .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    if forecasts.is_empty() {
        let text = "waiting for the first window of kernel events …";
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let visible = usize::from(area.height.saturating_sub(1));
    let table = Table::new(
        forecasts.iter().take(visible).map(row),
        [
            Constraint::Max(32),
            Constraint::Length(15),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(28),
            Constraint::Length(5),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Min(10),
        ],
    )
    .header(header);
    frame.render_widget(table, area);
}

fn row(forecast: &Forecast) -> Row<'_> {
    let (service, signal) = name(forecast);
    let now = forecast.now.as_ref();
    let quantiles = now.and_then(|now| now.latency.as_ref());
    let dash = || "–".to_owned();
    let breach = worst_breach(forecast);
    let risk = breach.map_or(0.0, |breach| breach.probability);
    let p99 = point(forecast, Target::P99).map_or_else(dash, |p99| {
        format!(
            "{} [{}, {}]",
            latency(p99.yhat),
            latency(p99.yhat_lower_80),
            latency(p99.yhat_upper_80)
        )
    });
    let because = if risk >= 0.2 || forecast.anomaly_score >= 1.0 {
        forecast
            .reasons
            .first()
            .map(|first| reason(first, forecast.key.as_ref()))
    } else {
        None
    };
    let sampled = now.map_or(1.0, |now| now.sampling_ratio);
    Row::new([
        Cell::from(service),
        Cell::from(signal),
        Cell::from(now.map_or_else(dash, |now| rate(now.rate_per_sec))),
        Cell::from(quantiles.map_or_else(dash, |quantiles| latency(quantiles.p50))),
        Cell::from(quantiles.map_or_else(dash, |quantiles| latency(quantiles.p99))),
        Cell::from(p99),
        Cell::from(breach.map_or_else(dash, |_| format!("{:.0} %", risk * 100.0)))
            .style(risk_style(risk)),
        Cell::from(
            breach
                .and_then(|breach| breach.eta.as_ref())
                .map_or_else(dash, time_to),
        ),
        Cell::from(format!("{:.2}", forecast.anomaly_score))
            .style(anomaly_style(forecast.anomaly_score)),
        Cell::from(format!("{:.0} %", sampled * 100.0)),
        Cell::from(because.unwrap_or_default()),
    ])
}

fn draw_routes(frame: &mut Frame<'_>, area: Rect, routes: &[RouteSummary]) {
    if routes.is_empty() {
        return;
    }
    let [_, area] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let header = Row::new(["SERVICE", "ROUTE", "RATE", "ERRORS", "P50", "P99"])
        .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let table = Table::new(
        routes.iter().take(ROUTES_MAX).map(route_row),
        [
            Constraint::Max(32),
            Constraint::Min(24),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(8),
        ],
    )
    .header(header);
    frame.render_widget(table, area);
}

fn route_row(route: &RouteSummary) -> Row<'_> {
    let of = |value: fn(&LatencyQuantiles) -> f64| {
        let quantiles = route.latency.as_ref();
        quantiles.map_or_else(|| "–".to_owned(), |quantiles| latency(value(quantiles)))
    };
    let style = match route.error_ratio {
        0.0 => Style::new(),
        ratio if ratio < 0.05 => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    };
    let name = match route.side() {
        Side::Client => format!("→ {}", route.route),
        _ => route.route.clone(),
    };
    Row::new([
        Cell::from(route.service.as_str()),
        Cell::from(name),
        Cell::from(rate(route.rate_per_sec)),
        Cell::from(share(route.error_ratio)).style(style),
        Cell::from(of(|quantiles| quantiles.p50)),
        Cell::from(of(|quantiles| quantiles.p99)),
    ])
}

fn risk_style(risk: f64) -> Style {
    match risk {
        r if r >= 0.8 => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        r if r >= 0.3 => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

fn anomaly_style(score: f64) -> Style {
    if score >= 1.0 {
        Style::new().fg(Color::Magenta)
    } else {
        Style::new()
    }
}

fn alert_lines(alerts: &[Alert]) -> Vec<Line<'_>> {
    if alerts.is_empty() {
        return vec![Line::from("no alerts  (q or Ctrl-C quits)")];
    }
    let style = |alert| {
        if is_firing(alert) {
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
        } else {
            Style::new().fg(Color::Green)
        }
    };
    alerts
        .iter()
        .take(ALERTS_MAX)
        .map(|alert| Line::styled(alert_line(alert), style(alert)))
        .collect()
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::view::tests::example;

    fn drawn(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(170, 12)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn row_shows_now_forecast_risk_and_reason() {
        let screen = Screen {
            forecasts: vec![example()],
            ..Default::default()
        };
        let text = drawn(&screen);
        for part in [
            "systemd/nginx.service",
            "12.3 k/s",
            "300 ms [100 ms, 1.10 s]",
            "83 %",
            "9 min",
            "runq ×31.0",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn empty_screen_says_what_it_waits_for() {
        assert!(drawn(&Screen::default()).contains("waiting for the first window"));
    }

    #[test]
    fn routes_are_beneath_the_series() {
        let of = crate::view::routes::tests::example();
        let screen = Screen {
            forecasts: vec![example()],
            routes: vec![of; ROUTES_MAX + 2],
            ..Default::default()
        };
        let text = drawn(&screen);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("GET /")).collect();
        // Twelve lines have room for three of the series and these.
        assert!((1..=ROUTES_MAX).contains(&lines.len()), "{text}");
        let words: Vec<_> = lines[0].trim_matches('"').split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "systemd/nginx.service GET /users/{id} 12.5/s 2.00 % 470 µs 12.0 ms"
        );
        assert!(text.contains("12.3 k/s"), "the series went\n{text}");
        assert!(text.contains("ROUTE"), "{text}");
    }

    #[test]
    fn riskiest_series_comes_first() {
        let calm = Forecast {
            breaches: Vec::new(),
            ..example()
        };
        let mut screen = Screen {
            forecasts: vec![calm, example()],
            ..Default::default()
        };
        screen.sort();
        assert_eq!(screen.forecasts[0].breaches.len(), 1);
    }
}
