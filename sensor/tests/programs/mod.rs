//! Programs under names of their own.

use std::{path::Path, process::Command};

/// Copies an executable, so that its events are its own. Another process does it:
/// while one of ours has it open for writing, whoever another test starts would
/// have it, too, and "Text file busy" is all that running it gives.
pub fn copy(of: impl AsRef<Path>, to: &Path) {
    let copied = Command::new("cp").arg(of.as_ref()).arg(to).status();
    assert!(copied.unwrap().success(), "no copy of {:?}", of.as_ref());
}
