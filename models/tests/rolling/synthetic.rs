//! Seeded series whose law is known.

use honeyguide_models::Window;

/// Windows in an hour at 10 s.
pub const HOUR: usize = 360;
/// A day.
pub const WINDOWS: usize = 24 * HOUR;
/// By how many windows the driver of [`Kind::Led`] leads.
pub const LEAD: usize = 12;

/// The laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hourly season, autoregressive noise, a lasting shift in the middle.
    Seasonal,
    /// Every five minutes a job makes latency jump for half a minute.
    PeriodicJob,
    /// Autoregressive: reverts to its mean over minutes.
    Reverting,
    /// A random walk under window noise.
    Wandering,
    /// Follows a driver after two minutes.
    Led,
    /// Independent, heavy-tailed windows.
    Heavy,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Seasonal,
        Kind::PeriodicJob,
        Kind::Reverting,
        Kind::Wandering,
        Kind::Led,
        Kind::Heavy,
    ];

    /// Season in windows, for the seasonal naive baseline.
    pub fn season(self) -> Option<usize> {
        match self {
            Kind::Seasonal => Some(HOUR),
            Kind::PeriodicJob => Some(30),
            _ => None,
        }
    }
}

/// SplitMix64 and Box–Muller.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A day of a series and of its driver, oldest first.
pub struct Pair {
    pub own: Vec<Window>,
    pub driver: Vec<Window>,
}

/// Draws a day; the same seed gives the same day.
pub fn generate(kind: Kind, seed: u64) -> Pair {
    let mut noise = Noise(seed.wrapping_mul(1000) + kind as u64);
    let mut driver = vec![0.0; WINDOWS + LEAD];
    for i in 1..driver.len() {
        driver[i] = 0.97 * driver[i - 1] + 0.15 * noise.normal();
    }
    let mut state = 0.0;
    let levels: Vec<f64> = (0..WINDOWS)
        .map(|i| {
            let phase = i as f64 / HOUR as f64 * std::f64::consts::TAU;
            let normal = noise.normal();
            match kind {
                Kind::Seasonal => {
                    state = 0.9 * state + 0.08 * normal;
                    let shift = if i >= WINDOWS / 2 { 0.8 } else { 0.0 };
                    0.6 * phase.sin() + 0.2 * (3.0 * phase).cos() + shift + state
                }
                Kind::PeriodicJob => 0.15 * normal + if i % 30 < 3 { 1.2 } else { 0.0 },
                Kind::Reverting => {
                    state = 0.95 * state + 0.1 * normal;
                    state + 0.1 * noise.normal()
                }
                Kind::Wandering => {
                    state += 0.02 * normal;
                    state + 0.15 * noise.normal()
                }
                // driver[i + LEAD] is what the driver shows at window i.
                Kind::Led => driver[i] + 0.1 * normal,
                Kind::Heavy => 0.15 * normal / noise.uniform().max(0.02).powf(0.3),
            }
        })
        .collect();
    let own = levels
        .iter()
        .map(|level| window(*level, &mut noise))
        .collect();
    let driver = driver[LEAD..]
        .iter()
        .map(|level| window(*level, &mut noise))
        .collect();
    Pair { own, driver }
}

/// Quantiles a window of that level would show, the tail noisier than the middle.
fn window(level: f64, noise: &mut Noise) -> Window {
    let base = 1e-3f64.ln() + level;
    let tails = [0.0, 0.02, 0.05, 0.1].map(|sd| sd * noise.normal());
    let y = [
        base + tails[0],
        base + 0.7 + tails[1],
        base + 1.4 + tails[2],
        base + 2.1 + tails[3],
        5.0 + 0.3 * level,
    ];
    Window {
        y: y.map(|v| v as f32),
        samples: 5000.0,
        completeness: 1.0,
    }
}
