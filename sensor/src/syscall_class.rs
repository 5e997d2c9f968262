//! Which signal a system call counts in.

use sensor_common::Signal;

/// The class of the system call `number` of this machine's architecture;
/// numbers that are not named here count as [`Signal::SyscallOther`].
pub fn signal_of(number: u32) -> Signal {
    let number = libc::c_long::from(number);
    let class = CLASSES
        .iter()
        .find(|(_, numbers)| numbers.contains(&number));
    class.map_or(Signal::SyscallOther, |(signal, _)| *signal)
}

/// System calls that every architecture has; the older ones of x86-64 follow.
const CLASSES: &[(Signal, &[libc::c_long])] = &[
    (
        Signal::SyscallRead,
        &[
            libc::SYS_read,
            libc::SYS_readv,
            libc::SYS_pread64,
            libc::SYS_preadv,
            libc::SYS_preadv2,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_recvmmsg,
        ],
    ),
    (
        Signal::SyscallWrite,
        &[
            libc::SYS_write,
            libc::SYS_writev,
            libc::SYS_pwrite64,
            libc::SYS_pwritev,
            libc::SYS_pwritev2,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_sendmmsg,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_copy_file_range,
        ],
    ),
    (
        Signal::SyscallSync,
        &[
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync,
            libc::SYS_syncfs,
            libc::SYS_sync_file_range,
            libc::SYS_msync,
        ],
    ),
    (Signal::SyscallFutex, &[libc::SYS_futex]),
    (
        Signal::SyscallPoll,
        &[
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
        ],
    ),
    (
        Signal::SyscallFile,
        &[
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_close,
            libc::SYS_statx,
            libc::SYS_fstat,
            libc::SYS_faccessat,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_mkdirat,
            libc::SYS_getdents64,
            libc::SYS_ftruncate,
            libc::SYS_fallocate,
        ],
    ),
    (
        Signal::SyscallSocket,
        &[
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_shutdown,
        ],
    ),
    (
        Signal::SyscallMemory,
        &[
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_mprotect,
            libc::SYS_madvise,
            libc::SYS_brk,
        ],
    ),
    (
        Signal::SyscallProcess,
        &[
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_wait4,
            libc::SYS_waitid,
        ],
    ),
    (
        Signal::SyscallSleep,
        &[libc::SYS_nanosleep, libc::SYS_clock_nanosleep],
    ),
    #[cfg(target_arch = "x86_64")]
    (
        Signal::SyscallPoll,
        &[libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait],
    ),
    #[cfg(target_arch = "x86_64")]
    (
        Signal::SyscallFile,
        &[
            libc::SYS_open,
            libc::SYS_stat,
            libc::SYS_lstat,
            libc::SYS_access,
            libc::SYS_unlink,
            libc::SYS_rename,
            libc::SYS_mkdir,
            libc::SYS_rmdir,
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    (Signal::SyscallProcess, &[libc::SYS_fork, libc::SYS_vfork]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_calls_have_their_class_and_others_the_rest() {
        for (number, expected) in [
            (libc::SYS_read, Signal::SyscallRead),
            (libc::SYS_fdatasync, Signal::SyscallSync),
            (libc::SYS_getppid, Signal::SyscallOther),
        ] {
            assert_eq!(signal_of(number as u32), expected);
        }
    }
}
