//! What a probe on a function of OpenSSL costs each call.
//!
//! The functions are called for a connection that is none yet, so that they do
//! nothing but fail; with and without the probes, in turns. What the kernel does not count as
//! run time of the programs are the traps.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_int, c_void},
    ptr,
};

use anyhow::{Context, Result, ensure};
use honeyguide_sensor::{
    cost::thread_cpu_time,
    program::{Kernel, RunStats, enable_run_stats},
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
    /// Of writing, likewise.
    pub write_ns: f64,
    /// Of the traps alone, per run of a program.
    pub trap_ns: f64,
}

/// Measures it; needs the library on this machine.
pub fn cost(kernel: &mut Kernel) -> Result<CallCost> {
    let library = Library::load().context("libssl.so.3 could not be loaded")?;
    let [read, write] = [library.read, library.write].map(|function| (function, library.ssl));
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
        let run_time_ns: u64 = ["tls_read_ex", "tls_read_done"]
            .iter()
            .map(|name| {
                let run_time_ns = |of: &BTreeMap<String, RunStats>| of[*name].run_time_ns;
                run_time_ns(&after) - run_time_ns(&before)
            })
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
fn time((function, ssl): (Transfer, *mut c_void)) -> Result<f64> {
    let mut buffer = [0u8; 16];
    let begun = thread_cpu_time();
    for _ in 0..CALLS {
        // SAFETY: a connection, and a buffer of that length.
        let result = unsafe { function(ssl, buffer.as_mut_ptr().cast(), buffer.len() as c_int) };
        ensure!(result == -1, "the function did not fail: {result}");
    }
    Ok((thread_cpu_time() - begun).as_nanos() as f64 / CALLS as f64)
}

/// The library, and a connection that is neither a client's nor a server's.
struct Library {
    read: Transfer,
    write: Transfer,
    ssl: *mut c_void,
}

impl Library {
    /// Loaded until the end.
    fn load() -> Option<Self> {
        type Make = unsafe extern "C" fn(*const c_void) -> *mut c_void;
        // SAFETY: the name ends with NUL.
        let library = unsafe { libc::dlopen(c"libssl.so.3".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        let address = |name: &CStr| {
            // SAFETY: the library is loaded, the name ends with NUL.
            let address = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!address.is_null()).then_some(address)
        };
        let make = |name, of: *mut c_void| {
            // SAFETY: they are functions of this type, or one without an argument
            // (SSL_CTX_new(3), SSL_new(3), TLS_method(3)).
            let made = unsafe { std::mem::transmute::<*mut c_void, Make>(address(name)?)(of) };
            (!made.is_null()).then_some(made)
        };
        let method = make(c"TLS_method", ptr::null_mut())?;
        let ssl = make(c"SSL_new", make(c"SSL_CTX_new", method)?)?;
        let transfer = |name| {
            // SAFETY: they are functions of this type (SSL_read(3), SSL_write(3)).
            Some(unsafe { std::mem::transmute::<*mut c_void, Transfer>(address(name)?) })
        };
        Some(Self {
            read: transfer(c"SSL_read")?,
            write: transfer(c"SSL_write")?,
            ssl,
        })
    }
}
