//! Follows a service for six hours, then says what it expects, how sure it is,
//! and what would break an objective. `cargo run -p honeyguide-models --example forecast`

use honeyguide_models::breach::{Objective, Paths, breach};
use honeyguide_models::{
    HORIZON_SECS, Params, ParamsError, SeriesInput, SeriesModel, Target, Window,
};

/// Six hours of 10 s windows whose latency swings with the hour.
fn history() -> Vec<Window> {
    let mut state = 1u64;
    (0..2160)
        .map(|i| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let noise = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let season = (i as f32 / 360.0 * std::f32::consts::TAU).sin();
            let p50 = 2e-3f32.ln() + 0.5 * season + 0.3 * noise;
            Window {
                y: [
                    p50,
                    p50 + 0.7,
                    p50 + 1.5,
                    p50 + 2.2,
                    200f32.ln_1p() + 0.3 * season,
                ],
                samples: 2000.0,
                completeness: 1.0,
            }
        })
        .collect()
}

fn main() -> Result<(), ParamsError> {
    let params = Params::default().validate()?;
    let (history, mut model) = (history(), SeriesModel::new());
    let mut forecast = None;
    for i in 0..history.len() {
        let input = SeriesInput {
            step: 177_000_000 + i as u64,
            own: &history[..=i],
            drivers: &[],
        };
        forecast = Some(model.refresh(&params, input));
        if model.refit_due(&params) {
            model.refit(&params, input);
        }
    }
    let Some(forecast) = forecast else {
        return Ok(());
    };

    println!("p99 in    forecast    80 %                95 %");
    for (h, secs) in HORIZON_SECS.iter().enumerate() {
        if let Some(p) = forecast.point(h, Target::P99) {
            let [yhat, l80, u80, l95, u95] =
                [p.yhat, p.lower_80, p.upper_80, p.lower_95, p.upper_95].map(|s| s * 1e3);
            let minutes = secs / 60;
            println!(
                "{minutes:>3} min  {yhat:>6.2} ms   [{l80:>5.2}, {u80:>6.2}] ms  [{l95:>5.2}, {u95:>6.2}] ms"
            );
        }
    }
    let paths = Paths::new(&params);
    for threshold in [0.010, 0.015, 0.020, 0.030] {
        let objective = Objective {
            target: Target::P99,
            threshold,
            horizon_secs: 1800,
            windows: 1,
            budget_events: None,
        };
        if let Ok(objective) = objective.validate() {
            let risk = breach(&forecast, &objective, &paths, 0);
            let eta = risk
                .eta
                .map_or("-".into(), |eta| format!("{:.0} min", eta.secs / 60.0));
            println!(
                "P(p99 > {threshold} s within 30 min) = {:.2}, ETA {eta}",
                risk.probability
            );
        }
    }
    println!(
        "anomaly score {:.2}; {} bytes of model",
        forecast.anomaly_score,
        model.bytes()
    );
    Ok(())
}
