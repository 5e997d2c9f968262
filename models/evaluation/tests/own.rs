//! Tables of one's own: what is read, what is told, what is refused; and evaluations
//! of a small made-up one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::PathBuf};

use honeyguide_evaluation::{
    breach::{self, Above},
    detect, forecast,
    own::{Own, Selection, Table, TimeUnit},
};

fn fixture() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/own/shop.csv"
    ))
}

fn of_columns(values: &[&str]) -> Selection {
    Selection {
        values: values.iter().map(|name| (*name).to_owned()).collect(),
        ..Selection::default()
    }
}

fn load(selection: &Selection) -> Vec<Own> {
    let table = Table::read_csv(&fixture(), selection).unwrap();
    table.series(selection).unwrap()
}

/// Reads a file of this content.
fn read(name: &str, text: &str, selection: &Selection) -> Result<Vec<Own>, String> {
    let folder = std::env::temp_dir().join(format!("own-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("x.csv");
    fs::write(&path, text).unwrap();
    let read = Table::read_csv(&path, selection).and_then(|table| table.series(selection));
    fs::remove_dir_all(folder).unwrap();
    read.map_err(|error| error.to_string())
}

fn one(name: &str, text: &str) -> Own {
    let mut all = read(name, text, &Selection::default()).unwrap();
    assert_eq!(all.len(), 1);
    all.swap_remove(0)
}

/// Equal, and missing where the other is.
fn same(a: &[f64], b: &[f64]) -> bool {
    let bits = |values: &[f64]| {
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    bits(a) == bits(b)
}

#[test]
fn what_is_not_clean_is_read_and_told_with_its_line() {
    let all = load(&of_columns(&["p99", "rate"]));
    let names: Vec<&str> = all.iter().map(|own| own.series.name.as_str()).collect();
    assert_eq!(names, ["shop/p99", "shop/rate"]);
    let own = &all[0];
    assert_eq!(own.step_secs, 60);
    assert_eq!(own.time(0), "2026-07-01 10:00:00");
    assert_eq!(own.series.values.len(), 1560);
    // The empty one, the infinite one, and the hour.
    let missing = own.series.values.iter().filter(|value| value.is_nan());
    assert_eq!(missing.count(), 62);
    let expected = [
        "line 202: no value (empty or NaN), taken as missing",
        "line 302: an infinite value, taken as missing",
        "line 503: earlier",
        "line 403: a time that another row has, too; their mean counts",
        "line 1002: a gap before it, 60 steps (3600 s), taken as missing",
    ];
    assert_eq!(own.notes.len(), expected.len(), "{:?}", own.notes);
    for (note, expected) in own.notes.iter().zip(expected) {
        assert!(note.starts_with(expected), "{note:?}, not {expected:?}");
    }
    // Of the row that is there twice the mean, and the late one is in its place.
    let rows = fs::read_to_string(fixture()).unwrap();
    let value = |line: usize| -> f64 {
        let row = rows.lines().nth(line - 1).unwrap();
        row.split(',').nth(1).unwrap().parse().unwrap()
    };
    assert_eq!(own.series.values[400], (value(402) + 0.1) / 2.0);
    assert_eq!(own.series.values[499], value(503));
    assert_eq!(own.series.values[500], value(502));
}

#[test]
fn rows_in_another_order_give_the_same_series() {
    let text = fs::read_to_string(fixture()).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let mut rows: Vec<&str> = rows.lines().collect();
    // 7 and the number of rows have no common divisor: each comes once.
    let count = rows.len();
    assert!(!count.is_multiple_of(7));
    rows = (0..count).map(|i| rows[i * 7 % count]).collect();
    let selection = of_columns(&["p99"]);
    let shuffled = format!("{header}\n{}\n", rows.join("\n"));
    let shuffled = read("shuffled", &shuffled, &selection).unwrap();
    let ordered = load(&selection);
    assert!(same(&shuffled[0].series.values, &ordered[0].series.values));
    let told = shuffled[0]
        .notes
        .iter()
        .any(|note| note.contains("sorted by time"));
    assert!(told, "{:?}", shuffled[0].notes);
}

#[test]
fn times_of_every_kind_give_the_same_series() {
    let second = |i: i64| 1_782_900_000 + 60 * i;
    let table = |time: &dyn Fn(i64) -> String| {
        let rows = (0..50).map(|i| format!("{},{}.5\n", time(i), i * i));
        format!("timestamp,value\n{}", rows.collect::<String>())
    };
    let text = |i: i64| {
        let (hour, minute) = (10 + i / 60, i % 60);
        format!("2026-07-01T{hour:02}:{minute:02}:00")
    };
    let seconds = one("seconds", &table(&|i| second(i).to_string()));
    assert_eq!(seconds.time(0), "2026-07-01 10:00:00");
    let kinds: [(&str, String, &str); 6] = [
        (
            "ms",
            table(&|i| format!("{}000", second(i))),
            "milliseconds",
        ),
        (
            "us",
            table(&|i| format!("{}000000", second(i))),
            "microseconds",
        ),
        (
            "ns",
            table(&|i| format!("{}000000000", second(i))),
            "nanoseconds",
        ),
        ("float", table(&|i| format!("{}.0", second(i))), "seconds"),
        ("utc", table(&|i| text(i) + "Z"), ""),
        ("local", table(&text), "no zone and are read as UTC"),
    ];
    for (name, table, note) in kinds {
        let own = one(name, &table);
        assert_eq!(own.series.values, seconds.series.values, "{name}");
        assert_eq!(
            (own.first_secs, own.step_secs),
            (seconds.first_secs, 60),
            "{name}"
        );
        assert_eq!(own.notes.is_empty(), note.is_empty(), "{name}");
        assert!(
            own.notes.iter().all(|told| told.contains(note)),
            "{:?}",
            own.notes
        );
    }
    let unit = Selection {
        unit: Some(TimeUnit::Milliseconds),
        ..Selection::default()
    };
    let small = "timestamp,value\n0,1\n60000,2\n120000,3\n";
    let small = read("unit", small, &unit).unwrap();
    assert_eq!(small[0].step_secs, 60);
    assert_eq!(small[0].series.values, [1.0, 2.0, 3.0]);
}

#[test]
fn steps_are_the_median_gap_or_what_is_asked_for() {
    // Scrapes that come a little early or late are still one a step.
    let times = [0, 15, 29, 46, 60, 76, 90];
    let rows: Vec<String> = times
        .iter()
        .map(|time| format!("{time},{time}\n"))
        .collect();
    let text = format!("ts,value\n{}", rows.concat());
    let own = one("jitter", &text);
    assert_eq!(own.step_secs, 15);
    assert_eq!(own.series.values, times.map(f64::from));
    let minutes = Selection {
        step_secs: Some(60),
        ..Selection::default()
    };
    let own = read("minutes", &text, &minutes).unwrap();
    assert_eq!(own[0].series.values, [22.5, 226.0 / 3.0]);
    assert!(
        own[0].notes[1].contains("rows are 15 s apart"),
        "{:?}",
        own[0].notes
    );
}

#[test]
fn several_series_of_a_table_are_told_apart_and_never_averaged() {
    let row = |i: i64| {
        let of = |name: &str, value: i64| format!("{},{name},{value}\n", 60 * i);
        of("shop", i) + &of("cart", 2 * i) + &of("mail", 3 * i)
    };
    let text = (0..20).map(row).collect::<String>();
    let text = format!("time,service,value\n{text}");
    let error = read("several", &text, &Selection::default()).unwrap_err();
    let expected = "line 3: the time of another row, as have 40 of 60 rows";
    assert!(
        error.contains(expected) && error.contains("--by"),
        "{error}"
    );
    let by = Selection {
        by: vec!["service".to_owned()],
        ..Selection::default()
    };
    let text = text + "1200,once,7\n";
    let mut all = read("by", &text, &by).unwrap();
    let once = all.remove(2);
    assert_eq!((once.series.name.as_str(), once.step_secs), ("x: once", 60));
    assert_eq!(once.series.values, [7.0]);
    let names: Vec<&str> = all.iter().map(|own| own.series.name.as_str()).collect();
    assert_eq!(names, ["x: cart", "x: mail", "x: shop"]);
    let expected: Vec<f64> = (0..20).map(|i| 2.0 * f64::from(i)).collect();
    assert_eq!(all[0].series.values, expected);
    assert_eq!(all[0].step_secs, 60);
}

#[test]
fn what_cannot_be_understood_is_refused_with_file_and_line() {
    let fails = |name: &str, text: &str, selection: &Selection, expected: &[&str]| {
        let error = read(name, text, selection).unwrap_err();
        for expected in expected {
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        }
    };
    let all = Selection::default();
    let cases: [(&str, &str, &[&str]); 12] = [
        ("empty", "", &["x.csv has no column \"timestamp\""]),
        (
            "header",
            "1,2\n3,4\n",
            &["no column \"timestamp\" but 1, 2", "--time-column"],
        ),
        (
            "value",
            "ts,a,b\n1,2,3\n",
            &["no column \"value\" but ts, a, b", "--value-column"],
        ),
        ("rows", "timestamp,value\n", &["has no rows"]),
        (
            "once",
            "timestamp,value\n5,1\n5,2\n",
            &["one time only", "--step"],
        ),
        (
            "time",
            "timestamp,value\n1,1\nsoon,2\n",
            &["x.csv, line 3", "\"soon\"", "RFC 3339"],
        ),
        (
            "no-time",
            "timestamp,value\n1,1\n,2\n",
            &["line 3", "no time"],
        ),
        (
            "number",
            "timestamp,value\n1,1\n2,\"1,5\"\n",
            &["line 3", "value \"1,5\" is no number"],
        ),
        (
            "kinds",
            "timestamp,value\n1782900000,1\n1782900060000,2\n",
            &["line 3", "milliseconds", "the times before are seconds"],
        ),
        (
            "zones",
            "timestamp,value\n2026-07-01T10:00:00Z,1\n2026-07-01T10:01:00,2\n",
            &["line 3", "times without a zone"],
        ),
        (
            "far",
            "timestamp,value\n0,1\n1,2\n2,3\n9000000000,4\n",
            &["line 5", "9000000000 steps of 1 s", "--step"],
        ),
        ("ragged", "timestamp,value\n1,1\n2\n", &["x.csv as CSV"]),
    ];
    for (name, text, expected) in cases {
        fails(name, text, &all, expected);
    }
    let named = of_columns(&["p99"]);
    let text = "timestamp,value\n1,1\n2,2\n";
    fails(
        "named",
        text,
        &named,
        &["no column \"p99\" but timestamp, value"],
    );
    let label = Selection {
        label: Some("wrong".to_owned()),
        ..Selection::default()
    };
    let text = "timestamp,value,wrong\n1,1,0\n2,2,perhaps\n";
    fails(
        "label",
        text,
        &label,
        &["line 3", "wrong \"perhaps\" is no label"],
    );
    let missing = Table::read_csv(&PathBuf::from("/nowhere/x.csv"), &all).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/x.csv"));
}

#[test]
fn forecasts_beat_the_naive_one_and_are_drawn() {
    let all = load(&of_columns(&["p99", "rate"]));
    let outcome = forecast::evaluate_own(&all, |_| {});
    println!("{}", outcome.markdown);
    let of = |key: &str| outcome.metrics[key];
    assert!(of("own_crps_rel") < 0.9, "{}", of("own_crps_rel"));
    assert!(
        (0.9..0.99).contains(&of("own_coverage95")),
        "{}",
        of("own_coverage95")
    );
    for expected in [
        "shop/rate/short | honeyguide | 4 |",
        "shop/rate/medium | seasonal naive | 1 |",
        "shop/p99, long: 720 steps ahead need 1440 values",
        "line 1002: a gap before it",
    ] {
        let there = outcome.markdown.contains(expected);
        assert_eq!(there, !expected.contains("1440"), "{expected}");
    }
    let names: Vec<&str> = outcome
        .plots
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(names.contains(&"forecast-own-shop-rate-short"), "{names:?}");
    assert!(names.contains(&"forecast-own-crps-by-lead"), "{names:?}");
    for (name, svg) in &outcome.plots {
        assert!(svg.len() < 150_000, "{name} has {} bytes", svg.len());
    }
    let (_, fan) = &outcome.plots[0];
    for element in [
        "measured",
        "median",
        "2.5–97.5 %",
        "time from the origin in",
        "<polygon",
    ] {
        assert!(fan.contains(element), "{element}");
    }
    assert_eq!(outcome, forecast::evaluate_own(&all, |_| {}));
}

#[test]
fn what_is_too_short_is_told_and_not_evaluated() {
    let rows: String = (0..60).map(|i| format!("{},{}\n", 60 * i, i % 7)).collect();
    let short = [one("short", &format!("timestamp,value\n{rows}"))];
    let outcome = forecast::evaluate_own(&short, |_| {});
    let expected = "x, short: 48 steps ahead need 96 values, there are 60";
    assert!(outcome.markdown.contains(expected), "{}", outcome.markdown);
    assert!(!outcome.metrics.contains_key("own_crps_rel"));
    let detected = detect::evaluate_own(&short, |_| {});
    let expected = "nothing is said of the first 100 values, and there are 60";
    assert!(
        detected.markdown.contains(expected),
        "{}",
        detected.markdown
    );
}

#[test]
fn series_that_stand_still_or_are_missing_give_no_nonsense() {
    let days = |value: &str| {
        let rows = (0..400).map(|i| format!("{},{value}\n", 60 * i));
        format!("timestamp,value\n{}", rows.collect::<String>())
    };
    let all = [one("still", &days("5")), one("nothing", &days(""))];
    for outcome in [
        forecast::evaluate_own(&all, |_| {}),
        detect::evaluate_own(&all, |_| {}),
        breach::evaluate_own(&all, &[], |_| {}),
    ] {
        let mut rows = outcome
            .markdown
            .lines()
            .filter(|line| line.starts_with('|'));
        let nonsense = rows.find(|row| row.contains("NaN") || row.contains("inf"));
        assert_eq!(nonsense, None);
        assert!(outcome.metrics.values().all(|value| value.is_finite()));
    }
}

#[test]
fn spikes_are_found_and_drawn() {
    let selection = Selection {
        label: Some("wrong".to_owned()),
        ..of_columns(&["p99"])
    };
    let all = load(&selection);
    let outcome = detect::evaluate_own(&all, |_| {});
    println!("{}", outcome.markdown);
    // The rest after an alert hides none of them: 200 values lie between.
    assert!(outcome.metrics["own_recall"] >= 0.6);
    for expected in ["| Honeyguide |", "| random |", "events", "VUS-PR"] {
        assert!(outcome.markdown.contains(expected), "{expected}");
    }
    let (name, svg) = &outcome.plots[0];
    assert_eq!(name, "detect-own-shop");
    for element in [
        "labelled",
        "alert",
        "threshold",
        "<circle",
        "anomaly scores",
    ] {
        assert!(svg.contains(element), "{element}");
    }
}

#[test]
fn breaches_of_given_and_of_usual_levels_are_judged() {
    let all = load(&of_columns(&["p99"]));
    let above = [Above {
        series: Some("shop".to_owned()),
        threshold: 0.3,
    }];
    let given = breach::evaluate_own(&all, &above, |_| {});
    println!("{}", given.markdown);
    assert!(given.markdown.contains("| shop | 0.3 | --above |"));
    assert!(given.metrics["own_ece_15m"] < 0.2);
    let usual = breach::evaluate_own(&all, &[], |_| {});
    assert!(usual.markdown.contains("95 % of the first third"));
    let (name, svg) = &usual.plots[0];
    assert_eq!(name, "breach-own-reliability");
    for element in ["as said", "probability said", "logarithmic", "<circle"] {
        assert!(svg.contains(element), "{element}");
    }
    let mut negative = all;
    negative[0].series.values[7] = -1.0;
    let refused = breach::evaluate_own(&negative, &[], |_| {});
    assert!(refused.markdown.contains("values below 0 (-1)"));
    negative[0].series.values[7] = 1.0;
    negative[0].step_secs = 3600;
    let refused = breach::evaluate_own(&negative, &[], |_| {});
    assert!(refused.markdown.contains("a step of 3600 s is too long"));
}
