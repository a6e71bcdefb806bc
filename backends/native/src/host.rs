//! What this host allows: rights, shim, cgroups, and what of it the fingerprint says.

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::request::RUNTIME;
use crate::users;
use marram_backend_api::{Fingerprint, Health, Limit, Runtime, Usage};
use marram_shim::process;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Looked at once: mounts and rights of a host do not change under a running engine.
#[derive(Debug)]
pub(crate) struct Host {
    uid: u32,
    cgroups: Result<Cgroups, String>,
    limits: Vec<(&'static str, Result<(), String>)>,
}

impl Host {
    /// Looks at this host.
    pub(crate) fn look(config: &Config) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let cgroups = match uid {
            0 => Cgroups::find(config.cgroup_parent.as_deref()),
            _ => Err(format!("limits need root rights, this runs as user {uid}")),
        };
        let limits = match &cgroups {
            Ok(found) => found.enforced().map_err(|error| error.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        let none =
            |why: String| ["memory", "cpu", "pids"].map(|name| (name, Err(why.clone()))).to_vec();
        Self { uid, cgroups, limits: limits.unwrap_or_else(none) }
    }

    /// The cgroups, or why there are none.
    pub(crate) fn cgroups(&self) -> Result<&Cgroups, &str> {
        self.cgroups.as_ref().map_err(String::as_str)
    }

    /// Whether a limit holds, or why not.
    pub(crate) fn enforces(&self, name: &str) -> Result<(), String> {
        let found = self.limits.iter().find(|(known, _)| *known == name);
        found.map_or(Err("it is not known".into()), |(_, enforced)| enforced.clone())
    }

    /// What works here.
    pub(crate) fn fingerprint(&self, config: &Config) -> Fingerprint {
        let limits = self.limits.iter().cloned();
        Fingerprint {
            health: self.health(config),
            version: String::new(),
            runtimes: vec![Runtime {
                name: RUNTIME.into(),
                version: rustix::system::uname().release().to_string_lossy().into_owned(),
            }],
            virtualizations: vec![RUNTIME.into()],
            limits: limits.map(|(name, enforced)| Limit { name, enforced }).collect(),
        }
    }

    fn health(&self, config: &Config) -> Health {
        if let Some(missing) = shim_missing(&config.shim) {
            return Health::Undetected(missing);
        }
        if self.uid != 0 {
            let uid = self.uid;
            return Health::Unhealthy(format!(
                "native programs need an engine with root rights, to change user and to write \
                 cgroups; this one runs as user {uid}"
            ));
        }
        if let Err(error) = std::fs::create_dir_all(&config.state_dir) {
            let dir = config.state_dir.display();
            return Health::Unhealthy(format!("state directory {dir}: {error}"));
        }
        match users::find(&config.user, Path::new("/etc")) {
            Err(why) => Health::Unhealthy(format!("the default user: {why}")),
            Ok(user) if user.uid == 0 => {
                Health::Unhealthy("the default user is root; name one without rights".into())
            }
            Ok(_) => Health::Healthy,
        }
    }
}

/// What the processes below a shim use, for hosts without cgroups. Those that have ended are
/// forgotten, so the processor time may go back.
pub(crate) fn usage_below(shim: u32) -> io::Result<Usage> {
    let page_bytes = rustix::param::page_size() as u64;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let mut usage = Usage::default();
    for pid in process::descendants(shim)? {
        // Ended meanwhile.
        let Ok(stat) = process::Stat::of(pid) else { continue };
        usage.cpu_usec += stat.cpu_ticks.saturating_mul(1_000_000) / ticks_per_second;
        usage.memory_bytes += stat.resident_pages.saturating_mul(page_bytes);
        usage.pids += stat.threads;
    }
    Ok(usage)
}

fn shim_missing(shim: &Path) -> Option<String> {
    match std::fs::metadata(shim) {
        Err(error) => Some(format!("the shim {}: {error}", shim.display())),
        Ok(metadata) if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 => {
            Some(format!("the shim {} is no program", shim.display()))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_root_the_fingerprint_says_so() {
        let config = Config::new("/tmp/never-made", "/bin/sh");
        let host = Host { uid: 1000, cgroups: Err("why".into()), limits: Vec::new() };
        let Health::Unhealthy(why) = host.fingerprint(&config).health else { panic!("healthy") };
        assert!(why.contains("user 1000") && why.contains("root rights"), "{why}");
        assert_eq!(host.enforces("memory"), Err("it is not known".into()));
        assert!(!config.state_dir.exists(), "a refusal left something");
    }

    #[test]
    fn without_a_shim_it_is_not_there() {
        for missing in ["/no/such/shim", "/etc/passwd", "/etc"] {
            let host = Host { uid: 0, cgroups: Err("why".into()), limits: Vec::new() };
            let print = host.fingerprint(&Config::new("/tmp/never-made", missing));
            assert!(matches!(print.health, Health::Undetected(_)), "{missing}");
        }
    }
}
