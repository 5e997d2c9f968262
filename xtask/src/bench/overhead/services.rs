//! A host full of services: many processes that each do a little of everything
//! the sensor measures, once a second.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// Hidden subcommand that makes this program a service.
pub const BUSY_SERVICE: &str = "busy-service";

const PERIOD: Duration = Duration::from_secs(1);

/// Running services; they end with the value.
pub struct Services(Vec<Child>);

impl Services {
    /// Starts `count` of them.
    pub fn start(count: usize) -> Result<Self> {
        let program = env::current_exe()?;
        let mut services = Self(Vec::with_capacity(count));
        for number in 0..count {
            let child = Command::new(&program)
                .args([BUSY_SERVICE, &format!("service-{number}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("failed to start a service")?;
            services.0.push(child);
        }
        Ok(services)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already is what is wanted.
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Is the service `name`: asks itself over TCP once a second, for ever.
pub fn serve(name: &str) -> Result<()> {
    // What the sensor tells services apart by where they share a cgroup.
    fs::write("/proc/self/comm", name)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let mut bytes = [0; 64];
    loop {
        client.write_all(&bytes)?;
        server.read_exact(&mut bytes)?;
        server.write_all(&bytes)?;
        client.read_exact(&mut bytes)?;
        thread::sleep(PERIOD);
    }
}
