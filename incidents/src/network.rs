//! A network of its own for one server: a namespace behind a pair of virtual
//! interfaces, whose bandwidth and loss can be set.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::process::run;

/// Bytes that a bounded link sends at once.
const BURST: &str = "16kb";
/// How long a packet may wait for a bounded link.
const WAIT_MAX: &str = "300ms";

/// A namespace; removed when dropped, and the interfaces with it.
#[derive(Debug)]
pub struct Network {
    name: String,
    address: Ipv4Addr,
}

impl Network {
    /// Makes one; `slot` tells those apart that exist at a time.
    pub fn make(slot: u8) -> Result<Network> {
        let name = format!("hg-incident-{slot}");
        let (outer, inner) = (format!("hgi{slot}a"), format!("hgi{slot}b"));
        run("ip", &["netns", "add", &name])?;
        let network = Network {
            name,
            address: Ipv4Addr::new(10, 77, slot, 2),
        };
        run(
            "ip",
            &[
                "link", "add", &outer, "type", "veth", "peer", "name", &inner,
            ],
        )?;
        run("ip", &["link", "set", &inner, "netns", &network.name])?;
        run(
            "ip",
            &["addr", "add", &format!("10.77.{slot}.1/30"), "dev", &outer],
        )?;
        run("ip", &["link", "set", &outer, "up"])?;
        let address = format!("{}/30", network.address);
        network.inside(&["ip", "addr", "add", &address, "dev", &inner])?;
        network.inside(&["ip", "link", "set", &inner, "up"])?;
        network.inside(&["ip", "link", "set", "lo", "up"])?;
        Ok(network)
    }

    /// For [`Surroundings`](crate::process::Surroundings).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of a server inside.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    fn inside(&self, command: &[&str]) -> Result<()> {
        run("ip", &[&["netns", "exec", &self.name], command].concat())
    }

    fn interface(&self) -> String {
        format!("hgi{}b", self.address.octets()[2])
    }

    /// Bounds what a server inside sends, in bits per second.
    pub fn set_bandwidth(&self, bits_per_sec: f64) -> Result<()> {
        let rate = format!("{bits_per_sec:.0}bit");
        let interface = self.interface();
        self.inside(&[
            "tc", "qdisc", "replace", "dev", &interface, "root", "tbf", "rate", &rate, "burst",
            BURST, "latency", WAIT_MAX,
        ])
    }

    /// Loses a share of the packets, either way.
    pub fn set_loss(&self, share: f64) -> Result<()> {
        let per_million = format!("{:.0}", share * 1e6);
        let rule = |hook: &str| {
            format!(
                "add chain ip loss {hook} {{ type filter hook {hook} priority 0; }}\n\
                 flush chain ip loss {hook}\n\
                 add rule ip loss {hook} numgen random mod 1000000 < {per_million} drop\n"
            )
        };
        let rules = format!("add table ip loss\n{}{}", rule("input"), rule("output"));
        self.inside(&["nft", &rules])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}
