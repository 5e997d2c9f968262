//! State kept with tasks and sockets by the kernel itself, freed with them.
//!
//! aya-ebpf has no wrapper for task storage, and its socket storage takes only
//! a `bpf_sock_addr` context; these are the BTF map definitions by hand.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_task_storage_get};

use crate::kernel::Object;

const CREATE: u64 = 1;
const BPF_MAP_TYPE_SK_STORAGE: usize = 24;
const BPF_MAP_TYPE_TASK_STORAGE: usize = 29;
const BPF_F_NO_PREALLOC: usize = 1;

/// A BTF map definition: the loader reads the field *types*, the pointers stay null.
#[repr(C)]
pub struct Storage<T, const MAP_TYPE: usize> {
    r#type: *const [i32; MAP_TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC],
}

// SAFETY: the definition holds no data; the kernel synchronises the map.
unsafe impl<T, const MAP_TYPE: usize> Sync for Storage<T, MAP_TYPE> {}

/// State by task.
pub type TaskStorage<T> = Storage<T, BPF_MAP_TYPE_TASK_STORAGE>;
/// State by socket.
pub type SocketStorage<T> = Storage<T, BPF_MAP_TYPE_SK_STORAGE>;

impl<T, const MAP_TYPE: usize> Storage<T, MAP_TYPE> {
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    fn map(&'static self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

impl<T> TaskStorage<T> {
    /// The task's state, made (zeroed) if it has none; null if that fails.
    ///
    /// # Safety
    /// `task` must be a `struct task_struct` the verifier trusts.
    #[inline(always)]
    pub unsafe fn get_or_create(&'static self, task: Object) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { bpf_task_storage_get(self.map(), task as *mut _, ptr::null_mut(), CREATE).cast() }
    }

    /// The task's state, or null.
    ///
    /// # Safety
    /// As [`Self::get_or_create`].
    #[inline(always)]
    pub unsafe fn get(&'static self, task: Object) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { bpf_task_storage_get(self.map(), task as *mut _, ptr::null_mut(), 0).cast() }
    }
}

impl<T> SocketStorage<T> {
    /// The socket's state, made (zeroed) if it has none; null if that fails.
    ///
    /// # Safety
    /// `socket` must be a `struct sock` the verifier trusts.
    #[inline(always)]
    pub unsafe fn get_or_create(&'static self, socket: Object) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { bpf_sk_storage_get(self.map(), socket as *mut _, ptr::null_mut(), CREATE).cast() }
    }

    /// The socket's state, or null.
    ///
    /// # Safety
    /// As [`Self::get_or_create`].
    #[inline(always)]
    pub unsafe fn get(&'static self, socket: Object) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { bpf_sk_storage_get(self.map(), socket as *mut _, ptr::null_mut(), 0).cast() }
    }
}
