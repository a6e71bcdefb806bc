//! What is on disk of a workload: the words between engine and shim.
//!
//! Why files and not a socket: either side may be away or of another version, and what is
//! written stays true.
//!
//! ```text
//! DIR/spec.json      engine → shim   what to run; there: the workload is prepared
//! DIR/lock           POSIX write lock, held by the shim while it lives; the kernel tells by
//!                    whom, so that no recorded id has to be believed
//! DIR/alive          FIFO that the shim holds open: its end of file wakes the engine
//! DIR/running.json   shim → engine   the program runs, or has run
//! DIR/killed         engine → shim   from here on a SIGKILL is the engine's, not the kernel's
//! DIR/exit.json      shim → engine   how it ended; written whole or not at all
//! DIR/log/           see [`crate::log`]
//! ```
//!
//! Invariants:
//! - `exit.json` is there before `alive` ends, unless the shim was killed;
//! - JSON only grows: new fields have defaults, so that each side reads the other's past.

use crate::cgroup::Group;
use crate::launch::Program;
use crate::process::Identity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Orders for the shim.
pub const SPEC: &str = "spec.json";
/// Held while the shim lives.
pub const LOCK: &str = "lock";
/// Ends when the shim ends.
pub const ALIVE: &str = "alive";
/// Present once the program was started.
pub const RUNNING: &str = "running.json";
/// Present once the engine has begun to kill.
pub const KILLED: &str = "killed";
/// Present once the program has ended.
pub const EXIT: &str = "exit.json";
/// Directory of the output.
pub const LOG: &str = "log";

/// Largest of these files that is read: a specification is bounded by the SLA's 1 MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Orders for `marram-shim run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Told from an earlier workload of the same id by this random text.
    pub incarnation: String,
    /// What to become.
    pub program: Program,
    /// Where its processes are kept; `None` where there is no usable cgroup.
    pub group: Option<Group>,
    /// How much output is kept.
    pub log_bytes_max: u64,
    /// Own mount and process-id namespaces.
    #[serde(default)]
    pub private_namespaces: bool,
}

/// The program was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its first process.
    #[serde(flatten)]
    pub process: Identity,
    /// By the wall clock.
    pub started_unix_ms: u64,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub reason: Reason,
    /// By the wall clock.
    pub at_unix_ms: u64,
}

/// Why a program ended; the same distinctions as the backends' contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, for its memory limit.
    OutOfMemory,
    /// Nobody saw how.
    Lost,
}

/// Reads one of the files; `None` if it is not there.
pub fn load<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    let path = dir.join(name);
    let too_big =
        || io::Error::other(format!("{} has over {FILE_BYTES_MAX} bytes", path.display()));
    let text = match File::open(&path) {
        Ok(file) => {
            let mut text = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX + 1), &mut text)?;
            text
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_big());
    }
    let value = serde_json::from_slice(&text)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    Ok(Some(value))
}

/// Writes one of the files: whole or not at all, readable by its owner only.
///
/// Not forced to the medium: after a power loss no process is left that it could speak of,
/// and flash is spared.
pub fn store<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let draft = dir.join(format!("{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&text)?;
    drop(file);
    fs::rename(&draft, dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_are_these_bytes() {
        let ended = Ended { reason: Reason::Code(3), at_unix_ms: 17 };
        let golden = r#"{"reason":{"code":3},"at_unix_ms":17}"#;
        assert_eq!(serde_json::to_string(&ended).unwrap(), golden);
        let oom = Ended { reason: Reason::OutOfMemory, at_unix_ms: 0 };
        let golden = r#"{"reason":"out_of_memory","at_unix_ms":0}"#;
        assert_eq!(serde_json::to_string(&oom).unwrap(), golden);
        let process = Identity { pid: 7, start_ticks: 8, boot_id: "b".into() };
        let running = Running { process, started_unix_ms: 9 };
        let golden = r#"{"pid":7,"start_ticks":8,"boot_id":"b","started_unix_ms":9}"#;
        assert_eq!(serde_json::to_string(&running).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Running>(golden).unwrap(), running);
    }

    #[test]
    fn a_file_is_absent_whole_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load::<Ended>(dir.path(), EXIT).unwrap(), None);
        let ended = Ended { reason: Reason::Signal(9), at_unix_ms: 1 };
        store(dir.path(), EXIT, &ended).unwrap();
        assert_eq!(load(dir.path(), EXIT).unwrap(), Some(ended));
        fs::write(dir.path().join(EXIT), b"{").unwrap();
        assert!(load::<Ended>(dir.path(), EXIT).is_err());
        fs::write(dir.path().join(EXIT), vec![b' '; (4 << 20) + 1]).unwrap();
        assert!(load::<Ended>(dir.path(), EXIT).is_err());
    }
}
