//! Hints and the cost ceiling with real kernel events. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

#[allow(dead_code, reason = "the bench uses the rest")]
mod hinted;

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData, loaded_maps};
use honeyguide_proto::{Hint, ServiceId, hint::Scope};
use honeyguide_sensor::{Config, hints::Outcome, metrics::ProbeLabels, program::probe::Probe};
use sensor_common::{
    Signal,
    record::{GlobalConfig, SERVICES_MAX, Service},
};

use hinted::{
    Running, Storm, config, executable, ratios, series_of, since_epoch, weather, write_bytes,
};

#[tokio::test(flavor = "multi_thread")]
async fn counts_scaled_by_the_ratio_agree_with_the_truth_at_every_ratio() {
    let _storm = STORM.lock().await;
    // Of 3, one run in sixty of a sampling that is right would have more.
    const SIGMAS_MAX: f64 = 4.0;
    for ratio in ratios().await {
        println!("{ratio:?}: {:.2} sigma", ratio.sigmas());
        let of_hint = ratio.samples << ratio.shift;
        assert_eq!(
            of_hint, ratio.count,
            "one ratio, that of the hint: {ratio:?}"
        );
        assert!(ratio.sigmas() <= SIGMAS_MAX, "{ratio:?}");
    }
}

/// The configuration in the kernel of the sensor that samples reclaims at
/// `marker`, read by the maps' ids as any other process would.
fn kernel_maps(marker: u8) -> Option<(Array<MapData, GlobalConfig>, Array<MapData, Service>)> {
    let named = |name: &str| {
        let maps = loaded_maps().filter_map(Result::ok);
        let named = maps.filter(|map| map.name() == name.as_bytes());
        named.map(|map| map.id()).collect::<Vec<u32>>()
    };
    // The maps of one sensor are made one after the other.
    let array = |id| MapData::from_id(id).map(Map::Array).ok();
    for id in named("CONFIG") {
        let Some(config) = array(id).and_then(|map| Array::<_, GlobalConfig>::try_from(map).ok())
        else {
            continue;
        };
        let Ok(values) = config.get(&0, 0) else {
            continue;
        };
        if values.default[usize::from(Signal::Reclaim.number())] != marker {
            continue;
        }
        let nearest = named("SERVICES")
            .into_iter()
            .min_by_key(|services| services.abs_diff(id))?;
        let services = array(nearest).and_then(|map| Array::try_from(map).ok())?;
        return Some((config, services));
    }
    None
}

/// One test at a time: a storm is one for every sensor, and hints run out.
static STORM: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(15), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_changes_the_kernel_map_and_expires_back() {
    let _storm = STORM.lock().await;
    const MARKER: u8 = 11;
    const RUNQ: usize = Signal::RunQueue.number() as usize;
    let directory = tempfile::tempdir().unwrap();
    let shell = executable(&directory, "/bin/sh", "hg-hinted-sh");
    let mut command = Command::new(&shell);
    command.args(["-c", "while :; do sleep 0.02; done"]);
    let _working = Ended(command.spawn().unwrap());
    let mut running = Running::start(Config {
        cost_ceiling: 1.0,
        sampling_shift: [("reclaim".to_owned(), MARKER)].into(),
        ..config(vec![Probe::Runq, Probe::Reclaim])
    });
    let (global, services) = kernel_maps(MARKER).unwrap();
    let first_stage = || global.get(&0, 0).unwrap().first_stage[RUNQ];
    let default = || global.get(&0, 0).unwrap().default[RUNQ];
    let of_shell = || {
        let mut all = (2..SERVICES_MAX).map(|index| services.get(&index, 0).unwrap());
        let ours = all.find(|service| service.key.comm.starts_with(b"hg-hinted-sh"));
        ours.map(|service| service.config[RUNQ])
    };
    until("the shell has a service", || of_shell() == Some(0)).await;
    assert_eq!((first_stage(), default()), (0, 0));

    let own = Scope {
        service: Some(ServiceId::parse("process/hg-hinted-sh").unwrap()),
        signal: Some(Signal::RunQueue),
        sensor: None,
    };
    let of_all = Scope {
        signal: Some(Signal::RunQueue),
        ..Scope::default()
    };
    running.hint(own, 2, Duration::from_secs(8)).await;
    running.hint(of_all, 5, Duration::from_secs(4)).await;
    let applied = until("applied", || {
        (of_shell(), default(), first_stage()) == (Some(2), 5, 2)
    });
    assert!(applied.await < Duration::from_secs(3), "two flushes");
    until("the wider one is over", || {
        (of_shell(), default(), first_stage()) == (Some(2), 0, 0)
    })
    .await;
    until("both are over", || of_shell() == Some(0)).await;
    assert_eq!(running.counted(Outcome::Expired), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_stays_under_the_ceiling_from_the_second_flush_on_whatever_hints_say() {
    let _storm = STORM.lock().await;
    let weathered = weather().await;
    for window in &weathered.windows {
        println!("{window:.2?}");
    }
    let rate = weathered.calls_per_sec;
    assert!(rate >= 1e6, "{rate} calls a second are no storm");
    let in_storm = weathered
        .windows
        .iter()
        .filter(|window| window.end_secs > 0.0);
    let in_storm: Vec<_> = in_storm.collect();
    assert!(in_storm.len() >= 8, "{}", in_storm.len());
    // Its first calls come a little before all of its threads are there.
    let mut first = weathered
        .windows
        .iter()
        .filter(|window| window.end_secs > -1.0)
        .take(3);
    assert!(
        first.any(|window| window.of_ceiling > 1.0),
        "a storm that is never above the ceiling shows nothing"
    );
    assert_eq!(weathered.violations(), 0);
    assert!(in_storm.last().unwrap().level > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_noticed_within_a_long_window_and_its_probe_comes_back_after_it() {
    let _storm = STORM.lock().await;
    let running = Running::start(Config {
        flush_interval: Duration::from_secs(10),
        ..config(vec![Probe::Syscall])
    });
    let level = || running.metrics.shedding_level.get();
    let syscall = ProbeLabels {
        probe: Probe::Syscall.name(),
    };
    let probe_level = || running.metrics.probe_level.get_or_create(&syscall).get();
    let windows = running.metrics.windows.get();
    until("a window ends", || running.metrics.windows.get() > windows).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (windows, storm) = (running.metrics.windows.get(), Storm::begin());
    let shed_after = until("something is shed", || level() > 0).await;
    assert!(shed_after < Duration::from_secs(5), "{shed_after:?}");
    assert_eq!(running.metrics.windows.get(), windows, "the window goes on");
    until("the window ends", || {
        running.metrics.windows.get() > windows
    })
    .await;
    assert_eq!(probe_level(), 0, "detached");
    storm.end();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_to_look_closer_ends_a_long_window_early_once() {
    // What is shed would have the last word.
    let _storm = STORM.lock().await;
    let mut running = Running::start(Config {
        flush_interval: Duration::from_secs(10),
        ..config(vec![Probe::Runq])
    });
    let ended = running.metrics.windows.clone();
    let window = async |count: u64| until("a window ends", || ended.get() > count).await;
    window(ended.get()).await;
    let of = |name: &str| Scope {
        service: Some(ServiceId::parse(name).unwrap()),
        ..Scope::default()
    };
    let minutes = Duration::from_secs(600);
    let windows = ended.get();
    running.hint(of("process/hg-closer"), 0, minutes).await;
    let early = window(windows).await;
    assert!(early < Duration::from_secs(5), "{early:?}");
    running.hint(of("process/hg-other"), 0, minutes).await;
    let rest = window(windows + 1).await;
    assert!(rest > Duration::from_secs(6), "{rest:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_probe_comes_back_when_it_is_calm_and_counts_nothing_twice() {
    let _storm = STORM.lock().await;
    const CALLS: u64 = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-after-storm");
    let running = Running::start(config(vec![Probe::Syscall]));
    let syscall = ProbeLabels {
        probe: Probe::Syscall.name(),
    };
    let probe_level = || running.metrics.probe_level.get_or_create(&syscall).get();
    until("attached", || probe_level() > 0).await;
    let storm = Storm::begin();
    until("detached", || probe_level() == 0).await;
    storm.end();
    let back = until("attached again", || probe_level() > 0).await;
    assert!(back > Duration::from_secs(5), "six calm windows: {back:?}");
    write_bytes(&dd, CALLS).await;
    let batches = running.stop().await;
    let of_dd: Vec<_> = series_of(&batches, Signal::SyscallWrite, "hg-after-storm").collect();
    let samples: u64 = of_dd.iter().map(|(series, _)| series.totals.samples).sum();
    let count: u64 = of_dd.iter().map(|(series, _)| series.count).sum();
    // It comes back at 1/1024, or one step more.
    assert!(samples <= CALLS / 200, "{samples}");
    let sigma = (CALLS as f64 * 1023.0).sqrt();
    assert!(count.abs_diff(CALLS) as f64 <= 4.0 * sigma, "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_hostile_hints_is_counted_and_costs_little() {
    let _storm = STORM.lock().await;
    const FLOOD: u64 = 100_000;
    let running = Running::start(config(vec![Probe::Runq]));
    let valid = |index: u64| Hint {
        scope: Scope {
            service: Some(ServiceId::parse(&format!("process/flood-{index}")).unwrap()),
            ..Scope::default()
        },
        sampling_shift: Some((index % 17) as u8),
        flush_interval: None,
        reason: String::new(),
        issued_at: since_epoch(),
        ttl: Duration::from_secs(600),
        epoch: u64::MAX,
        dry_run: false,
    };
    for index in 0..FLOOD {
        let mut hint = valid(index);
        let garbage = index.to_le_bytes().repeat(3);
        let (key, payload) = match index % 4 {
            0 => (hint.scope.key().into(), hint.encode()),
            1 => {
                hint.issued_at += Duration::from_secs(86_400);
                (hint.scope.key().into(), hint.encode())
            }
            2 => (b"//".to_vec(), hint.encode()),
            _ => (garbage.clone(), garbage),
        };
        running.publish(key, payload).await;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (applied, active) = (
        running.counted(Outcome::Applied),
        running.metrics.hints_active.get(),
    );
    // At the pace of 2,500 a second, of which a quarter is valid.
    assert!((1000..=12_500).contains(&applied), "{applied}");
    assert!(active > 0 && active as u64 <= applied, "{active}");
    let batches = running.stop().await;
    let costs = batches.iter().filter_map(|batch| batch.cost.as_ref());
    // The first has the start.
    let costs: Vec<_> = costs.skip(1).collect();
    assert!(costs.len() >= 7, "draining went on: {}", costs.len());
    let rejected: u64 = costs
        .iter()
        .filter_map(|cost| cost.hints.as_ref())
        .map(|hints| hints.rejected)
        .sum();
    assert!(rejected > applied, "{rejected}");
    for cost in costs {
        let used = cost.user_space_ns + cost.kernel_ns;
        println!(
            "{:.2} of the ceiling, {:?}",
            used as f64 / cost.ceiling_ns as f64,
            cost.hints
        );
        assert!(used <= cost.ceiling_ns, "{cost:?}");
    }
}
