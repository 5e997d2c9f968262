//! One run: servers, load, fault, recording, truth.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use honeyguide_bus::recording::RecordingReader;
use honeyguide_evaluation::incidents::{Cause, Kind, ServiceTruth, Truth};
use honeyguide_proto::{ServiceId, ServiceKind};
use rand::RngExt;

use crate::{
    bystander::{self, Bystander},
    driver::{Driver, Means},
    group::Group,
    load::{self, Answers, Plan, Protocol},
    network::Network,
    process::{Process, Surroundings},
    profile::random,
    recording,
    scenario::{Drawn, Fault},
    servers::{Application, Folder, fill},
    volume::Volume,
};

/// Seconds of load before the first window, for caches and connections. The
/// sensor is on before: an exchange that is under way when it comes would count
/// up to the next one on its connection.
const WARM_UP_SECS: f64 = 7.0;
/// How long the sensor may take to be on.
const SENSOR_START_MAX: Duration = Duration::from_secs(60);
/// Seconds that it measures before the warm-up and after the last window.
const SENSOR_MARGIN_SECS: u64 = 4;
/// How often a fault is made as severe as it is to be.
const FAULT_EVERY: Duration = Duration::from_millis(250);
/// Requests a second of a disk that is not bounded any more.
const UNBOUNDED_IOPS: f64 = 1e6;
/// Bytes of a cart.
const CART_LEN: usize = 8 << 10;
/// Pictures, and bytes of one.
const PICTURES: (usize, usize) = (1000, 48 << 10);
/// Weight of neighbours in the quota that they share with the shop.
const HOG_SHARES: &str = "8192";
/// The shop's own.
const SHOP_SHARES: &str = "100";

/// Where a run is made.
#[derive(Clone, Debug)]
pub struct Place {
    /// The `honeyguide` program.
    pub honeyguide: PathBuf,
    /// Folder of recordings.
    pub out: PathBuf,
    /// Tells runs apart that go on at a time.
    pub slot: u8,
    /// Windows of a second.
    pub windows: usize,
}

/// Makes a run; returns its truth, and writes it beside the recording.
pub fn run(drawn: &Drawn, place: &Place) -> Result<Truth> {
    let temporary = tempfile::Builder::new()
        .prefix("honeyguide-incident-")
        .tempdir()?;
    let folder = Folder::prepare(temporary.path())?;
    let mut shop = Shop::start(drawn, place, &folder, temporary.path())?;
    let bystanders = bystander::start(&folder, place, drawn.seed)?;
    let mut driver = Driver::start(drawn, &shop.means, shop.neighbours.as_ref())?;

    let raw = temporary.path().join("raw.hgr");
    let recorder = record(place, &raw)?;
    let (first_window, first_window_ns) = first_window()?;
    let mut plans = vec![shop_plan(drawn, shop.means.shop, place.windows)];
    plans.extend(bystanders.iter().map(|bystander| bystander.plan.clone()));
    let clients = thread::spawn(move || load::run(plans, first_window));
    let end = first_window + Duration::from_secs(place.windows as u64);
    while Instant::now() < end {
        let at_secs = Instant::now()
            .saturating_duration_since(first_window)
            .as_secs_f64();
        driver.apply(at_secs, drawn.growth.severity(at_secs), &shop.means)?;
        thread::sleep(FAULT_EVERY);
    }
    recorder.finish().context("the recorder failed")?;
    let answers = clients
        .join()
        .map_err(|_| anyhow::anyhow!("a client panicked"))??;
    let description = driver.describe();
    drop(driver);
    shop.end();

    let truth = truth(
        drawn,
        place,
        first_window_ns,
        description,
        &bystanders,
        &answers,
    );
    let name = format!("{}-{}", drawn.scenario.name, drawn.seed);
    let path = place.out.join(&name);
    recording::keep(
        &raw,
        &path.with_extension("hgr"),
        &names(place, &bystanders),
    )?;
    fs::write(
        path.with_extension("json"),
        serde_json::to_string(&truth)? + "\n",
    )?;
    Ok(truth)
}

/// The servers that the fault is done to.
struct Shop {
    means: Means,
    /// Where neighbours compute.
    neighbours: Option<Group>,
    // In the order in which they end.
    processes: Vec<Process>,
    groups: Vec<Group>,
}

/// Names of the shop's servers, without the slot.
pub const SHOP: [&str; 3] = ["shop", "shop-db", "shop-kv"];

impl Shop {
    fn start(drawn: &Drawn, place: &Place, folder: &Folder, path: &Path) -> Result<Shop> {
        let scenario = &drawn.scenario;
        let asks = |page: &str| {
            scenario
                .pages
                .iter()
                .any(|(_, name)| name.starts_with(page))
        };
        let group = |controller: &str, name: &str, parent: Option<&Group>| {
            Group::make(controller, &format!("hg-{name}-{}", place.slot), parent)
        };
        let name = |name: &str| format!("{name}{}", place.slot);
        let cpu = group("cpu", "shop", None)?;
        cpu.set_cpu(scenario.cpu)?;
        // Neighbours share the quota of the group above.
        let (own, neighbours) = match scenario.fault {
            Fault::Hogs => {
                let own = group("cpu", "own", Some(&cpu))?;
                let neighbours = group("cpu", "hogs", Some(&cpu))?;
                own.set("cpu.shares", SHOP_SHARES)?;
                neighbours.set("cpu.shares", HOG_SHARES)?;
                (Some(own), Some(neighbours))
            }
            _ => (None, None),
        };
        let has_disk = matches!(
            scenario.fault,
            Fault::Iops { .. } | Fault::Writes { .. } | Fault::Leak { .. }
        );
        let disk = has_disk.then(|| group("blkio", "disk", None)).transpose()?;
        let mut volume = has_disk.then(|| Volume::make(path)).transpose()?;
        let mut shop = Shop {
            means: Means {
                disk,
                volume: None,
                network: None,
                database: None,
                shop: SocketAddr::from(([0, 0, 0, 0], 0)),
            },
            neighbours,
            processes: Vec::new(),
            groups: Vec::new(),
        };
        let mut application = Application {
            pool: scenario.pool,
            threads: 16,
            ..Application::default()
        };

        if !asks("cart") {
            let quota = group("cpu", "db", None)?;
            quota.set_cpu(scenario.database_cpu)?;
            let mut groups = vec![&quota];
            let is_database_disk = !matches!(scenario.fault, Fault::Leak { .. });
            groups.extend(shop.means.disk.iter().filter(|_| is_database_disk));
            let data = volume.as_ref().filter(|_| is_database_disk);
            let data = data.map_or(path, Volume::path);
            let surroundings = Surroundings {
                groups: &groups,
                ..Surroundings::default()
            };
            let durable = has_disk && is_database_disk;
            let (server, port) =
                folder.postgresql(&name("shop-db"), data, durable, surroundings)?;
            shop.processes.push(server);
            shop.groups.push(quota);
            fill(port)?;
            shop.means.database = Some(port);
            application.database = format!("host=127.0.0.1 port={port} user=shop dbname=postgres");
        }
        if asks("cart") {
            let is_remote = matches!(scenario.fault, Fault::Bandwidth { .. } | Fault::Loss(_));
            let network = is_remote.then(|| Network::make(place.slot)).transpose()?;
            let surroundings = Surroundings {
                namespace: network.as_ref().map(Network::name),
                ..Surroundings::default()
            };
            let address = network
                .as_ref()
                .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), Network::address);
            let (server, address) = folder.redis(&name("shop-kv"), address, surroundings)?;
            shop.processes.push(server);
            fill_carts(address)?;
            application.cache = Some(address);
            shop.means.network = network;
        }
        let memory = match scenario.fault {
            Fault::Leak { limit, iops, .. } => {
                let memory = group("memory", "shop", None)?;
                memory.set("memory.limit_in_bytes", &format!("{limit:.0}M"))?;
                let volume = volume.as_mut().context("pictures without a disk")?;
                for number in 0..PICTURES.0 {
                    fs::write(
                        volume.path().join(number.to_string()),
                        vec![b'p'; PICTURES.1],
                    )?;
                }
                // Who reads them is who their memory is charged to.
                volume.remount()?;
                let disk = shop.means.disk.as_ref().context("no disk")?;
                volume.set_iops(disk, iops)?;
                application.files = volume.path().to_owned();
                Some(memory)
            }
            _ => None,
        };
        let is_shop_disk = memory.is_some();
        let mut groups = vec![own.as_ref().unwrap_or(&cpu)];
        groups.extend(&memory);
        groups.extend(shop.means.disk.iter().filter(|_| is_shop_disk));
        let surroundings = Surroundings {
            groups: &groups,
            ..Surroundings::default()
        };
        let (server, address) = folder.application(&name("shop"), &application, surroundings)?;
        shop.processes.push(server);
        shop.groups.extend(own);
        shop.groups.extend(memory);
        shop.groups.push(cpu);
        shop.means.volume = volume;
        shop.means.shop = address;
        if is_shop_disk {
            // All of them are in memory when the first window begins.
            for number in 0..PICTURES.0 {
                http_get(address, &format!("/picture/{number}"))?;
            }
        }
        Ok(shop)
    }

    /// Ends servers before what they run in.
    fn end(&mut self) {
        // Their last writes need not wait as long as those of the incident.
        if let (Some(volume), Some(disk)) = (&self.means.volume, &self.means.disk) {
            let _ = volume.set_iops(disk, UNBOUNDED_IOPS);
        }
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.end();
        self.means.network = None;
        self.means.volume = None;
        self.means.disk = None;
        self.neighbours = None;
        // Groups inside others were put in first.
        for group in self.groups.drain(..) {
            drop(group);
        }
    }
}

/// Asks for a page, and waits for it.
pub fn http_get(address: SocketAddr, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer:?}");
    Ok(())
}

fn fill_carts(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let cart = "c".repeat(CART_LEN);
    let mut answer = [0; 5];
    for number in 0..100 {
        write!(stream, "SET cart:{number} {cart}\r\n")?;
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n", "Redis took no cart");
    }
    Ok(())
}

/// A time some seconds from now at which a second of the wall clock begins.
fn first_window() -> Result<(Instant, u64)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let second = (now + Duration::from_secs_f64(WARM_UP_SECS)).as_secs() + 1;
    let wait = Duration::from_secs(second).saturating_sub(now);
    Ok((Instant::now() + wait, second * 1_000_000_000))
}

/// What the shop is asked, and when.
fn shop_plan(drawn: &Drawn, address: SocketAddr, windows: usize) -> Plan {
    let scenario = &drawn.scenario;
    let mut random = random(drawn.seed, "shop");
    let span = 1.0 - WARM_UP_SECS..windows as f64;
    let arrivals = drawn.demand.arrivals(&drawn.growth, span, &mut random);
    let requests = arrivals.into_iter().map(|at| {
        let mut left: f64 = random.random();
        let page = scenario.pages.iter().find(|(weight, _)| {
            left -= weight;
            left < 0.0
        });
        let page = page.unwrap_or(&scenario.pages[0]).1;
        let what = match page.contains('/') {
            true => format!("/{page}"),
            false => format!("/{page}/{}", random.random_range(10..100_000)),
        };
        (at, what)
    });
    let (timeout_ms, retries) = scenario.patience;
    Plan {
        address,
        protocol: Protocol::Http,
        requests: requests.collect(),
        connections_max: 200,
        timeout: Duration::from_millis(timeout_ms),
        retries,
    }
}

/// Starts the sensor, and waits for the first that it publishes.
fn record(place: &Place, file: &Path) -> Result<Process> {
    let all = 2 * SENSOR_MARGIN_SECS + WARM_UP_SECS as u64 + place.windows as u64;
    let (duration, path) = (format!("{all}s"), file.to_string_lossy());
    let recorder = Process::start(
        &place.honeyguide,
        &[
            "record",
            "--duration",
            &duration,
            "--set",
            "sensor.flush_interval=1s",
            "--set",
            "sensor.cost_ceiling=1.0",
            "--set",
            "sensor.sensor_id=incidents",
            &path,
        ],
        &[],
        Surroundings::default(),
    )?;
    let until = Instant::now() + SENSOR_START_MAX;
    while !RecordingReader::open(file)
        .is_ok_and(|mut records| matches!(records.next(), Some(Ok(_))))
    {
        ensure!(Instant::now() < until, "the sensor publishes nothing");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(recorder)
}

/// The services to keep, by the key they were recorded under.
fn names(place: &Place, bystanders: &[Bystander]) -> BTreeMap<String, ServiceId> {
    let names = SHOP.into_iter().chain(bystanders.iter().map(|b| b.name));
    names
        .map(|name| {
            let service = |name: &str| ServiceId::named(ServiceKind::Process, name);
            (
                service(&format!("{name}{}", place.slot)).key(),
                service(name),
            )
        })
        .collect()
}

fn truth(
    drawn: &Drawn,
    place: &Place,
    first_window_ns: u64,
    fault: String,
    bystanders: &[Bystander],
    answers: &[Answers],
) -> Truth {
    let shop = std::iter::once(("shop", drawn.scenario.objective_ms));
    let all = shop.chain(bystanders.iter().map(|b| (b.name, b.objective_ms)));
    let onset = match drawn.scenario.kind {
        Kind::Quiet => None,
        _ => Some(drawn.growth.onset_secs as usize),
    };
    let services = all.zip(answers).map(|((name, objective_ms), answers)| {
        let mut windows = vec![Vec::new(); place.windows];
        for (at_secs, latency_us) in &answers.latencies {
            if *at_secs >= 0.0
                && let Some(window) = windows.get_mut(*at_secs as usize)
            {
                window.push(*latency_us);
            }
        }
        let key = format!("process/{name}");
        let from = onset.filter(|_| name == SHOP[0]).unwrap_or(0);
        let mut truth = ServiceTruth::new(&key, objective_ms * 1e-3, windows, from);
        truth.failed = answers.failed;
        truth
    });
    let cause = |(service, signal): &(&str, &str)| Cause {
        service: (*service).to_owned(),
        signal: (*signal).to_owned(),
    };
    Truth {
        scenario: drawn.scenario.name.to_owned(),
        seed: drawn.seed,
        kind: drawn.scenario.kind,
        fault,
        causes: drawn.scenario.causes.iter().map(cause).collect(),
        first_window_ns,
        window_secs: 1,
        onset,
        services: services.collect(),
    }
}
