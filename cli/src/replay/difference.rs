//! Which alerts differ between two runs. Pure.

use std::collections::BTreeMap;

use honeyguide_analyzer::judge::nanoseconds;
use honeyguide_proto::v1::Alert;
use serde_json::{Value, json};

use crate::view;

/// An alert from when it fired until it resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    fired_ns: u64,
    /// `None`: it still fired at the end.
    resolved_ns: Option<u64>,
    /// As told last.
    alert: Box<Alert>,
}

impl Episode {
    fn overlaps(&self, other: &Episode) -> bool {
        let end = |episode: &Episode| episode.resolved_ns.unwrap_or(u64::MAX);
        self.fired_ns < end(other) && other.fired_ns < end(self)
    }

    fn times(&self) -> String {
        let until = self
            .resolved_ns
            .map_or("the end".to_owned(), |ns| time(ns).to_string());
        format!("{} to {until}", time(self.fired_ns))
    }
}

fn time(ns: u64) -> humantime::Rfc3339Timestamp {
    let since_epoch = std::time::Duration::from_nanos(ns);
    humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + since_epoch)
}

/// What one run alerted, by id and time.
#[derive(Clone, Debug, Default)]
pub struct Episodes(BTreeMap<(String, u64), Episode>);

impl Episodes {
    /// Takes an alert that fired or resolved; the same again changes nothing.
    pub fn add(&mut self, alert: &Alert) {
        let fired_ns = alert.fired_at.as_ref().map_or(0, nanoseconds);
        let resolved_ns = alert.resolved_at.as_ref().map(nanoseconds);
        let key = (alert.id.clone(), fired_ns);
        let episode = self.0.entry(key).or_insert_with(|| Episode {
            fired_ns,
            resolved_ns: None,
            alert: Box::new(alert.clone()),
        });
        if resolved_ns.is_some() {
            episode.resolved_ns = resolved_ns;
            *episode.alert = alert.clone();
        }
    }

    /// Forgets what began before `ns`: a run that begins later cannot know when.
    pub fn forget_before(&mut self, ns: u64) {
        self.0.retain(|(_, fired_ns), _| *fired_ns >= ns);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Something that is in one run and not, or otherwise, in the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Only the first alerted.
    OnlyFirst(Episode),
    /// Only the second alerted.
    OnlySecond(Episode),
    /// Both did, at different times.
    Times(Episode, Episode),
}

impl Difference {
    fn sort_key(&self) -> (u64, &str) {
        let (Difference::OnlyFirst(one) | Difference::OnlySecond(one) | Difference::Times(one, _)) =
            self;
        (one.fired_ns, &one.alert.id)
    }

    /// A line for people; `names` are those of the runs.
    pub fn line(&self, names: [&str; 2]) -> String {
        let only = |name: &str, episode: &Episode| {
            let times = episode.times();
            format!("only {name}  {times}  {}", episode.alert.summary)
        };
        match self {
            Difference::OnlyFirst(episode) => only(names[0], episode),
            Difference::OnlySecond(episode) => only(names[1], episode),
            Difference::Times(first, second) => format!(
                "other times  {} {}, {} {}  {}",
                names[0],
                first.times(),
                names[1],
                second.times(),
                second.alert.summary
            ),
        }
    }

    /// The same for scripts.
    pub fn json(&self, names: [&str; 2]) -> Value {
        let (kind, first, second) = match self {
            Difference::OnlyFirst(episode) => (format!("only_{}", names[0]), Some(episode), None),
            Difference::OnlySecond(episode) => (format!("only_{}", names[1]), None, Some(episode)),
            Difference::Times(first, second) => {
                ("other_times".to_owned(), Some(first), Some(second))
            }
        };
        let alert =
            |episode: Option<&Episode>| episode.map(|episode| view::json::alert(&episode.alert));
        let id = first.or(second).map(|episode| &episode.alert.id);
        json!({
            "difference": kind,
            "id": id,
            names[0]: alert(first),
            names[1]: alert(second),
        })
    }
}

/// Compares two runs; what differs, by time.
pub fn differences(first: &Episodes, second: &Episodes) -> Vec<Difference> {
    let mut differences = Vec::new();
    let without_equal = |of: &Episodes, other: &Episodes| {
        let unequal = of.0.iter().filter(|(key, episode)| {
            let same = other.0.get(*key);
            same.is_none_or(|same| same.resolved_ns != episode.resolved_ns)
        });
        let unequal: Vec<Episode> = unequal.map(|(_, episode)| episode.clone()).collect();
        unequal
    };
    let mut rest = without_equal(second, first);
    for episode in without_equal(first, second) {
        let same = rest
            .iter()
            .position(|other| other.alert.id == episode.alert.id && other.overlaps(&episode));
        differences.push(match same {
            Some(index) => Difference::Times(episode, rest.remove(index)),
            None => Difference::OnlyFirst(episode),
        });
    }
    differences.extend(rest.into_iter().map(Difference::OnlySecond));
    differences.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
    differences
}

#[cfg(test)]
mod tests {
    use honeyguide_analyzer::judge::timestamp;

    use super::*;

    /// `id fired resolved` in seconds; `-` for not resolved.
    fn episodes(all: &[(&str, u64, Option<u64>)]) -> Episodes {
        let mut episodes = Episodes::default();
        for (id, fired, resolved) in all {
            let mut alert = Alert {
                id: (*id).to_owned(),
                fired_at: Some(timestamp(fired * 1_000_000_000)),
                ..Alert::default()
            };
            episodes.add(&alert);
            alert.resolved_at = resolved.map(|at| timestamp(at * 1_000_000_000));
            episodes.add(&alert);
        }
        episodes
    }

    #[test]
    fn equal_runs_do_not_differ_however_often_they_tell() {
        let mut first = episodes(&[("a", 1, Some(5)), ("a", 9, None), ("b", 2, Some(3))]);
        let second = first.clone();
        for episode in second.0.values() {
            first.add(&episode.alert);
        }
        assert_eq!(differences(&first, &second), []);
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let first = episodes(&[("a", 10, Some(50)), ("b", 5, Some(9)), ("c", 1, None)]);
        let second = episodes(&[("a", 20, Some(50)), ("b", 20, Some(30)), ("c", 1, Some(4))]);
        let lines: Vec<String> = differences(&first, &second)
            .iter()
            .map(|difference| {
                let json = difference.json(["first", "second"]);
                format!("{} {}", json["id"].as_str().unwrap(), json["difference"])
            })
            .collect();
        let expected = [
            r#"c "other_times""#,
            r#"b "only_first""#,
            r#"a "other_times""#,
            r#"b "only_second""#,
        ];
        assert_eq!(lines, expected);
        let mut later = first;
        later.forget_before(5_000_000_000);
        assert_eq!(later.len(), 2);
    }
}
