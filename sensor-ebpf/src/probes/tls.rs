//! OpenSSL's functions, see [`crate::tls`].
//!
//! A call that reads returns before anything else happens in its thread that is
//! looked at here; so what it was called with waits with the thread. Where one
//! file is probed twice (as layers of containers share it), each program runs
//! twice in a row, and the second run finds nothing left to do.

use aya_ebpf::{
    helpers::bpf_probe_read_user,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    config,
    kernel::now_ns,
    scratch,
    tls::{self, Thread},
};

/// `SSL_do_handshake(ssl)`
#[uprobe]
pub fn tls_handshake(_context: ProbeContext) -> u32 {
    // Whoever uses the library is known from now on.
    let _ = Thread::current();
    0
}

/// `SSL_read(ssl, buffer, length)`
#[uprobe]
pub fn tls_read(context: ProbeContext) -> u32 {
    begin_read(&context, 0);
    0
}

/// `SSL_read_ex(ssl, buffer, length, &read)`
#[uprobe]
pub fn tls_read_ex(context: ProbeContext) -> u32 {
    if let Some(read) = context.arg::<u64>(3) {
        begin_read(&context, read);
    }
    0
}

#[inline(always)]
fn begin_read(context: &ProbeContext, read: u64) -> Option<()> {
    let (ssl, buffer) = (context.arg(0)?, context.arg(1)?);
    Thread::current()?.reads = [ssl, buffer, read];
    Some(())
}

/// The end of either.
#[uretprobe]
#[inline(always)]
pub fn tls_read_done(context: RetProbeContext) -> u32 {
    end_read(&context);
    0
}

#[inline(always)]
fn end_read(context: &RetProbeContext) -> Option<()> {
    let global = config::global()?;
    let result: i32 = context.ret();
    let thread = Thread::current()?;
    let [ssl, buffer, read] = core::mem::take(&mut thread.reads);
    if ssl == 0 || result <= 0 {
        return None;
    }
    let len = if read == 0 {
        u64::from(result as u32)
    } else {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(read as *const u64) }.ok()?
    };
    if !scratch::in_openssl(|| thread.read(global, ssl, (buffer, len))) {
        tls::end_following(ssl);
    }
    Some(())
}

/// `SSL_write(ssl, buffer, length)`
#[uprobe]
pub fn tls_write(context: ProbeContext) -> u32 {
    begin_write(&context, 0);
    0
}

/// `SSL_write_ex(ssl, buffer, length, &written)`
#[uprobe]
pub fn tls_write_ex(context: ProbeContext) -> u32 {
    if let Some(written) = context.arg::<u64>(3) {
        begin_write(&context, written);
    }
    0
}

/// The end of either: only that tells how much was written, and a call that could
/// not write is made again.
#[uretprobe]
#[inline(always)]
pub fn tls_write_done(context: RetProbeContext) -> u32 {
    end_write(&context);
    0
}

#[inline(always)]
fn end_write(context: &RetProbeContext) -> Option<()> {
    let result: i32 = context.ret();
    let thread = Thread::current()?;
    let [ssl, buffer, written, begin_ns] = core::mem::take(&mut thread.writes);
    if ssl == 0 || result <= 0 {
        return None;
    }
    let len = if written == 0 {
        u64::from(result as u32)
    } else {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(written as *const u64) }.ok()?
    };
    if !scratch::in_openssl(|| thread.wrote(ssl, (buffer, len), begin_ns)) {
        tls::end_following(ssl);
    }
    Some(())
}

#[inline(always)]
fn begin_write(context: &ProbeContext, written: u64) -> Option<()> {
    let (ssl, buffer, len): (u64, u64, u64) = (context.arg(0)?, context.arg(1)?, context.arg(2)?);
    // No more than one record is sent at first; the upper half of a register
    // that holds an `int` means nothing.
    let len = len & 0xffff_ffff;
    let thread = Thread::current()?;
    if thread.write(ssl, (buffer, len)) {
        thread.writes = [ssl, buffer, written, now_ns()];
    }
    Some(())
}
