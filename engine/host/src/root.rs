//! Reading small files below a root directory.
//!
//! Why apart: with `/` as root this reads the machine, with a directory of a test the files
//! of a board that is not here. Nothing else in the crate opens a file.
//!
//! Invariant: at most [`FILE_BYTES_MAX`] bytes of a file are ever held.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most that is read of one file. The longest are `mountinfo` of a node with hundreds of
/// containers and `net/dev` with an interface for each: 512 workloads make about 150 KiB.
pub const FILE_BYTES_MAX: usize = 512 * 1024;

/// Where the machine's files are found.
#[derive(Clone, Debug)]
pub struct Root {
    directory: PathBuf,
    live: bool,
}

impl Root {
    /// This machine.
    pub fn host() -> Self {
        Self { directory: PathBuf::from("/"), live: true }
    }

    /// A directory that holds the files of some machine. What only a system call can tell
    /// (addresses, NVIDIA's library) is absent then.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), live: false }
    }

    /// Whether this is the machine that we run on.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Where an absolute path of the machine is found.
    pub(crate) fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.directory.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The whole text of a file, or its beginning if it is too long. Bytes that are not UTF-8
    /// become replacement characters.
    pub(crate) fn text(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let mut buffer = Buffer::default();
        buffer.fill(&self.path(absolute))?;
        Some(String::from_utf8_lossy(&buffer.bytes).into_owned())
    }

    /// The text of a file of one line, without space around it and without the NUL that ends
    /// a string of the device tree; `None` if nothing is left.
    pub(crate) fn line(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let text = self.text(absolute)?;
        let line = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// A file that holds one number.
    pub(crate) fn number(&self, absolute: impl AsRef<Path>) -> Option<u64> {
        self.line(absolute)?.parse().ok()
    }

    /// The names in a directory, sorted so that numbers count (`card2` before `card10`).
    pub(crate) fn names(&self, absolute: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(absolute)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| {
            let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            let number = name.get(digits..).and_then(|digits| digits.parse::<u64>().ok());
            (name.get(..digits).map(str::to_owned), number, name.clone())
        });
        names
    }

    pub(crate) fn exists(&self, absolute: impl AsRef<Path>) -> bool {
        self.path(absolute).exists()
    }

    /// The last name of what a link points to: how sysfs says which driver or device.
    pub(crate) fn link_name(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(absolute)).ok()?;
        target.file_name()?.to_str().map(str::to_owned)
    }
}

/// A buffer that is filled again and again, so that sampling does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// The text of a file that is already known to be below the root. `None` if it cannot be
    /// read, is not UTF-8, or is too long to be read whole (half a table would be a wrong sum).
    pub(crate) fn read(&mut self, path: &Path) -> Option<&str> {
        self.fill(path)?;
        if self.bytes.len() >= FILE_BYTES_MAX {
            return None;
        }
        str::from_utf8(&self.bytes).ok()
    }

    fn fill(&mut self, path: &Path) -> Option<()> {
        self.bytes.clear();
        let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
        File::open(path).ok()?.take(limit).read_to_end(&mut self.bytes).ok()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_as_people_count() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["card10", "card2", "card0-HDMI-A-1", "card0", "version"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let names = Root::at(directory.path()).names("/");
        assert_eq!(names, ["card0", "card2", "card10", "card0-HDMI-A-1", "version"]);
    }

    #[test]
    fn a_file_that_is_too_long_is_no_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        fs::write(&path, "x".repeat(FILE_BYTES_MAX + 10)).unwrap();
        assert_eq!(Buffer::default().read(&path), None);
        let head = Root::at(directory.path()).text("/long").unwrap();
        assert_eq!(head.len(), FILE_BYTES_MAX);
    }

    #[test]
    fn lines_are_trimmed_of_what_the_device_tree_adds() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("model"), "Raspberry Pi 4\0").unwrap();
        fs::write(directory.path().join("empty"), "\0\n").unwrap();
        let root = Root::at(directory.path());
        assert_eq!(root.line("/model").as_deref(), Some("Raspberry Pi 4"));
        assert_eq!(root.line("/empty"), None);
        assert_eq!(root.line("/absent"), None);
    }
}
