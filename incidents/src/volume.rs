//! A disk of its own with a bound on what it does in a second: a file system on
//! a loop device, whose backing file's requests are throttled by group. So the
//! wait is inside requests of the loop device, as it is with a disk that is slow.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    group::Group,
    process::{answer, run},
};

/// Size of the file system.
const BYTES: u64 = 400 << 20;
/// Attempts to unmount it, a fifth of a second apart.
const UNMOUNT_ATTEMPTS: usize = 50;

/// A mounted volume; unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    mounted: PathBuf,
    device: String,
    /// `major:minor` of the disk behind.
    disk: String,
}

impl Volume {
    /// Makes and mounts one in a folder.
    pub fn make(folder: &Path) -> Result<Volume> {
        let image = folder.join("volume.img");
        File::create(&image)?.set_len(BYTES)?;
        let path = image.to_string_lossy().into_owned();
        run("mkfs.ext4", &["-q", &path])?;
        let device = answer("losetup", &["--find", "--show", "--direct-io=on", &path])?;
        let mut volume = Volume {
            mounted: folder.join("volume"),
            device,
            disk: disk_of(&image)?,
        };
        fs::create_dir(&volume.mounted)?;
        volume.mount()?;
        Ok(volume)
    }

    fn mount(&mut self) -> Result<()> {
        run("mount", &[&self.device, &self.mounted.to_string_lossy()])
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Forgets what of it is in memory.
    pub fn remount(&mut self) -> Result<()> {
        run("umount", &[&self.mounted.to_string_lossy()])?;
        self.mount()
    }

    /// Bounds the requests a second that a group's processes make.
    pub fn set_iops(&self, group: &Group, iops: f64) -> Result<()> {
        let value = format!("{} {:.0}", self.disk, iops.max(1.0));
        group.set("blkio.throttle.write_iops_device", &value)?;
        group.set("blkio.throttle.read_iops_device", &value)
    }
}

/// The whole disk that a file is on: throttling knows no partitions.
fn disk_of(path: &Path) -> Result<String> {
    let device = fs::metadata(path)?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let block = format!("/sys/dev/block/{major}:{minor}");
    let whole = Path::new(&block).join("../dev");
    let is_partition = Path::new(&block).join("partition").exists();
    if !is_partition {
        return Ok(format!("{major}:{minor}"));
    }
    let text = fs::read_to_string(&whole).with_context(|| format!("no disk behind {block}"))?;
    Ok(text.trim().to_owned())
}

impl Drop for Volume {
    fn drop(&mut self) {
        let mounted = self.mounted.to_string_lossy();
        // Who was killed lets go of it a moment later.
        let mut unmounted = run("umount", &[&mounted]);
        for _ in 0..UNMOUNT_ATTEMPTS {
            if unmounted.is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(200));
            unmounted = run("umount", &[&mounted]);
        }
        if let Err(error) = unmounted.and_then(|()| run("losetup", &["-d", &self.device])) {
            eprintln!("{} stays: {error:#}", self.device);
        }
    }
}
