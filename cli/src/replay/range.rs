//! What the user says is to be replayed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use honeyguide_bus::range::{Bound, Range};

const EXPECTED: &str = "expected a time (2026-07-01T10:00:00Z), a time ago (2h), an offset \
                        (1200) or offsets of partitions (0:1200,3:900)";

/// Which records, from where.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The recording; `None`: the topic on Kafka.
    pub file: Option<PathBuf>,
    /// Which records are read.
    pub range: Range,
    /// What came before this only makes the history; nanoseconds.
    pub shown_from_ns: u64,
    /// When the range ends, if that is a time; nanoseconds.
    pub to_ns: Option<u64>,
}

impl Selection {
    /// Understands FILE, `--from`, `--to` and `--warm-up` at the time `now`.
    pub fn parse(
        file: Option<&Path>,
        from: Option<&str>,
        to: Option<&str>,
        warm_up: Duration,
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        let (file, from) = match (file, from) {
            (None, Some(from)) if is_file(from) => (Some(PathBuf::from(from)), None),
            (file, from) => (file.map(Path::to_owned), from),
        };
        let parse = |option: &str, text: Option<&str>| {
            let bound = text.map(|text| bound(text, now));
            bound.transpose().with_context(|| option.to_owned())
        };
        let mut from = parse("--from", from)?;
        let to = parse("--to", to)?;
        if let (Some(from), Some(to)) = (&from, &to) {
            ensure!(is_before(from, to), "--from is not before --to");
        }
        ensure!(
            file.is_some() || from.is_some(),
            "nothing to replay: give a recording, or --from for what is on Kafka"
        );
        let mut shown_from_ns = 0;
        if let Some(Bound::Time(ns)) = &mut from {
            shown_from_ns = *ns;
            *ns = ns.saturating_sub(nanoseconds(warm_up));
        }
        let to_ns = match &to {
            Some(Bound::Time(ns)) => Some(*ns),
            _ => None,
        };
        Ok(Self {
            file,
            range: Range { from, to },
            shown_from_ns,
            to_ns,
        })
    }
}

/// What cannot be meant otherwise is a file, there or not.
fn is_file(text: &str) -> bool {
    Path::new(text).is_file() || text.contains('/') || text.ends_with(".hgr")
}

fn bound(text: &str, now: SystemTime) -> anyhow::Result<Bound> {
    if let Ok(offset) = text.parse() {
        return Ok(Bound::Offset(offset));
    }
    if let Some(offsets) = offsets(text) {
        return Ok(Bound::Offsets(offsets));
    }
    let ago = || now.checked_sub(humantime::parse_duration(text).ok()?);
    let time = humantime::parse_rfc3339_weak(text).ok().or_else(ago);
    let time = time.with_context(|| format!("{text:?}: {EXPECTED}"))?;
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    Ok(Bound::Time(since_epoch.map_or(0, nanoseconds)))
}

/// `0:1200,3:900`.
fn offsets(text: &str) -> Option<BTreeMap<u32, u64>> {
    let pairs = text.split(',').map(|pair| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?))
    });
    pairs.collect()
}

/// Whether a range between them can hold anything, as far as one can tell.
fn is_before(from: &Bound, to: &Bound) -> bool {
    match (from, to) {
        (Bound::Time(from), Bound::Time(to)) => from < to,
        (Bound::Offset(from), Bound::Offset(to)) => from < to,
        (Bound::Offset(from), Bound::Offsets(to)) => to.values().all(|to| from < to),
        (Bound::Offsets(from), Bound::Offset(to)) => from.values().all(|from| from < to),
        (Bound::Offsets(from), Bound::Offsets(to)) => from
            .iter()
            .all(|(partition, from)| to.get(partition).is_none_or(|to| from < to)),
        _ => true,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_SECS: u64 = 1_800_000_000;
    const SECOND: u64 = 1_000_000_000;

    fn parse(file: Option<&str>, from: &str, to: Option<&str>) -> anyhow::Result<Selection> {
        Selection::parse(
            file.map(Path::new),
            Some(from),
            to,
            Duration::from_secs(3600),
            SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECS),
        )
    }

    #[test]
    fn times_offsets_and_files_are_told_apart() {
        let hour = 3600 * SECOND;
        let ago = parse(None, "2h", Some("1h 30m")).unwrap();
        assert_eq!(ago.shown_from_ns, NOW_SECS * SECOND - 2 * hour);
        let warm = Bound::Time(NOW_SECS * SECOND - 3 * hour);
        assert_eq!(ago.range.from, Some(warm));
        assert_eq!(ago.to_ns, Some(NOW_SECS * SECOND - 3 * hour / 2));
        let at = parse(Some("a.hgr"), "2027-01-15T08:00:00Z", None).unwrap();
        assert_eq!(at.shown_from_ns, NOW_SECS * SECOND);
        let all = parse(None, "17", Some("20")).unwrap();
        assert_eq!(all.range.from, Some(Bound::Offset(17)));
        assert_eq!((all.shown_from_ns, all.to_ns), (0, None));
        let some = parse(None, "0:5,3:7", None).unwrap();
        let expected = BTreeMap::from([(0, 5), (3, 7)]);
        assert_eq!(some.range.from, Some(Bound::Offsets(expected)));
        let file = parse(None, "incident.hgr", None).unwrap();
        assert_eq!(file.file, Some("incident.hgr".into()));
        assert_eq!(file.range, Range::default());
    }

    #[test]
    fn what_cannot_be_is_an_error_that_says_what_can() {
        let error = parse(None, "yesterday", None).unwrap_err();
        assert!(format!("{error:#}").contains("--from"), "{error:#}");
        assert!(format!("{error:#}").contains("2h"), "{error:#}");
        for (from, to) in [("1h", "2h"), ("7", "7"), ("0:9", "0:8"), ("0:9", "5")] {
            let error = parse(None, from, Some(to)).unwrap_err().to_string();
            assert!(error.contains("--from is not before --to"), "{error}");
        }
        let nothing = Selection::parse(None, None, None, Duration::ZERO, SystemTime::UNIX_EPOCH);
        let error = nothing.unwrap_err().to_string();
        assert!(error.contains("give a recording"), "{error}");
    }
}
