//! Correlation of two aligned series at a lead, over the pairs both observed.

/// Running sums of pairs, centred on the first one against cancellation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    origin: Option<(f64, f64)>,
    pairs: usize,
    x: f64,
    y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

impl Sums {
    /// Adds a pair of finite numbers.
    #[inline]
    pub(crate) fn add(&mut self, x: f64, y: f64) {
        let (x0, y0) = *self.origin.get_or_insert((x, y));
        let (x, y) = (x - x0, y - y0);
        self.pairs += 1;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.yy += y * y;
        self.xy += x * y;
    }

    pub(crate) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Pearson's r; 0 where either side is constant.
    pub(crate) fn correlation(&self) -> f64 {
        let (xx, yy, xy) = self.centred();
        let product = xx * yy;
        if product > 0.0 {
            (xy / product.sqrt()).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    }

    /// Least-squares slope of y on x; 0 where x is constant.
    pub(crate) fn slope(&self) -> f64 {
        let (xx, _, xy) = self.centred();
        if xx > 0.0 { xy / xx } else { 0.0 }
    }

    /// Centred sums; what rounding could have made counts as 0.
    fn centred(&self) -> (f64, f64, f64) {
        let n = self.pairs.max(1) as f64;
        let clean = |square: f64, sum: f64| {
            let centred = square - sum * sum / n;
            if centred > 1e-9 * n { centred } else { 0.0 }
        };
        (
            clean(self.xx, self.x),
            clean(self.yy, self.y),
            self.xy - self.x * self.y / n,
        )
    }
}

/// Sums over (`cause[i]`, `effect[i + lead]`) where both are numbers. Both are
/// oldest first and end at the same window.
pub(crate) fn lagged(cause: &[f64], effect: &[f64], lead: usize) -> Sums {
    let mut sums = Sums::default();
    let effect = effect.get(lead..).unwrap_or(&[]);
    for (x, y) in cause.iter().zip(effect) {
        if x.is_finite() && y.is_finite() {
            sums.add(*x, *y);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_and_slope_are_pearson_and_least_squares() {
        // By hand: Sxx = 21, Syy = 17, Sxy = 17.
        let sums = lagged(&[1.0, 2.0, 4.0, 7.0], &[2.0, 1.0, 5.0, 6.0], 0);
        assert!((sums.correlation() - 0.899_735_411).abs() < 1e-8);
        assert!((sums.slope() - 17.0 / 21.0).abs() < 1e-12);
    }

    #[test]
    fn a_lead_shifts_the_effect() {
        let cause: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17)).collect();
        let mut effect = vec![f64::NAN; 3];
        effect.extend(&cause[..47]);
        assert!((lagged(&cause, &effect, 3).correlation() - 1.0).abs() < 1e-9);
        assert!(lagged(&cause, &effect, 0).correlation() < 0.9);
        assert_eq!(lagged(&cause, &effect, 99).pairs(), 0);
    }

    #[test]
    fn constants_correlate_with_nothing() {
        let sums = lagged(&[1.0; 9], &[2.0; 9], 0);
        assert_eq!((sums.correlation(), sums.slope()), (0.0, 0.0));
    }
}
