//! Space on the disk that holds a directory.

use std::path::Path;

/// Space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Disk {
    /// All of it.
    pub total_bytes: u64,
    /// What a program without privileges may still take.
    pub free_bytes: u64,
}

impl Disk {
    /// Of the file system that holds `directory`, or of the nearest directory above that is
    /// there: the state directory may not have been made yet.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let there = directory.ancestors().find(|ancestor| ancestor.is_dir())?;
        let found = rustix::fs::statvfs(there).ok()?;
        Some(Self {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}
