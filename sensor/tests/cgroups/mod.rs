//! Cgroups of a test's own, in every hierarchy that the sensor may look at.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// Where a hierarchy of version 2 is mounted.
pub fn v2_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut of_v2 = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[2] == "cgroup2").then(|| PathBuf::from(fields[1]))
    });
    of_v2.next().expect("cgroup2 is mounted")
}

/// A group at the top of the hierarchies; with it what runs in it ends.
pub struct Group {
    pub name: String,
    /// In the hierarchy of version 2.
    pub v2: PathBuf,
    /// Where `cpu.stat` counts its quota.
    pub cpu: PathBuf,
    children: Vec<Child>,
}

impl Group {
    /// `kind` is the suffix of the name, which says who it belongs to.
    pub fn new(name: &str, kind: &str) -> Self {
        let name = format!("hg-{name}-{}.{kind}", std::process::id());
        let root = v2_root();
        let v2 = root.join(&name);
        fs::create_dir(&v2).unwrap();
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        let cpu = match v1.join("cpu.cfs_quota_us").exists() {
            true => v1.join(&name),
            false => v2.clone(),
        };
        let group = Self {
            name,
            v2,
            cpu,
            children: Vec::new(),
        };
        match group.cpu == group.v2 {
            true => fs::write(root.join("cgroup.subtree_control"), "+cpu").unwrap(),
            false => fs::create_dir(&group.cpu).unwrap(),
        }
        group
    }

    /// Allows a fifth of one CPU.
    pub fn allow_a_fifth(&self) {
        match self.cpu == self.v2 {
            true => fs::write(self.cpu.join("cpu.max"), "20000 100000").unwrap(),
            false => {
                fs::write(self.cpu.join("cpu.cfs_period_us"), "100000").unwrap();
                fs::write(self.cpu.join("cpu.cfs_quota_us"), "20000").unwrap();
            }
        }
    }

    /// Runs a line of shell in it.
    pub fn run(&mut self, line: &str) {
        let [v2, cpu] = [&self.v2, &self.cpu].map(|group| group.join("cgroup.procs"));
        let enter = format!("echo $$ > {}; echo $$ > {}; ", v2.display(), cpu.display());
        let child = Command::new("/bin/sh")
            .args(["-c", &(enter + line)])
            .spawn();
        self.children.push(child.unwrap());
    }

    /// Ends what runs in it.
    pub fn end(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A number in `cpu.stat`.
    pub fn cpu_stat(&self, field: &str) -> u64 {
        let text = fs::read_to_string(self.cpu.join("cpu.stat")).unwrap();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(field));
        values.next().unwrap().trim().parse().unwrap()
    }

    /// The file with its CPU pressure.
    pub fn cpu_pressure(&self) -> PathBuf {
        self.v2.join("cpu.pressure")
    }
}

/// For how long some task was stalled, by a file of PSI.
pub fn stalled(pressure: &Path) -> Duration {
    let text = fs::read_to_string(pressure).unwrap();
    let some = text.lines().next().unwrap();
    let (_, total) = some.rsplit_once("total=").unwrap();
    Duration::from_micros(total.parse().unwrap())
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
        // What a shell started ends a little later.
        let deadline = Instant::now() + Duration::from_secs(5);
        for path in [&self.v2, &self.cpu] {
            while path.exists() && fs::remove_dir(path).is_err() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
