//! What a probe on a function of OpenSSL costs each call.
//!
//! The functions are called without a connection, so that they do nothing but
//! fail; with and without the probes, in turns. What the kernel does not count as
//! run time of the programs are the traps.

use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
};

use anyhow::{Context, Result, ensure};
use honeyguide_sensor::{
    cost::thread_cpu_time,
    program::{Kernel, enable_run_stats},
    tls::libraries_of,
};

use crate::{ROUNDS, median};

const CALLS: usize = 100_000;

/// `int SSL_read(SSL *ssl, void *buffer, int length)`, and likewise `SSL_write`.
type Transfer = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int;

/// Nanoseconds of CPU time per call.
pub struct CallCost {
    /// Of reading, probed when it begins and when it returns.
    pub read_ns: f64,
    /// Of writing, probed when it begins.
    pub write_ns: f64,
    /// Of the traps alone, per run of a program.
    pub trap_ns: f64,
}

/// Measures it; needs the library on this machine.
pub fn cost(kernel: &mut Kernel) -> Result<CallCost> {
    let [read, write] = functions().context("libssl.so.3 could not be loaded")?;
    let library = libraries_of(std::process::id())?;
    let library = library.first().context("the library is not mapped")?;
    let mut nets = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let without = [time(read)?, time(write)?];
        let attached = kernel
            .attach_openssl(&library.path)
            .map_err(anyhow::Error::msg)?;
        let with = [time(read)?, time(write)?];
        // Statistics take time themselves, so the run time is that of other calls.
        let before = kernel.run_stats();
        let statistics = enable_run_stats().context("statistics need CAP_SYS_ADMIN")?;
        time(read)?;
        drop(statistics);
        let after = kernel.run_stats();
        kernel.detach_openssl(attached);
        let run_time_ns: u64 = ["tls_read", "tls_read_done"]
            .iter()
            .map(|name| after[*name].run_time_ns - before[*name].run_time_ns)
            .sum();
        let net = [with[0] - without[0], with[1] - without[1]];
        nets[0].push(net[0]);
        nets[1].push(net[1]);
        nets[2].push((net[0] - run_time_ns as f64 / CALLS as f64) / 2.0);
    }
    let [read_ns, write_ns, trap_ns] = nets.map(median);
    Ok(CallCost {
        read_ns,
        write_ns,
        trap_ns,
    })
}

/// Nanoseconds of CPU time per call.
fn time(function: Transfer) -> Result<f64> {
    let begun = thread_cpu_time();
    for _ in 0..CALLS {
        // SAFETY: a negative length is refused before the pointers are looked at.
        let result = unsafe { function(ptr::null_mut(), ptr::null_mut(), -1) };
        ensure!(result == -1, "the function did not fail: {result}");
    }
    Ok((thread_cpu_time() - begun).as_nanos() as f64 / CALLS as f64)
}

fn functions() -> Option<[Transfer; 2]> {
    // SAFETY: the name ends with NUL; the library stays loaded.
    let library = unsafe { libc::dlopen(c"libssl.so.3".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return None;
    }
    let function = |name: &CStr| {
        // SAFETY: the library is loaded, the name ends with NUL.
        let address = unsafe { libc::dlsym(library, name.as_ptr()) };
        // SAFETY: it is a function of this type (SSL_read(3), SSL_write(3)).
        (!address.is_null())
            .then(|| unsafe { std::mem::transmute::<*mut c_void, Transfer>(address) })
    };
    Some([function(c"SSL_read")?, function(c"SSL_write")?])
}
