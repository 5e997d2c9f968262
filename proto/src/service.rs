//! Who a series belongs to.

use std::fmt;

/// Longest part of a [`ServiceId`] in bytes (a Kubernetes name has at most 253).
pub const PART_LEN_MAX: usize = 253;

/// What kind of thing owns a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// A container of a Kubernetes pod.
    Kubernetes,
    /// A container outside of Kubernetes.
    Container,
    /// A systemd unit.
    Systemd,
    /// An executable.
    Process,
    /// The machine itself.
    Host,
}

impl ServiceKind {
    const ALL: [ServiceKind; 5] = [
        ServiceKind::Kubernetes,
        ServiceKind::Container,
        ServiceKind::Systemd,
        ServiceKind::Process,
        ServiceKind::Host,
    ];

    /// The first part of a service key.
    pub const fn name(self) -> &'static str {
        match self {
            ServiceKind::Kubernetes => "k8s",
            ServiceKind::Container => "container",
            ServiceKind::Systemd => "systemd",
            ServiceKind::Process => "process",
            ServiceKind::Host => "host",
        }
    }
}

/// Identity of a service, the same on every node it runs on.
///
/// Its canonical text, [`key`](Self::key), decides the partition and is what
/// users type: `k8s/shop/cart/app`, `systemd/nginx.service`, `process/postgres`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    kind: ServiceKind,
    namespace: String,
    name: String,
    container: String,
}

/// Why a text is no service identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceIdError {
    /// No known kind, or not the number of parts the kind has.
    #[error(
        "`{0}` is no service key (expected e.g. `process/nginx` or `k8s/namespace/pod/container`)"
    )]
    Form(String),
    /// A part is empty, too long, or holds a control character or `/`.
    #[error(
        "the {part} of the service is empty, longer than {PART_LEN_MAX} bytes or not printable"
    )]
    Part {
        /// Which part.
        part: &'static str,
    },
}

impl ServiceId {
    /// A service with one name.
    ///
    /// # Errors
    /// [`ServiceIdError::Part`] if the name cannot be one.
    pub fn new(kind: ServiceKind, name: &str) -> Result<Self, ServiceIdError> {
        Self::from_parts(kind, ["", name, ""])
    }

    /// A container of a Kubernetes pod.
    ///
    /// # Errors
    /// [`ServiceIdError::Part`] if a part cannot be one.
    pub fn kubernetes(
        namespace: &str,
        name: &str,
        container: &str,
    ) -> Result<Self, ServiceIdError> {
        Self::from_parts(ServiceKind::Kubernetes, [namespace, name, container])
    }

    /// From `[namespace, name, container]`; the outer two only for Kubernetes.
    ///
    /// # Errors
    /// [`ServiceIdError::Part`] if a part cannot be one.
    pub fn from_parts(kind: ServiceKind, parts: [&str; 3]) -> Result<Self, ServiceIdError> {
        let [namespace, name, container] = parts;
        let kubernetes = kind == ServiceKind::Kubernetes;
        for (part, text, wanted) in [
            ("namespace", namespace, kubernetes),
            ("name", name, true),
            ("container", container, kubernetes),
        ] {
            let printable =
                text.len() <= PART_LEN_MAX && !text.contains(|c: char| c == '/' || c.is_control());
            if text.is_empty() == wanted || !printable {
                return Err(ServiceIdError::Part { part });
            }
        }
        Ok(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            container: container.to_owned(),
        })
    }

    /// A service named by text from outside: what cannot stand in a key is
    /// replaced by `_`, what is too long is cut.
    pub fn named(kind: ServiceKind, name: &str) -> Self {
        Self {
            kind,
            namespace: String::new(),
            name: printable(name),
            container: String::new(),
        }
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> ServiceKind {
        self.kind
    }

    /// `[namespace, name, container]`; empty where the kind has none.
    pub fn parts(&self) -> [&str; 3] {
        [&self.namespace, &self.name, &self.container]
    }

    /// The canonical text.
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// Parses a canonical text.
    ///
    /// # Errors
    /// [`ServiceIdError`] if it is not one.
    pub fn parse(key: &str) -> Result<Self, ServiceIdError> {
        let form = || ServiceIdError::Form(key.chars().take(PART_LEN_MAX).collect());
        let parts: Vec<&str> = key.split('/').collect();
        let kind = ServiceKind::ALL
            .into_iter()
            .find(|kind| kind.name() == parts[0]);
        match (kind.ok_or_else(form)?, &parts[1..]) {
            (ServiceKind::Kubernetes, [namespace, name, container]) => {
                Self::kubernetes(namespace, name, container)
            }
            (ServiceKind::Kubernetes, _) => Err(form()),
            (kind, [name]) => Self::new(kind, name),
            _ => Err(form()),
        }
    }
}

fn printable(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    while name.len() > PART_LEN_MAX {
        name.pop();
    }
    if name.is_empty() {
        "_".to_owned()
    } else {
        name
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ServiceKind::Kubernetes => {
                write!(f, "k8s/{}/{}/{}", self.namespace, self.name, self.container)
            }
            kind => write!(f, "{}/{}", kind.name(), self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_what_users_type() {
        let pod = ServiceId::kubernetes("shop", "cart", "app").unwrap();
        assert_eq!(pod.key(), "k8s/shop/cart/app");
        assert_eq!(
            ServiceId::named(ServiceKind::Process, "a/b\n").key(),
            "process/a_b_"
        );
    }

    #[test]
    fn malformed_keys_are_errors() {
        for key in [
            "",
            "process",
            "process/",
            "process/a/b",
            "k8s/a/b",
            "moon/x",
            "process/\n",
        ] {
            assert!(ServiceId::parse(key).is_err(), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_parse_back(name in ".{1,300}") {
            let id = ServiceId::named(ServiceKind::Process, &name);
            prop_assert_eq!(ServiceId::parse(&id.key()), Ok(id));
        }
    }
}
