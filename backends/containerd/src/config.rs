//! What the operator says about containerd and about registries on this host.
//!
//! Why apart: the node's configuration embeds [`Registry`] and [`Mirror`] as they are, and
//! everything wrong in them is found when the backend is made, not at the first pull.

use marram_backend_api::{Error, ErrorKind, Limits, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where Debian, Fedora and Yocto put the daemon's socket.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Where containerd looks for its configuration unless told otherwise.
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// Longest namespace: containerd's own bound on identifiers.
const NAMESPACE_BYTES_MAX: usize = 76;

/// Everything the backend has to be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Namespace inside containerd; everything in it is ours.
    pub namespace: String,
    /// Snapshotter that holds root file systems (`overlayfs`, `native`, …).
    pub snapshotter: String,
    /// Folder for logs, fifos and marks of started workloads; made if absent.
    pub state_dir: PathBuf,
    /// The `marram-shim` program, which containerd starts to receive a container's output.
    pub shim_path: PathBuf,
    /// Parent of the workloads' cgroups, absolute within each hierarchy.
    pub cgroup_parent: String,
    /// containerd's configuration, read for the runtimes it lists. It need not exist.
    pub containerd_config: PathBuf,
    /// What is special about registries, by host as in an image's name (`docker.io`).
    pub registries: BTreeMap<String, Registry>,
    /// Names and passwords, in the form of Docker's `config.json`; read at each pull.
    pub credentials_file: Option<PathBuf>,
    /// Runtime of workloads that name none; `None` takes the first that is there.
    pub default_runtime: Option<String>,
    /// What the operator allows.
    pub limits: Limits,
}

/// How one registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Asked in this order before the registry itself.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// Never ask the registry itself: sites without internet fail at once instead of
    /// waiting for a name that does not resolve.
    #[serde(default)]
    pub mirrors_only: bool,
}

/// Another server that holds a registry's images.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `https://host[:port]`, or `http://host[:port]` with `insecure`.
    pub url: String,
    /// Plain HTTP is allowed to this mirror. Contents are checked by digest all the same,
    /// but a tag can be answered by whoever sits on the wire.
    #[serde(default)]
    pub insecure: bool,
}

impl Config {
    /// The usual places, with `state_dir` and `shim_path` from the caller.
    pub fn new(state_dir: impl Into<PathBuf>, shim_path: impl Into<PathBuf>) -> Self {
        Self {
            socket: SOCKET.into(),
            namespace: "marram".into(),
            snapshotter: "overlayfs".into(),
            state_dir: state_dir.into(),
            shim_path: shim_path.into(),
            cgroup_parent: "/marram".into(),
            containerd_config: CONTAINERD_CONFIG.into(),
            registries: BTreeMap::new(),
            credentials_file: None,
            default_runtime: None,
            limits: Limits::default(),
        }
    }

    /// Refuses what could only fail later.
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let name = self.namespace.as_bytes();
        if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.iter().all(|&b| plain(b)) {
            return Err(invalid(format!(
                "namespace {:?} is not 1 to {NAMESPACE_BYTES_MAX} letters, digits, '.', '_', '-'",
                self.namespace
            )));
        }
        let parent = &self.cgroup_parent;
        // All three travel in a URI to containerd's shim, which starts in another folder.
        let output = marram_shim::driver::Request {
            log: self.state_dir.join("log"),
            bytes_max: 0,
            exit: None,
            memory_counter: parent.starts_with('/').then(|| parent.into()),
        };
        output.uri(&self.shim_path).map_err(|error| {
            invalid(format!("{:?}, {:?} and {parent:?}: {error}", self.state_dir, self.shim_path))
        })?;
        if !parent.starts_with('/') || parent.len() < 2 || parent.contains("..") {
            return Err(invalid(format!("cgroup_parent {parent:?} is not a path such as /marram")));
        }
        for (host, registry) in &self.registries {
            for mirror in &registry.mirrors {
                mirror.host().map_err(|why| invalid(format!("mirror of {host:?}: {why}")))?;
            }
        }
        Ok(())
    }
}

impl Mirror {
    /// The host and port, after checking the whole URL.
    pub(crate) fn host(&self) -> std::result::Result<&str, String> {
        let host = match (self.url.strip_prefix("https://"), self.url.strip_prefix("http://")) {
            (Some(host), _) => host,
            (None, Some(host)) if self.insecure => host,
            (None, Some(_)) => {
                return Err(format!("{:?} is plain http and not marked insecure", self.url));
            }
            (None, None) => return Err(format!("{:?} is no https:// or http:// URL", self.url)),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(fits) {
            return Err(format!("{:?} is not a scheme, a host and a port only", self.url));
        }
        Ok(host)
    }
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::Invalid, "reading the containerd configuration", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mirror(url: &str, insecure: bool) -> Config {
        let mut config = Config::new("/var/lib/marram", "/usr/bin/marram-shim");
        let mirrors = vec![Mirror { url: url.into(), insecure }];
        config.registries.insert("docker.io".into(), Registry { mirrors, mirrors_only: true });
        config
    }

    #[test]
    fn plain_http_needs_the_word_insecure() {
        let error = with_mirror("http://127.0.0.1:5000", false).check().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.to_string().contains("not marked insecure"), "{error}");
        with_mirror("http://127.0.0.1:5000", true).check().unwrap();
        with_mirror("https://mirror.example", false).check().unwrap();
    }

    #[test]
    fn mirrors_are_hosts_only() {
        for url in ["ftp://a", "https://", "https://a/b", "https://u@a", "https://a?x", "a:5000"] {
            assert!(with_mirror(url, true).check().is_err(), "{url}");
        }
    }

    #[test]
    fn relative_paths_and_odd_names_are_refused() {
        assert!(Config::new("state", "/shim").check().is_err());
        let mut config = Config::new("/state", "/shim");
        config.namespace = "a/b".into();
        assert!(config.check().is_err());
        config.namespace = "marram".into();
        config.cgroup_parent = "/../x".into();
        assert!(config.check().is_err());
    }
}
