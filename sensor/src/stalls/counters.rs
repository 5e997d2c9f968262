//! What is in the files. Pure.

/// A file holds what it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file does not hold what it should")]
pub struct Malformed;

/// Since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Periods in which the quota was used up.
    pub periods: u64,
    /// For how long tasks were kept from running then, in nanoseconds, the sum over
    /// CPUs.
    pub time_ns: u64,
}

/// For how long at least one task was stalled, in microseconds, in a file of PSI.
///
/// # Errors
/// [`Malformed`] where it does not say.
pub fn some_total_us(text: &[u8]) -> Result<u64, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    let mut lines = text.lines();
    let some = lines.find_map(|line| line.strip_prefix("some "));
    let mut fields = some.ok_or(Malformed)?.split(' ');
    let total = fields.find_map(|field| field.strip_prefix("total="));
    number(total.ok_or(Malformed)?)
}

/// What `cpu.stat` says of the quota; nothing where the group has no cpu
/// controller.
///
/// # Errors
/// [`Malformed`] where half of it is missing, or is no number.
pub fn throttled(text: &[u8]) -> Result<Option<Throttled>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    let (mut periods, mut time_ns) = (None, None);
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        match name {
            "nr_throttled" => periods = Some(number(value)?),
            // Version 1.
            "throttled_time" => time_ns = Some(number(value)?),
            // Version 2.
            "throttled_usec" => {
                time_ns = Some(number(value)?.checked_mul(1000).ok_or(Malformed)?);
            }
            _ => {}
        }
    }
    match (periods, time_ns) {
        (None, None) => Ok(None),
        (Some(periods), Some(time_ns)) => Ok(Some(Throttled { periods, time_ns })),
        _ => Err(Malformed),
    }
}

fn number(text: &str) -> Result<u64, Malformed> {
    text.trim().parse().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_of_any_task_is_read() {
        let text = b"some avg10=38.42 avg60=65.78 avg300=42.93 total=30679762209\n\
                     full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some_total_us(text), Ok(30_679_762_209));
        for text in [
            "",
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            "some avg10=0.00 avg60=0.00 avg300=0.00\n",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=\n",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=-1\n",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=18446744073709551616\n",
        ] {
            assert_eq!(some_total_us(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn quotas_of_both_versions_are_read() {
        let throttled_by = |periods, time_ns| Ok(Some(Throttled { periods, time_ns }));
        let v1 = b"nr_periods 30\nnr_throttled 11\nthrottled_time 900012345\nnr_bursts 0\n";
        assert_eq!(throttled(v1), throttled_by(11, 900_012_345));
        let v2 =
            b"usage_usec 9\nuser_usec 5\nnr_periods 30\nnr_throttled 11\nthrottled_usec 900012\n";
        assert_eq!(throttled(v2), throttled_by(11, 900_012_000));
        assert_eq!(throttled(b"usage_usec 9\nuser_usec 5\n"), Ok(None));
        assert_eq!(throttled(b""), Ok(None));
        for text in [
            "nr_throttled 11\n",
            "throttled_time 11\n",
            "nr_throttled x\nthrottled_time 1\n",
            "nr_throttled 1\nthrottled_usec 18446744073709551615\n",
        ] {
            assert_eq!(throttled(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text: Vec<u8>) {
            let _ = some_total_us(&text);
            let _ = throttled(&text);
        }
    }
}
