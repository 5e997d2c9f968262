//! The network between clients and a node, to be disturbed.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

/// How often a connection looks at the state of the network.
const LOOK: Duration = Duration::from_millis(20);

const GOOD: u8 = 0;
const STALLED: u8 = 1;
const CUT: u8 = 2;
const ENDED: u8 = 3;

/// A TCP proxy on loopback that a node's clients go through.
#[derive(Debug)]
pub struct Network {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    /// Connections of an earlier one are broken.
    generation: AtomicU64,
}

impl Network {
    /// Begins to take connections to the node on port `node`.
    pub(crate) fn start(node: u16) -> Result<Network> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            state: AtomicU8::new(GOOD),
            generation: AtomicU64::new(0),
        });
        let of_listener = Arc::clone(&shared);
        thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || take_connections(&listener, node, &of_listener))?;
        Ok(Network { port, shared })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through any more; connections stay, and new ones get no
    /// answer: as packets that are dropped.
    pub fn stall(&self) {
        self.shared.state.store(STALLED, SeqCst);
    }

    /// Breaks all connections and takes no new ones.
    pub fn cut(&self) {
        self.shared.state.store(CUT, SeqCst);
        self.shared.generation.fetch_add(1, SeqCst);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.shared.state.store(GOOD, SeqCst);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.state.store(ENDED, SeqCst);
        self.shared.generation.fetch_add(1, SeqCst);
        // The listener sees the end when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn take_connections(listener: &TcpListener, node: u16, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        match shared.state.load(SeqCst) {
            ENDED => return,
            CUT => continue,
            _ => {}
        }
        let Ok(client) = client else {
            continue;
        };
        // What fails here is a connection that breaks.
        let _ = connect(client, node, shared);
    }
}

/// Carries bytes both ways, until either side ends or the network is cut.
fn connect(client: TcpStream, node: u16, shared: &Arc<Shared>) -> Result<()> {
    let node = TcpStream::connect(("127.0.0.1", node))?;
    let generation = shared.generation.load(SeqCst);
    for stream in [&client, &node] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let ways = [(client.try_clone()?, node.try_clone()?), (node, client)];
    for (from, to) in ways {
        let shared = Arc::clone(shared);
        thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || carry(from, to, &shared, generation))?;
    }
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared, generation: u64) {
    let mut bytes = vec![0; 64 << 10];
    let is_broken = || shared.generation.load(SeqCst) != generation;
    while !is_broken() {
        if shared.state.load(SeqCst) == STALLED {
            thread::sleep(LOOK);
            continue;
        }
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) => {
                // On the way when the network stalled: it does not arrive yet.
                while shared.state.load(SeqCst) == STALLED && !is_broken() {
                    thread::sleep(LOOK);
                }
                if is_broken() || to.write_all(&bytes[..len]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
            Err(_) => break,
        }
    }
    // The other way ends with it.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
