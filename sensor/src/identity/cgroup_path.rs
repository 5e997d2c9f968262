//! What a cgroup path says of its owner.
//!
//! Forms written by systemd, the kubelet (both cgroup drivers), containerd,
//! CRI-O, Docker and Podman.

use std::path::Path;

/// Length of a container id in hexadecimal digits.
const CONTAINER_ID_LEN: usize = 64;
/// Digits of a container id that tools show.
const SHORT_ID_LEN: usize = 12;

/// Who a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A pod, and which of its containers if the group is a container's.
    Pod {
        /// The pod's uid, with dashes.
        uid: String,
        /// First 12 digits of the container id.
        container: Option<String>,
    },
    /// A container outside of Kubernetes.
    Container {
        /// First 12 digits of the container id.
        id: String,
    },
    /// A systemd service.
    Unit {
        /// With its suffix, e.g. `nginx.service`.
        name: String,
    },
    /// None of these: executables tell services apart.
    Executable,
}

/// The owner of the group at `path`, relative to the root of its hierarchy.
pub fn owner(path: &Path) -> Owner {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let container = parts.iter().rev().find_map(|part| container_id(part));
    let pod = parts
        .iter()
        .position(|part| part.starts_with("kubepods"))
        .and_then(|at| parts[at..].iter().find_map(|part| pod_uid(part)));
    if let Some(uid) = pod {
        return Owner::Pod { uid, container };
    }
    if let Some(id) = container {
        return Owner::Container { id };
    }
    // A user's own manager is a unit too, but what it runs are separate programs.
    let in_session = parts.first().is_some_and(|part| *part == "user.slice");
    let unit = parts.iter().rev().find(|part| part.ends_with(".service"));
    match unit {
        Some(name)
            if !name.starts_with("user@") && (!in_session || parts.contains(&"app.slice")) =>
        {
            Owner::Unit {
                name: (*name).to_owned(),
            }
        }
        _ => Owner::Executable,
    }
}

/// The group that is the service as a whole of which the group at `path` is
/// part: the topmost with the same owner, where limits are set and which has
/// the times of all groups below it. Where executables tell services apart it is
/// the group itself, which they may share; `None` for the root, which all do.
pub fn service_group(path: &Path) -> Option<&Path> {
    match owner(path) {
        Owner::Executable => Some(path).filter(|path| !path.as_os_str().is_empty()),
        of => path.ancestors().filter(|above| owner(above) == of).last(),
    }
}

/// `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`, `libpod-<id>.scope`, ….
fn container_id(part: &str) -> Option<String> {
    // CRI-O's monitor of a container is not the container.
    if part.starts_with("crio-conmon-") || part.starts_with("libpod-conmon-") {
        return None;
    }
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit(['-', ':']).next()?;
    let is_id = id.len() == CONTAINER_ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id[..SHORT_ID_LEN].to_owned())
}

/// `pod<uid>` or `kubepods-burstable-pod<uid_with_underscores>.slice`.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.split(['.', ':']).next()?;
    let uid = match part.strip_prefix("pod") {
        Some(uid) => uid,
        None => part.rsplit_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f5dc7e0b4a1c7a2b3d4e5f60718293a4b5c6d7e8f901234567890abcdef0123";
    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

    fn check(path: &str, expected: Owner) {
        let path = path
            .replace("{id}", ID)
            .replace("{uid_}", &UID.replace('-', "_"))
            .replace("{uid}", UID);
        assert_eq!(owner(Path::new(&path)), expected, "{path}");
    }

    fn pod(container: bool) -> Owner {
        Owner::Pod {
            uid: UID.to_owned(),
            container: container.then(|| ID[..12].to_owned()),
        }
    }

    #[test]
    fn pods_of_both_drivers_and_all_runtimes() {
        for path in [
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
            "kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope",
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/docker-{id}.scope",
            "kubepods/burstable/pod{uid}/{id}",
            "kubepods/pod{uid}/{id}/init",
            "kubelet.slice/kubelet-kubepods.slice/kubepods/pod{uid}/{id}",
            "system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
        ] {
            check(path, pod(true));
        }
        check("kubepods/burstable/pod{uid}", pod(false));
    }

    #[test]
    fn containers_outside_of_kubernetes() {
        let container = Owner::Container {
            id: ID[..12].to_owned(),
        };
        for path in [
            "docker/{id}",
            "system.slice/docker-{id}.scope",
            "machine.slice/libpod-{id}.scope/container",
            "user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope",
        ] {
            check(path, container.clone());
        }
    }

    #[test]
    fn a_service_is_the_topmost_group_of_its_owner() {
        for (path, group) in [
            ("docker/{id}/init/deep", Some("docker/{id}")),
            (
                "kubepods/pod{uid}/{id}/init",
                Some("kubepods/pod{uid}/{id}"),
            ),
            (
                "kubepods/burstable/pod{uid}",
                Some("kubepods/burstable/pod{uid}"),
            ),
            (
                "system.slice/nginx.service/workers",
                Some("system.slice/nginx.service"),
            ),
            (
                "user.slice/session-3.scope",
                Some("user.slice/session-3.scope"),
            ),
            ("", None),
        ] {
            let [path, group] = [Some(path), group]
                .map(|path| path.map(|path| path.replace("{id}", ID).replace("{uid}", UID)));
            let path = path.unwrap();
            assert_eq!(
                service_group(Path::new(&path)),
                group.as_deref().map(Path::new)
            );
        }
    }

    #[test]
    fn units_and_what_is_none() {
        let unit = |name: &str| Owner::Unit {
            name: name.to_owned(),
        };
        check("system.slice/nginx.service", unit("nginx.service"));
        check(
            "system.slice/system-getty.slice/getty@tty1.service",
            unit("getty@tty1.service"),
        );
        check(
            "user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
            unit("syncthing.service"),
        );
        for path in [
            "",
            "init.scope",
            "user.slice/user-1000.slice/session-3.scope",
            "user.slice/user-1000.slice/user@1000.service/session.slice",
            "machine.slice/libpod-conmon-{id}.scope",
        ] {
            check(path, Owner::Executable);
        }
    }
}
