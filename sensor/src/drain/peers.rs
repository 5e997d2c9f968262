//! Who answers at which address, for those who see only the asking side.
//!
//! What is new is said at once, and everything again now and then, for readers
//! that came later.

use std::collections::BTreeMap;

use honeyguide_proto::ServiceId;
use sensor_common::peer::{Endpoint, ServiceRef};

use super::{Drained, KnownService, routes::Routes};
use crate::{
    program::{Kernel, peers::Answering},
    routes::text,
};

/// Endpoints of one window at most; the rest is said in the next.
const SAID_PER_WINDOW_MAX: usize = 512;
/// Windows until a known endpoint is said again.
const SAY_AGAIN_WINDOWS: u64 = 30;
/// Windows until an endpoint is forgotten that is not there any more.
const FORGET_WINDOWS: u64 = 4 * SAY_AGAIN_WINDOWS;

/// Who answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainedEndpoint {
    /// As [`Route::peer`](honeyguide_proto::Route::peer) has it.
    pub address: String,
    /// Who answers.
    pub service: ServiceId,
    /// Number of the only service for which it is so; `None`: for all.
    pub asked_by: Option<u32>,
}

/// What was said when.
#[derive(Debug, Default)]
pub(super) struct Peers {
    answering: Answering,
    said: BTreeMap<(Option<ServiceId>, String), (ServiceId, u64)>,
    windows: u64,
}

impl Peers {
    /// Adds to `window` what is to be said of who answers where.
    pub fn drain(
        &mut self,
        kernel: &mut Kernel,
        routes: &Routes,
        services: &BTreeMap<u32, KnownService>,
        window: &mut Drained,
    ) {
        if let Some(answering) = kernel.peers() {
            self.answering = answering;
        }
        self.windows += 1;
        let number = |server: &ServiceRef| {
            let known = services.get(&server.index);
            let known = known.filter(|known| known.generation == server.generation);
            known.map(|known| known.number)
        };
        let listeners = self.answering.listeners.iter();
        let everywhere = listeners
            .filter(|(endpoint, _)| !endpoint.is_loopback())
            .filter_map(|(endpoint, server)| Some((None, text(endpoint), number(server)?)));
        let tables = kernel.tables().routes();
        let asked = routes.peers().filter_map(|asked| {
            let (key, path) = tables.route(asked.slot)?;
            let endpoint = Endpoint::from_bytes(*path.bytes.first_chunk()?);
            let of_loopback = || {
                let listener = self.answering.listeners.get(&endpoint);
                listener.filter(|_| endpoint.is_loopback())
            };
            let joined = self.answering.answerers.get(&key);
            let server = number(joined.or_else(of_loopback)?)?;
            let address = window.routes.name(asked.number).2.peer()?;
            Some((Some(asked.service), address.to_owned(), server))
        });
        let all: Vec<(Option<u32>, String, u32)> = everywhere.chain(asked).collect();
        for (asked_by, address, server) in all {
            if window.endpoints.len() >= SAID_PER_WINDOW_MAX {
                break;
            }
            let service = window.service(server).clone();
            let client = asked_by.map(|number| window.service(number).clone());
            let said = self
                .said
                .entry((client, address.clone()))
                .or_insert_with(|| (service.clone(), 0));
            if said.1 != 0 && said.0 == service && self.windows - said.1 < SAY_AGAIN_WINDOWS {
                continue;
            }
            *said = (service.clone(), self.windows);
            window.endpoints.push(DrainedEndpoint {
                address,
                service,
                asked_by,
            });
        }
        self.said
            .retain(|_, (_, at)| self.windows - *at < FORGET_WINDOWS);
    }
}
