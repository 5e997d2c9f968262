//! Who is charged with an event.
//!
//! The key (cgroup, command name) is looked up once per task and cached in
//! task storage; a task that moved to another cgroup or executed another
//! program is looked up again.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, Stack},
};
use sensor_common::{
    record::{
        COMM_LEN, GlobalConfig, HOST_SERVICE, Loss, OTHER_SERVICE, SERVICES_MAX, SIGNAL_OFF,
        Service, ServiceKey, SignalConfig,
    },
    signal::SIGNALS_MAX,
};

use crate::{
    config::{MMAPABLE, SignalNumber},
    kernel::{
        OFFSET_CGROUP_KN, OFFSET_CSS_CGROUP, OFFSET_CSS_SET_CGROUP, OFFSET_CSS_SET_SUBSYS,
        OFFSET_KERNFS_ID, OFFSET_TASK_CGROUPS, OFFSET_TASK_COMM, OFFSET_TASK_FLAGS,
        OFFSET_TASK_GROUP_LEADER, OFFSET_TASK_SELF_EXEC_ID, OFFSET_TASK_TGID, Object, load,
    },
    loss,
    storage::TaskStorage,
};

/// Index of each key.
#[map]
static SERVICES_BY_KEY: HashMap<ServiceKey, u32> = HashMap::with_max_entries(SERVICES_MAX, 0);
/// Services by index.
#[map]
static SERVICES: Array<Service> = Array::with_max_entries(SERVICES_MAX, MMAPABLE);
/// Indexes nobody uses; user space fills it.
#[map]
static FREE_SERVICES: Stack<u32> = Stack::with_max_entries(SERVICES_MAX, 0);

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "TASKS")]
static TASKS: TaskStorage<TaskState> = TaskStorage::new();

/// Whether the cgroup is taken from a version 1 controller; patched at load to
/// 0 (version 2) or 1. The sentinel is neither.
#[unsafe(no_mangle)]
static CGROUP_V1: u32 = 0xa5a5_1002;

/// `PF_KTHREAD`: all kernel threads are one service.
const KERNEL_THREAD: u32 = 0x0020_0000;
const KERNEL_COMM: u64 = u64::from_ne_bytes(*b"[kernel]");

/// What is kept with each task.
#[repr(C)]
pub struct TaskState {
    /// Address of the cgroup, to notice a move; never followed.
    cgroup: u64,
    exec_id: u32,
    index: u32,
    generation: u32,
    /// Number of the system call being timed; a class has those below 512.
    pub syscall_number: u16,
    /// Sampling shift at which its first stage was drawn.
    pub syscall_shift: u16,
    /// Begin of the system call being timed, 0 when none.
    pub syscall_begin_ns: u64,
    /// Begin of the direct reclaim being timed, 0 when none.
    pub reclaim_begin_ns: u64,
    /// Run-queue delay and runs of the task when it last got a CPU.
    pub run_delay_ns: u64,
    pub runs: u64,
    /// When the task became runnable (fallback of the run-queue probe).
    pub runnable_ns: u64,
}

/// A service that an event is charged to.
#[derive(Clone, Copy)]
pub struct Charged {
    pub index: u32,
    pub generation: u32,
    pub service: *mut Service,
}

impl Charged {
    /// The service at `index`, whatever its generation.
    #[inline(always)]
    fn at(index: u32) -> Option<Charged> {
        let service = SERVICES.get_ptr_mut(index)?;
        // SAFETY: a live map value.
        let generation = unsafe { (*service).generation };
        Some(Charged {
            index,
            generation,
            service,
        })
    }

    /// The service at `index` if it still has `generation`.
    #[inline(always)]
    pub fn cached(index: u32, generation: u32) -> Option<Charged> {
        Self::at(index).filter(|charged| charged.generation == generation)
    }

    /// What the service's switches say of `signal`.
    #[inline(always)]
    pub fn config(self, signal: SignalNumber) -> SignalConfig {
        let slot = signal as usize;
        if slot >= SIGNALS_MAX {
            return SIGNAL_OFF;
        }
        // SAFETY: a live map value.
        unsafe { (*self.service).config[slot] }
    }

    /// The machine itself.
    #[inline(always)]
    pub fn host() -> Option<Charged> {
        Self::at(HOST_SERVICE)
    }
}

/// The state of `task`, made if it has none. A failure is counted.
///
/// # Safety
/// `task` must be a `struct task_struct` the verifier trusts.
#[inline(always)]
pub unsafe fn task_state(task: Object) -> Option<&'static mut TaskState> {
    // SAFETY: the caller's promise.
    let state = unsafe { TASKS.get_or_create(task) };
    if state.is_null() {
        loss::count(Loss::StateFull);
        return None;
    }
    // SAFETY: a live map value of this task, which only its CPU uses.
    Some(unsafe { &mut *state })
}

/// The state of `task` if it has one.
///
/// # Safety
/// As [`task_state`].
#[inline(always)]
pub unsafe fn existing_task_state(task: Object) -> Option<&'static mut TaskState> {
    // SAFETY: the caller's promise.
    let state = unsafe { TASKS.get(task) };
    if state.is_null() {
        return None;
    }
    // SAFETY: as in [`task_state`].
    Some(unsafe { &mut *state })
}

/// The service that `task` belongs to.
///
/// # Safety
/// As [`task_state`]; `state` must be the task's.
#[inline(always)]
pub unsafe fn of_task(
    global: &GlobalConfig,
    task: Object,
    state: &mut TaskState,
) -> Option<Charged> {
    // SAFETY: the caller's promise; each load follows a pointer just loaded.
    unsafe {
        let cgroup = cgroup_of(task);
        let exec_id: u32 = load(task, &OFFSET_TASK_SELF_EXEC_ID);
        if state.cgroup == cgroup as u64
            && state.exec_id == exec_id
            && let Some(charged) = Charged::cached(state.index, state.generation)
        {
            return Some(charged);
        }
        let leader: Object = load(task, &OFFSET_TASK_GROUP_LEADER);
        let flags: u32 = load(task, &OFFSET_TASK_FLAGS);
        // Loaded before the choice, and as words: choosing where to load from
        // would be one instruction with two kinds of pointer, which the
        // verifier refuses.
        let named: [u64; 2] = load(leader, &OFFSET_TASK_COMM);
        let is_kernel = flags & KERNEL_THREAD != 0;
        let comm = [
            if is_kernel { KERNEL_COMM } else { named[0] },
            if is_kernel { 0 } else { named[1] },
        ];
        let key = ServiceKey {
            cgroup_id: id_of_cgroup(cgroup),
            comm: core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(comm),
        };
        let charged = by_key(global, &key, load(task, &OFFSET_TASK_TGID))?;
        state.cgroup = cgroup as u64;
        state.exec_id = exec_id;
        state.index = charged.index;
        state.generation = charged.generation;
        Some(charged)
    }
}

/// The service of `key`, made on its first event.
#[inline(always)]
fn by_key(global: &GlobalConfig, key: &ServiceKey, tgid: u32) -> Option<Charged> {
    // SAFETY: values are plain numbers; a torn read cannot occur.
    if let Some(index) = unsafe { SERVICES_BY_KEY.get(key) } {
        return Charged::at(*index);
    }
    let Ok(Some(index)) = FREE_SERVICES.pop() else {
        loss::count(Loss::ServicesFull);
        return Charged::at(OTHER_SERVICE);
    };
    let charged = Charged::at(index)?;
    // SAFETY: a live map value that no key leads to yet.
    unsafe {
        (*charged.service).config = global.default;
        (*charged.service).tgid = tgid;
        (*charged.service).key = *key;
    }
    if SERVICES_BY_KEY
        .insert(key, index, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        return Some(charged);
    }
    // Another CPU was first, or the map is full.
    let _ = FREE_SERVICES.push(index, 0);
    // SAFETY: as above.
    if let Some(index) = unsafe { SERVICES_BY_KEY.get(key) } {
        return Charged::at(*index);
    }
    loss::count(Loss::ServicesFull);
    Charged::at(OTHER_SERVICE)
}

/// The task's cgroup, of the hierarchy chosen at load.
#[inline(always)]
unsafe fn cgroup_of(task: Object) -> Object {
    // SAFETY: the caller's promise; CGROUP_V1 is read-only and patched at load.
    unsafe {
        let set: Object = load(task, &OFFSET_TASK_CGROUPS);
        if core::ptr::read_volatile(&raw const CGROUP_V1) != 0 {
            // `css_set.subsys[]` at the offset of the chosen controller.
            let state: Object = load(set, &OFFSET_CSS_SET_SUBSYS);
            return load(state, &OFFSET_CSS_CGROUP);
        }
        load(set, &OFFSET_CSS_SET_CGROUP)
    }
}

/// Inode number of a cgroup's directory.
///
/// # Safety
/// `cgroup` must be a `struct cgroup` the verifier knows.
#[inline(always)]
pub unsafe fn id_of_cgroup(cgroup: Object) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let node: Object = load(cgroup, &OFFSET_CGROUP_KN);
        load(node, &OFFSET_KERNFS_ID)
    }
}
