//! Which system calls that read from or write to sockets name one buffer, and how.

use sensor_common::record::SyscallBuffer;

const BUFFERS: [(libc::c_long, SyscallBuffer); 12] = [
    (libc::SYS_read, SyscallBuffer::Direct),
    (libc::SYS_write, SyscallBuffer::Direct),
    (libc::SYS_recvfrom, SyscallBuffer::Direct),
    (libc::SYS_sendto, SyscallBuffer::Direct),
    (libc::SYS_readv, SyscallBuffer::Vectors),
    (libc::SYS_writev, SyscallBuffer::Vectors),
    (libc::SYS_preadv2, SyscallBuffer::Vectors),
    (libc::SYS_pwritev2, SyscallBuffer::Vectors),
    (libc::SYS_recvmsg, SyscallBuffer::Message),
    (libc::SYS_sendmsg, SyscallBuffer::Message),
    // Of several messages the first, with which their header begins.
    (libc::SYS_recvmmsg, SyscallBuffer::Message),
    (libc::SYS_sendmmsg, SyscallBuffer::Message),
];

/// Where system call `number` has its buffer.
pub fn buffer_of(number: u32) -> SyscallBuffer {
    let known = BUFFERS
        .iter()
        .find(|(known, _)| *known == libc::c_long::from(number));
    known.map_or(SyscallBuffer::None, |(_, buffer)| *buffer)
}

#[cfg(test)]
mod tests {
    use sensor_common::record::SYSCALLS_MAX;

    use super::*;

    #[test]
    fn every_known_call_has_a_place_in_the_table() {
        for (number, buffer) in BUFFERS {
            let number = u32::try_from(number).unwrap();
            assert!(number < SYSCALLS_MAX);
            assert_eq!(buffer_of(number), buffer);
        }
        assert_eq!(buffer_of(libc::SYS_getppid as u32), SyscallBuffer::None);
        assert_eq!(buffer_of(libc::SYS_sendfile as u32), SyscallBuffer::None);
    }
}
