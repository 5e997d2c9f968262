//! Who answers at which address, as sensors tell it: the edges between
//! services. Pure.
//!
//! What a service asks of an address is a route of it with a
//! [peer](honeyguide_proto::Route::peer); this is the service behind.

use std::collections::BTreeMap;

use honeyguide_proto::{ServiceId, batch::Batch, v1};

/// Addresses of a partition at most; those that were told longest ago go first.
const ADDRESSES_MAX: usize = 16_384;
/// Nanoseconds until an address is forgotten that no sensor tells any more.
const FORGET_NS: u64 = 3_600_000_000_000;

/// Services by address.
#[derive(Debug, Default)]
pub struct AddressBook {
    /// By who asks (empty: everybody) and address.
    entries: BTreeMap<(String, String), Answerer>,
}

#[derive(Clone, Debug)]
struct Answerer {
    service: String,
    told_ns: u64,
}

impl AddressBook {
    /// Takes what a batch tells.
    pub fn learn(&mut self, batch: &Batch) {
        let told_ns = batch.header.window_end_ns();
        for endpoint in &batch.endpoints {
            let asked_by = endpoint
                .asked_by
                .map(|index| batch.services[index as usize].key().to_owned());
            let key = (asked_by.unwrap_or_default(), endpoint.address.clone());
            let service = endpoint.service.key().to_owned();
            let known = self.entries.get(&key);
            if known.is_none_or(|known| known.told_ns <= told_ns) {
                self.entries.insert(key, Answerer { service, told_ns });
            }
        }
        if self.entries.len() > ADDRESSES_MAX {
            self.forget_oldest();
        }
    }

    /// A quarter goes at once, so that this is rare.
    fn forget_oldest(&mut self) {
        let mut told: Vec<u64> = self.entries.values().map(|known| known.told_ns).collect();
        told.sort_unstable();
        let oldest_kept = told[told.len() - ADDRESSES_MAX * 3 / 4];
        self.entries.retain(|_, known| known.told_ns >= oldest_kept);
        // Where all were told at once, some have to go all the same.
        while self.entries.len() > ADDRESSES_MAX {
            self.entries.pop_last();
        }
    }

    /// Forgets what was not told for an hour.
    pub fn forget(&mut self, now_ns: u64) {
        self.entries
            .retain(|_, known| known.told_ns + FORGET_NS > now_ns);
    }

    /// The key of the service that answers `client` at `address`, if known.
    pub fn answerer(&self, client: &str, address: &str) -> Option<&str> {
        let of = |asked_by: &str| {
            let key = (asked_by.to_owned(), address.to_owned());
            self.entries.get(&key).map(|known| known.service.as_str())
        };
        of(client).or_else(|| of(""))
    }

    pub(crate) fn stored(&self) -> Vec<v1::AddressState> {
        self.entries
            .iter()
            .map(|((asked_by, address), known)| v1::AddressState {
                asked_by: asked_by.clone(),
                address: address.clone(),
                service: known.service.clone(),
                told_ns: known.told_ns,
            })
            .collect()
    }

    /// From [`stored`](Self::stored); entries whose service cannot be are left out.
    pub(crate) fn restored(stored: Vec<v1::AddressState>) -> Self {
        let entries = stored
            .into_iter()
            .take(ADDRESSES_MAX)
            .filter(|entry| ServiceId::parse(&entry.service).is_ok())
            .map(|entry| {
                let answerer = Answerer {
                    service: entry.service,
                    told_ns: entry.told_ns,
                };
                ((entry.asked_by, entry.address), answerer)
            });
        Self {
            entries: entries.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::{
        ServiceKind,
        batch::{Contents, Endpoint, Header},
    };

    use super::*;

    fn process(name: &str) -> ServiceId {
        ServiceId::named(ServiceKind::Process, name)
    }

    /// A batch of the service `web` at a time in seconds.
    fn batch(secs: u64, endpoints: &[Endpoint]) -> Batch {
        let header = Header {
            sensor_id: "node".to_owned(),
            boot_id: [1; 16],
            seq: 1,
            partition: 0,
            window_start_ns: secs * 1_000_000_000,
            window_duration_ns: 1_000_000_000,
            more: false,
        };
        let contents = Contents {
            services: &[process("web")],
            endpoints,
            ..Contents::default()
        };
        Batch::decode(&contents.encode(&header)).unwrap()
    }

    fn endpoint(address: &str, service: &str, asked_by: Option<u32>) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            service: process(service),
            asked_by,
        }
    }

    #[test]
    fn what_holds_for_one_client_comes_before_what_holds_for_all() {
        let mut book = AddressBook::default();
        book.learn(&batch(
            10,
            &[
                endpoint("10.0.0.1:80", "shop", None),
                endpoint("10.0.0.1:80", "proxy", Some(0)),
                endpoint("127.0.0.1:6379", "redis", Some(0)),
            ],
        ));
        assert_eq!(
            book.answerer("process/web", "10.0.0.1:80"),
            Some("process/proxy")
        );
        assert_eq!(
            book.answerer("process/x", "10.0.0.1:80"),
            Some("process/shop")
        );
        assert_eq!(
            book.answerer("process/web", "127.0.0.1:6379"),
            Some("process/redis")
        );
        assert_eq!(book.answerer("process/x", "127.0.0.1:6379"), None);
    }

    #[test]
    fn the_newest_counts_and_the_old_is_forgotten() {
        let mut book = AddressBook::default();
        book.learn(&batch(20, &[endpoint("10.0.0.1:80", "new", None)]));
        book.learn(&batch(10, &[endpoint("10.0.0.1:80", "old", None)]));
        assert_eq!(book.answerer("", "10.0.0.1:80"), Some("process/new"));
        let mut restored = AddressBook::restored(book.stored());
        assert_eq!(restored.answerer("", "10.0.0.1:80"), Some("process/new"));
        restored.forget(3_000 * 1_000_000_000);
        assert_eq!(restored.entries.len(), 1);
        restored.forget(4_000 * 1_000_000_000);
        assert!(restored.entries.is_empty());
    }

    #[test]
    fn there_is_a_bound_also_where_all_is_told_at_once() {
        let mut book = AddressBook::default();
        for part in 0..10u32 {
            let endpoints: Vec<_> = (0..4000)
                .map(|n| endpoint(&format!("10.{part}.{}.{}:80", n / 256, n % 256), "x", None))
                .collect();
            book.learn(&batch(10, &endpoints));
            assert!(book.entries.len() <= ADDRESSES_MAX);
        }
        assert!(book.entries.len() >= ADDRESSES_MAX / 2);
    }
}
