//! Shims that containerd has forgotten.
//!
//! Why there are any: containerd stops what it does for a client that goes away. An engine that
//! is killed while its task is being deleted leaves the task out of containerd's books and the
//! shim not yet told to end ("the shim might be leaked", says its log), and nobody asks for that
//! shim again. One that is killed while its task is being made leaves a shim that goes away
//! soon; but who asks for the task again before that is given this very shim.
//!
//! Invariant: only a shim of this workload, this namespace and this daemon is ended, and only
//! when containerd knows of no task of the workload.

use crate::backend::Inner;
use marram_backend_api::{Error, ErrorKind, Result, WorkloadId};
use marram_shim::process::Identity;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const DOING: &str = "ending a forgotten shim";

/// How long a shim may take to end, by itself or when it is asked: it removes its socket.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Ends the shim of a workload that has no task any more.
pub(crate) async fn end(inner: &Inner, id: &WorkloadId) -> Result<()> {
    // At first nothing: it may be on its way out.
    for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
        let left = find(inner, id)?;
        if left.is_empty() {
            return Ok(());
        }
        if let Some(signal) = signal {
            for shim in &left {
                tracing::warn!(workload = %id, pid = shim.pid, ?signal, "containerd forgot a shim");
                shim.signal(signal);
            }
        }
        let until = Instant::now() + PATIENCE;
        while left.iter().any(Identity::is_alive) && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    match find(inner, id)?.first() {
        None => Ok(()),
        Some(shim) => {
            let why = format!("process {} was killed and is still there", shim.pid);
            Err(Error::new(ErrorKind::Transient, DOING, why))
        }
    }
}

fn find(inner: &Inner, id: &WorkloadId) -> Result<Vec<Identity>> {
    let failed = |error| Error::caused(ErrorKind::Internal, DOING, "/proc cannot be read", error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        // Whatever has gone meanwhile is none that is left.
        let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command);
        let words: Vec<&str> = command.split_terminator('\0').collect();
        let config = &inner.config;
        if is_shim_of(&words, &config.namespace, id.as_str(), &config.socket) {
            found.extend(Identity::of(pid));
        }
    }
    Ok(found)
}

/// Whether a command line is that of a workload's shim, or of what starts or removes one.
fn is_shim_of(words: &[&str], namespace: &str, id: &str, socket: &Path) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let value = |flag: &str| {
        let mut pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
        pairs.next().map(|pair| pair[1])
    };
    name.starts_with("containerd-shim")
        && value("-namespace") == Some(namespace)
        && value("-id") == Some(id)
        && value("-address").is_some_and(|address| Path::new(address) == socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_all_that_it_is_told() {
        let socket = Path::new("/run/containerd/containerd.sock");
        let is = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            is_shim_of(&words, "marram", "ab.0", socket)
        };
        let shim = "/usr/bin/containerd-shim-runc-v2";
        let flags = "-namespace marram -id ab.0 -address /run/containerd/containerd.sock";
        assert!(is(&format!("{shim} {flags}")));
        assert!(is(&format!("containerd-shim-kata-v2 -debug {flags}")));
        assert!(is(&format!("{shim} {flags} start")));
        for other in [
            String::new(),
            shim.to_owned(),
            format!("/bin/sh {flags}"),
            format!("{shim} {}", flags.replace("ab.0", "ab.01")),
            format!("{shim} {}", flags.replace("marram", "moby")),
            format!("{shim} {}", flags.replace("/run", "/srv")),
        ] {
            assert!(!is(&other), "{other}");
        }
    }
}
