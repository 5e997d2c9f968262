//! Seeded noise and series for unit tests.

/// SplitMix64 (Steele, Lea, Flood 2014) and Box–Muller.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Noise(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A complete, well-sampled window whose p50 is e^`level` ms, with p90, p99 and
/// p99.9 0.7, 1.4 and 2.1 above, and whose rate follows the level.
pub fn window_of(level: f64) -> crate::Window {
    let base = 1e-3f64.ln() + level;
    crate::Window {
        y: [base, base + 0.7, base + 1.4, base + 2.1, 5.0 + level].map(|v| v as f32),
        samples: 20_000.0,
        completeness: 1.0,
    }
}
