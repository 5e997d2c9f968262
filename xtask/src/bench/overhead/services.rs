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
    /// Starts `count` of them, with so many HTTP routes each; with none, what
    /// they ask themselves is no HTTP.
    pub fn start(count: usize, routes: usize) -> Result<Self> {
        let program = env::current_exe()?;
        let mut services = Self(Vec::with_capacity(count));
        for number in 0..count {
            let child = Command::new(&program)
                .args([
                    BUSY_SERVICE,
                    &format!("service-{number}"),
                    &routes.to_string(),
                ])
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

/// Is the service `name`: asks itself over TCP once a second, for ever, for one
/// after the other of its routes if it has any.
pub fn serve(name: &str, routes: usize) -> Result<()> {
    // What the sensor tells services apart by where they share a cgroup.
    fs::write("/proc/self/comm", name)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let (mut request, mut response) = (vec![0; 64], vec![0; 64]);
    for number in 0_usize.. {
        if let Some(route) = number.checked_rem(routes) {
            let letter = char::from(b'a' + route as u8 % 26);
            request = format!("GET /api/{name}/{letter} HTTP/1.1\r\nHost: bench\r\n\r\n").into();
            response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        client.write_all(&request)?;
        server.read_exact(&mut request)?;
        server.write_all(&response)?;
        client.read_exact(&mut response)?;
        thread::sleep(PERIOD);
    }
    Ok(())
}
