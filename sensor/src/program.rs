//! The kernel programs: load, attach, detach, switch, and read.
//!
//! The only module that knows aya. [`Kernel`] owns the loaded object; a
//! [`Probe`] is what users know (`runq`, `blkio`, …), made of one or more
//! programs at the best [`level`](probe::Level) this kernel allows.

mod attachment;
pub mod btf;
pub mod openssl;
pub mod peers;
pub mod probe;
mod runs;
pub mod tables;

use std::collections::BTreeMap;

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, Stack},
    programs::{Program, RawTracePointRunOptions, TestRun, tp_btf::BtfTracePointLinkId},
};
use sensor_common::{
    record::{
        FIRST_SERVICE, Loss, ROWS_MAX, SERVICES_MAX, SYSCALLS_MAX, ServiceKey, SyscallBuffer,
    },
    route::{EVERY_SERVICE, LessonKey, ROUTE_ROWS_MAX, ROUTES_MAX, RouteKey, lesson_bit},
};

pub use self::runs::{RunStats, enable_run_stats, run_stats_by_id};
use self::{
    btf::{TypeError, TypeFormat},
    peers::{Answering, Peers},
    probe::{OFFSETS, Probe, ProbeState},
    runs::MissedRuns,
    tables::Tables,
};
use crate::{identity::Hierarchy, routes::Lessons, stalls::Places, syscall_buffer, syscall_class};

/// The object that `build.rs` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sensor-ebpf.o"));

/// Stripes of a row at most; above, CPUs share one.
const STRIPES_MAX: usize = 16;

/// Sizes of the kernel maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Services told apart, at most [`SERVICES_MAX`].
    pub services: u32,
    /// Histogram rows, at most [`ROWS_MAX`].
    pub rows: u32,
    /// Routes of all services, at most [`ROUTES_MAX`].
    pub routes: u32,
    /// Histogram rows of routes, at most [`ROUTE_ROWS_MAX`].
    pub route_rows: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            services: SERVICES_MAX,
            rows: ROWS_MAX,
            routes: ROUTES_MAX,
            route_rows: ROUTE_ROWS_MAX,
        }
    }
}

/// Why the kernel programs cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No type information.
    #[error(transparent)]
    Types(#[from] TypeError),
    /// The object was built for another system.
    #[error("this build has no kernel programs")]
    NoObject,
    /// aya could not parse or load the object's maps.
    #[error("failed to load the kernel object (root, or CAP_BPF and CAP_PERFMON, is needed): {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// A map is missing or of another type than this code expects.
    #[error("failed to use the kernel map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What aya says.
        source: Box<aya::maps::MapError>,
    },
    /// Memory could not be shared with the kernel, or no cgroup hierarchy was found.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// The loaded kernel programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    /// Of the kernel, 20 MB as parsed: kept only while programs are attached.
    btf: Option<Btf>,
    tables: Tables,
    states: BTreeMap<Probe, ProbeState>,
    /// By name of the program that is attached.
    links: BTreeMap<&'static str, BtfTracePointLinkId>,
    missing: BTreeMap<&'static str, TypeError>,
    services_by_key: HashMap<MapData, ServiceKey, u32>,
    free_services: Stack<MapData, u32>,
    free_rows: Stack<MapData, u32>,
    routes_by_key: HashMap<MapData, RouteKey, u32>,
    free_routes: Stack<MapData, u32>,
    free_route_rows: Stack<MapData, u32>,
    lessons: HashMap<MapData, LessonKey, u8>,
    peers: Peers,
    unseen_tls: openssl::Unseen,
    /// Where the files are of probes without programs.
    places: Places,
    missed: MissedRuns,
}

impl Kernel {
    /// Loads the object and its maps; no program is loaded or attached yet.
    ///
    /// # Errors
    /// [`KernelError`] when nothing can be measured on this machine.
    pub fn open(sizes: Sizes, hierarchy: &Hierarchy) -> Result<Kernel, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let types = TypeFormat::of_running_kernel()?;
        let stripes = stripes();
        let sizes = Sizes {
            services: sizes.services.min(SERVICES_MAX),
            rows: sizes.rows.min(ROWS_MAX),
            routes: sizes.routes.min(ROUTES_MAX),
            route_rows: sizes.route_rows.min(ROUTE_ROWS_MAX),
        };
        let rows = sizes.rows;
        // Index in `css_set.subsys` of the version 1 controller.
        let subsystem = match hierarchy.v1_controller {
            Some(name) => Some(types.enumerator("cgroup_subsys_id", &format!("{name}_cgrp_id"))?),
            None => None,
        };
        let mut missing = BTreeMap::new();
        let mut offsets = Vec::new();
        for (global, path) in OFFSETS {
            let path = match (*global, subsystem) {
                ("OFFSET_CSS_SET_SUBSYS", Some(id)) => format!("css_set.subsys.{id}"),
                _ => (*path).to_owned(),
            };
            match types.offset(&path) {
                Ok(offset) => offsets.push((*global, offset)),
                Err(error) => {
                    missing.insert(*global, error);
                }
            }
        }
        let v1 = u32::from(subsystem.is_some());
        let stripe_per_cpu = u32::from(aya::util::nr_cpus().is_ok_and(|cpus| cpus <= stripes));
        let mut loader = EbpfLoader::new();
        loader.allow_unsupported_maps();
        for (global, offset) in &offsets {
            loader.override_global(global, offset, true);
        }
        loader
            .override_global("ROWS_PER_STRIPE", &rows, true)
            .override_global("CGROUP_V1", &v1, true)
            .override_global("STRIPE_PER_CPU", &stripe_per_cpu, true)
            .map_max_entries("ROWS", rows * stripes as u32)
            .map_max_entries("ROW_OWNERS", rows)
            .map_max_entries("FREE_ROWS", rows)
            .map_max_entries("ROUTES", sizes.routes)
            .map_max_entries("ROUTES_BY_KEY", sizes.routes)
            .map_max_entries("FREE_ROUTES", sizes.routes)
            .map_max_entries("ROUTE_ROWS", sizes.route_rows)
            .map_max_entries("ROUTE_ROW_OWNERS", sizes.route_rows)
            .map_max_entries("FREE_ROUTE_ROWS", sizes.route_rows);
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?;

        let tables = Tables::map(&mut ebpf, stripes, &sizes)?;
        let services_by_key = typed(&mut ebpf, "SERVICES_BY_KEY", HashMap::try_from)?;
        let routes_by_key = typed(&mut ebpf, "ROUTES_BY_KEY", HashMap::try_from)?;
        let lessons = typed(&mut ebpf, "LESSONS", HashMap::try_from)?;
        let peers = Peers::of(&mut ebpf)?;
        let unseen_tls = openssl::Unseen::of(&mut ebpf)?;
        let free_services = free(&mut ebpf, "FREE_SERVICES", FIRST_SERVICE..sizes.services)?;
        let free_rows = free(&mut ebpf, "FREE_ROWS", 1..rows)?;
        let free_routes = free(&mut ebpf, "FREE_ROUTES", 1..sizes.routes)?;
        let free_route_rows = free(&mut ebpf, "FREE_ROUTE_ROWS", 1..sizes.route_rows)?;
        let mut kernel = Kernel {
            ebpf,
            btf: None,
            tables,
            states: Probe::ALL
                .into_iter()
                .map(|probe| (probe, ProbeState::Off))
                .collect(),
            links: BTreeMap::new(),
            missing,
            services_by_key,
            free_services,
            free_rows,
            routes_by_key,
            free_routes,
            free_route_rows,
            lessons,
            peers,
            unseen_tls,
            places: Places::of(hierarchy),
            missed: MissedRuns::default(),
        };
        kernel.fill_syscall_tables()?;
        kernel.fill_listening_ports()?;
        kernel.seed_random()?;
        Ok(kernel)
    }

    /// Where the files are of probes without programs.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Who answers where, if that changed since the last time.
    pub fn peers(&mut self) -> Option<Answering> {
        self.peers.changed()
    }

    /// The memory shared with the kernel.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Losses by reason since the object was loaded.
    ///
    /// # Errors
    /// [`KernelError::Map`] if the counters cannot be read.
    pub fn losses(&mut self) -> Result<[u64; Loss::ALL.len()], KernelError> {
        self.take_missed_runs();
        let map = self.ebpf.map("LOSSES").ok_or(KernelError::NoObject)?;
        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map).map_err(map_error("LOSSES"))?;
        let mut losses = [0; Loss::ALL.len()];
        for (reason, loss) in losses.iter_mut().enumerate() {
            let by_cpu = counters
                .get(&(reason as u32), 0)
                .map_err(map_error("LOSSES"))?;
            *loss = by_cpu.iter().sum();
        }
        losses[Loss::RunMissed as usize] = self.missed.sum();
        Ok(losses)
    }

    /// Forgets `service`: its key leads nowhere from now on, and what tasks
    /// and sockets remember of it is void. Its rows keep their counts until
    /// [`recycle`](Self::recycle), which must wait for one more drain.
    pub fn retire(&mut self, service: u32) {
        let record = self.tables.service(service);
        let _ = self.services_by_key.remove(&record.key);
        self.tables.next_generation(service);
    }

    /// Gives the index and the rows of a retired service back.
    pub fn recycle(&mut self, service: u32, rows: &[u32]) {
        self.tables.clear_service(service);
        for row in rows {
            self.tables.clear_owner(*row);
            let _ = self.free_rows.push(*row, 0);
        }
        let _ = self.free_services.push(service, 0);
    }

    /// Makes `lessons` all that the kernel programs know of the paths of
    /// `service`, or of [`EVERY_SERVICE`], where they knew `before`.
    ///
    /// # Errors
    /// [`KernelError::Map`] if there are too many; those before the first that
    /// does not fit count.
    pub fn teach(
        &mut self,
        service: u32,
        before: &Lessons,
        lessons: &Lessons,
    ) -> Result<(), KernelError> {
        let key = |(path, kind)| LessonKey {
            path,
            service,
            kind,
        };
        for lesson in before.iter().map(key) {
            // Not there is what is wanted.
            let _ = self.lessons.remove(&lesson);
        }
        for lesson in lessons.iter().map(key) {
            self.lessons
                .insert(lesson, 1, 0)
                .map_err(map_error("LESSONS"))?;
        }
        let bits = lessons
            .iter()
            .fold(0, |bits, (path, _)| bits | lesson_bit(path));
        match service {
            EVERY_SERVICE => self.tables.set_lessons(bits),
            service => self.tables.routes().set_lessons(service, bits),
        }
        Ok(())
    }

    /// Forgets the route in `slot`, taken for `key`: its key leads nowhere from now on, and
    /// requests under way go to the others of their service. Its rows keep
    /// their counts until [`recycle_route`](Self::recycle_route), which must
    /// wait for one more drain.
    pub fn retire_route(&mut self, slot: u32, key: RouteKey) {
        let _ = self.routes_by_key.remove(&key);
        self.tables.routes().retire(slot, key);
    }

    /// Gives the slot and the rows of a retired route back.
    pub fn recycle_route(&mut self, slot: u32, rows: &[u32]) {
        self.tables.routes().clear(slot);
        for row in rows {
            self.tables.routes().clear_owner(*row);
            let _ = self.free_route_rows.push(*row, 0);
        }
        let _ = self.free_routes.push(slot, 0);
    }

    /// The bucket that the kernel's build of the index gives, by `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn bucket_position(&mut self, value_ns: u64) -> Result<u32, String> {
        let program = self.ebpf.program_mut("bucket_position");
        let Some(Program::RawTracePoint(program)) = program else {
            return Err("the object has no program bucket_position".to_owned());
        };
        if program.fd().is_err() {
            program.load().map_err(|error| error.to_string())?;
        }
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = value_ns;
        let result = program
            .test_run(options)
            .map_err(|error| error.to_string())?;
        Ok(result.return_value)
    }

    fn fill_syscall_tables(&mut self) -> Result<(), KernelError> {
        let mut classes: Array<&mut MapData, u8> = of_map(&mut self.ebpf, "SYSCALL_SIGNALS")?;
        for number in 0..SYSCALLS_MAX {
            let signal = syscall_class::signal_of(number).number();
            classes
                .set(number, signal, 0)
                .map_err(map_error("SYSCALL_SIGNALS"))?;
        }
        let mut buffers: Array<&mut MapData, u8> = of_map(&mut self.ebpf, "SYSCALL_BUFFERS")?;
        for number in 0..SYSCALLS_MAX {
            let buffer = syscall_buffer::buffer_of(number);
            if buffer != SyscallBuffer::None {
                buffers
                    .set(number, buffer as u8, 0)
                    .map_err(map_error("SYSCALL_BUFFERS"))?;
            }
        }
        Ok(())
    }

    /// Without /proc/net the roles of old connections are guessed; not fatal.
    fn fill_listening_ports(&mut self) -> Result<(), KernelError> {
        let mut bits = vec![0u64; 65_536 / 64];
        let mut sockets = procfs::net::tcp().unwrap_or_default();
        sockets.extend(procfs::net::tcp6().unwrap_or_default());
        for socket in sockets {
            if socket.state == procfs::net::TcpState::Listen {
                let port = usize::from(socket.local_address.port());
                bits[port / 64] |= 1 << (port % 64);
            }
        }
        let mut ports: Array<&mut MapData, u64> = of_map(&mut self.ebpf, "LISTENING_PORTS")?;
        for (index, word) in (0u32..).zip(bits).filter(|(_, word)| *word != 0) {
            ports
                .set(index, word, 0)
                .map_err(map_error("LISTENING_PORTS"))?;
        }
        Ok(())
    }

    /// Different per CPU and start, so that sampling follows no pattern.
    fn seed_random(&mut self) -> Result<(), KernelError> {
        let map = self.ebpf.map_mut("RANDOM").ok_or(KernelError::NoObject)?;
        let mut states: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map).map_err(map_error("RANDOM"))?;
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| KernelError::Io {
            action: "count the CPUs",
            source,
        })?;
        let seeds: Vec<u64> = (0..cpus)
            .map(|_| uuid::Uuid::new_v4().as_u64_pair().0)
            .collect();
        let seeds = aya::maps::PerCpuValues::try_from(seeds).map_err(|source| KernelError::Io {
            action: "seed the sampling",
            source,
        })?;
        states.set(0, seeds, 0).map_err(map_error("RANDOM"))
    }
}

fn typed<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    convert: impl FnOnce(Map) -> Result<T, aya::maps::MapError>,
) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::NoObject)?;
    convert(map).map_err(map_error(name))
}

/// The stack `name` with `numbers`, the lowest on top, so that memory stays dense.
fn free(
    ebpf: &mut Ebpf,
    name: &'static str,
    numbers: std::ops::Range<u32>,
) -> Result<Stack<MapData, u32>, KernelError> {
    let mut stack: Stack<MapData, u32> = typed(ebpf, name, Stack::try_from)?;
    for number in numbers.rev() {
        stack.push(number, 0).map_err(map_error(name))?;
    }
    Ok(stack)
}

fn of_map<'a, V: aya::Pod>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<Array<&'a mut MapData, V>, KernelError> {
    let map = ebpf.map_mut(name).ok_or(KernelError::NoObject)?;
    Array::try_from(map).map_err(map_error(name))
}

fn map_error(name: &'static str) -> impl Fn(aya::maps::MapError) -> KernelError {
    move |source| KernelError::Map {
        name,
        source: Box::new(source),
    }
}

/// CPUs rounded up to a power of two, within [`STRIPES_MAX`].
fn stripes() -> usize {
    let cpus = aya::util::nr_cpus().unwrap_or(1);
    cpus.next_power_of_two().min(STRIPES_MAX)
}
