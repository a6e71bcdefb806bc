//! The node's configuration: one TOML file, checked whole before anything starts.

use marram_protocol::parents::WayUp;
use marram_protocol::v1::SUMMARY_LIST_MAX;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Port of a cluster's MQTT endpoint unless the address names one.
const MQTT_PORT: u16 = 10003;

/// Longest configuration file: some forty times what is written by hand.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a label or an addon's name, as clusters take them.
const WORD_BYTES_MAX: usize = 64;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is longer than 64 KiB.
    #[error("{} is longer than the {CONFIG_BYTES_MAX} bytes that are allowed", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// It is no TOML, or holds something unknown or of the wrong kind.
    #[error("{} is not a valid configuration", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is not allowed.
    #[error("{key} = {value:?}: {expected}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

/// A node's configuration. Keys that are not listed are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name for people; the host's name if absent.
    pub name: Option<String>,
    /// The cluster, `mqtt://host[:port]`, and others that would do.
    #[serde(default)]
    pub cluster: WayUp,
    /// Connect to other machines too, though nobody proves who he is and everybody on the way
    /// can listen.
    #[serde(default)]
    pub insecure_network: bool,
    /// What survives a reboot: identity and ledger.
    pub state_dir: PathBuf,
    /// What a reboot may take: logs, and what running workloads need. In memory, so that it
    /// does not wear out flash.
    #[serde(default = "default_runtime_dir")]
    pub runtime_dir: PathBuf,
    /// The program `marram-shim`; beside this one if absent.
    pub shim: Option<PathBuf>,
    /// Where the node is, `latitude,longitude[,metres]`.
    #[serde(default)]
    pub location: String,
    /// Where host ports of this node answer, as clients shall see it.
    pub address: Option<String>,
    /// What services may ask for by `labels`: `key` or `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// What is installed beside, as services may ask for by `addons`.
    #[serde(default)]
    pub addons: Vec<String>,
    /// What may be promised of the way to this machine; that of its fastest link if absent.
    pub bandwidth_in_kbps: Option<u32>,
    /// And of the way from it.
    pub bandwidth_out_kbps: Option<u32>,
    /// Where the node is in the net.
    #[serde(default)]
    pub coordinates: Coordinates,
    /// What is kept back from workloads.
    #[serde(default)]
    pub reserved: Reserved,
    /// Programs of the host.
    #[serde(default)]
    pub native: Native,
    /// Containers.
    #[serde(default)]
    pub containerd: Containerd,
}

/// How the node finds out where it is in the net.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Coordinates {
    /// Where echo requests of other nodes are answered, in UDP; nowhere if absent.
    pub listen: Option<SocketAddr>,
    /// Measure the way to nodes that answer.
    pub probe: bool,
}

impl Default for Coordinates {
    fn default() -> Self {
        Self { listen: None, probe: true }
    }
}

/// What the host keeps for itself.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reserved {
    /// Memory.
    pub memory_mib: u32,
    /// Processor time.
    pub cpu_millicores: u32,
    /// Disk.
    pub storage_mib: u32,
}

/// Programs of the host as workloads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Native {
    /// Offered at all.
    pub enabled: bool,
    /// User of programs that ask for none.
    pub default_user: String,
    /// Programs may ask for root.
    pub allow_root: bool,
    /// Where programs are looked for that are not given by their path.
    pub path: Option<Vec<PathBuf>>,
    /// Parent of the workloads' cgroups.
    pub cgroup_parent: Option<PathBuf>,
    /// Host folders of which mounts may come.
    pub mount_roots: Vec<PathBuf>,
    /// Devices that may be given away.
    pub devices: Vec<PathBuf>,
}

/// Containers through containerd.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Containerd {
    /// Offered at all.
    pub enabled: bool,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Namespace inside containerd.
    pub namespace: String,
    /// Snapshotter.
    pub snapshotter: String,
    /// Parent of the workloads' cgroups.
    pub cgroup_parent: String,
    /// Runtime of workloads that name none.
    pub default_runtime: Option<String>,
    /// Names and passwords of registries, in the form of Docker's `config.json`.
    pub credentials_file: Option<PathBuf>,
    /// containerd's own configuration, read for the runtimes it lists.
    pub config: Option<PathBuf>,
    /// Host folders of which mounts may come.
    pub mount_roots: Vec<PathBuf>,
    /// Devices that may be given away.
    pub devices: Vec<PathBuf>,
    /// Mirrors of registries, by the registry's host.
    pub registries: BTreeMap<String, Registry>,
}

/// How a registry is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Asked in this order before the registry itself.
    pub mirrors: Vec<Mirror>,
    /// Never ask the registry itself.
    pub mirrors_only: bool,
}

/// Another server that holds a registry's images.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `https://host[:port]`, or `http://host[:port]` with `insecure`.
    pub url: String,
    /// Plain HTTP is allowed to this one.
    #[serde(default)]
    pub insecure: bool,
}

impl Default for Native {
    fn default() -> Self {
        Self {
            enabled: true,
            default_user: "nobody".into(),
            allow_root: false,
            path: None,
            cgroup_parent: None,
            mount_roots: Vec::new(),
            devices: Vec::new(),
        }
    }
}

impl Default for Containerd {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: "/run/containerd/containerd.sock".into(),
            namespace: "marram".into(),
            snapshotter: "overlayfs".into(),
            cgroup_parent: "/marram".into(),
            default_runtime: None,
            credentials_file: None,
            config: None,
            mount_roots: Vec::new(),
            devices: Vec::new(),
            registries: BTreeMap::new(),
        }
    }
}

fn default_runtime_dir() -> PathBuf {
    "/run/marram".into()
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut text = String::new();
        file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(read)?;
        if u64::try_from(text.len()).is_ok_and(|length| length > CONFIG_BYTES_MAX) {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Form {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let dirs = [("state_dir", &self.state_dir), ("runtime_dir", &self.runtime_dir)];
        for (key, path) in dirs {
            if !path.is_absolute() {
                let value = path.display().to_string();
                return Err(ConfigError::Value { key, value, expected: "an absolute path" });
            }
        }
        for (key, words) in [("labels", &self.labels), ("addons", &self.addons)] {
            check_words(key, words)?;
        }
        let listen = self.coordinates.listen.filter(|listen| listen.ip().is_unspecified());
        if let (Some(listen), None) = (listen, self.echo_ip()) {
            return Err(ConfigError::Value {
                key: "coordinates.listen",
                value: listen.to_string(),
                expected: "one address of this machine, or all of them and `address` names one",
            });
        }
        let far = self.coordinates.listen.filter(|listen| !listen.ip().is_loopback());
        if let Some(listen) = far.filter(|_| !self.insecure_network) {
            return Err(ConfigError::Value {
                key: "coordinates.listen",
                value: listen.to_string(),
                expected: "identity and encryption are not built yet, so Marram binds to 127.0.0.1 \
                           and ::1 only; with insecure_network = true it binds there, and whoever \
                           reaches that port can pretend distances",
            });
        }
        self.clusters().map(drop)
    }

    /// Where other nodes reach this one, if that is not where it listens.
    pub fn echo_ip(&self) -> Option<IpAddr> {
        self.coordinates.listen.filter(|listen| listen.ip().is_unspecified())?;
        self.address.as_ref()?.parse().ok()
    }

    /// The preferred cluster's URL, and those of others.
    ///
    /// # Errors
    /// One of them is none, or leads to another machine.
    pub fn clusters(&self) -> Result<(String, Vec<String>), ConfigError> {
        let usual = || format!("mqtt://127.0.0.1:{MQTT_PORT}");
        let preferred = self.cluster.url.clone().unwrap_or_else(usual);
        broker(&preferred, "cluster", self.insecure_network)?;
        for url in &self.cluster.alternates {
            broker(url, "cluster.alternates", self.insecure_network)?;
        }
        Ok((preferred, self.cluster.alternates.clone()))
    }
}

/// Host and port of a cluster's MQTT endpoint.
pub(crate) fn broker(
    url: &str,
    key: &'static str,
    insecure: bool,
) -> Result<(String, u16), ConfigError> {
    let bad = |expected| ConfigError::Value { key, value: url.to_owned(), expected };
    let form = "an address such as mqtt://127.0.0.1:10003 is needed";
    let rest = url.strip_prefix("mqtt://").ok_or_else(|| bad(form))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.parse::<SocketAddr>() {
        Ok(address) => (address.ip().to_string(), address.port()),
        Err(_) => match rest.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse().map_err(|_| bad(form))?),
            None => (rest.to_owned(), MQTT_PORT),
        },
    };
    let ip = host.trim_matches(['[', ']']);
    if ip.is_empty() || ip.contains('/') {
        return Err(bad(form));
    }
    let loopback =
        ip == "localhost" || ip.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !loopback && !insecure {
        return Err(bad(
            "identity and encryption are not built yet, so Marram connects to 127.0.0.1, ::1 \
             and localhost only; with insecure_network = true it connects there, and whoever \
             reaches the other end or listens on the way can read and command everything",
        ));
    }
    Ok((ip.to_owned(), port))
}

/// Labels and names of addons: short, few, and without what selectors give a meaning.
fn check_words(key: &'static str, words: &[String]) -> Result<(), ConfigError> {
    if words.len() > SUMMARY_LIST_MAX {
        let expected = "at most 32 entries are told to the cluster";
        return Err(ConfigError::Value { key, value: words.len().to_string(), expected });
    }
    let is_plain = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        !text.is_empty() && text.chars().all(allowed)
    };
    let is_right = |word: &&String| {
        let (name, value) = word.split_once('=').unwrap_or((word, "-"));
        let whole = key == "labels" || !word.contains('=');
        word.len() <= WORD_BYTES_MAX && is_plain(name) && is_plain(value) && whole
    };
    match words.iter().find(|word| !is_right(word)) {
        None => Ok(()),
        Some(wrong) => Err(ConfigError::Value {
            key,
            value: wrong.clone(),
            expected: "at most 64 letters, digits and any of `._-/:` are allowed, \
                       in a label with one `=` between key and value",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = parse("state_dir = '/var/lib/marram/node'").unwrap();
        let (cluster, others) = config.clusters().unwrap();
        assert_eq!((cluster.as_str(), others.len()), ("mqtt://127.0.0.1:10003", 0));
        assert!(config.native.enabled && config.containerd.enabled);
    }

    #[test]
    fn addresses_are_loopback_or_refused_with_the_reason() {
        for (text, port) in
            [("mqtt://127.0.0.1", 10003), ("mqtt://localhost:1", 1), ("mqtt://[::1]:7/", 7)]
        {
            let config = parse(&format!("state_dir = '/s'\ncluster = '{text}'")).unwrap();
            let (url, _) = config.clusters().unwrap();
            assert_eq!(broker(&url, "cluster", false).unwrap().1, port, "{text}");
        }
        for text in ["mqtt://10.0.0.1:1", "mqtt://example.org", "mqtt://0.0.0.0:1"] {
            let error = parse(&format!("state_dir = '/s'\ncluster = '{text}'")).unwrap_err();
            assert!(error.contains("identity and encryption are not built yet"), "{error}");
            let table = format!("[cluster]\nalternates = ['{text}']");
            let error = parse(&format!("state_dir = '/s'\n{table}")).unwrap_err();
            assert!(error.contains("cluster.alternates"), "{error}");
            parse(&format!("state_dir = '/s'\ninsecure_network = true\n{table}")).unwrap();
        }
        for text in ["127.0.0.1", "http://127.0.0.1", "mqtt://127.0.0.1:x"] {
            assert!(parse(&format!("state_dir = '/s'\ncluster = '{text}'")).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_relative_paths_are_refused() {
        assert!(parse("state_dir = '/s'\nclutser = 'x'").unwrap_err().contains("clutser"));
        assert!(parse("state_dir = 's'").unwrap_err().contains("absolute"));
        assert!(parse("").unwrap_err().contains("state_dir"));
    }

    #[test]
    fn a_full_file_is_read_as_it_is_written() {
        let config = parse(
            "state_dir = '/s'\nruntime_dir = '/r'\nname = 'pi'\naddress = '10.0.0.2'\n\
             location = '48.1,11.6'\nlabels = ['site=berlin', 'gpu']\naddons = ['overlay']\n\
             bandwidth_out_kbps = 5000\n\
             insecure_network = true\n[coordinates]\nlisten = '0.0.0.0:10007'\n\
             [reserved]\nmemory_mib = 64\n\
             [native]\nallow_root = true\ndefault_user = 'svc'\nmount_roots = ['/srv']\n\
             [containerd]\nenabled = false\nnamespace = 'x'\ndevices = ['/dev/null']\n\
             [containerd.registries.'docker.io']\nmirrors_only = true\n\
             mirrors = [{ url = 'http://127.0.0.1:5000', insecure = true }, { url = 'https://m' }]\n",
        )
        .unwrap();
        assert_eq!((config.name.as_deref(), config.reserved.memory_mib), (Some("pi"), 64));
        assert!(config.native.enabled && config.native.allow_root && !config.containerd.enabled);
        assert_eq!(config.echo_ip(), Some("10.0.0.2".parse().unwrap()));
        assert_eq!((config.labels.len(), config.bandwidth_in_kbps), (2, None));
        assert_eq!(config.containerd.snapshotter, "overlayfs", "what is not said stays usual");
        let docker = &config.containerd.registries["docker.io"];
        let insecure: Vec<bool> = docker.mirrors.iter().map(|mirror| mirror.insecure).collect();
        assert!(docker.mirrors_only && insecure == [true, false]);
    }

    #[test]
    fn what_is_wrong_anywhere_is_refused_with_its_name() {
        for (text, word) in [
            ("[native]\nallowroot = true", "allowroot"),
            ("[containerd.registries.x]\nmirror = []", "mirror"),
            ("[containerd.registries.x]\nmirrors = [{ insecure = true }]", "url"),
            ("[reserved]\nmemory_mib = -1", "memory_mib"),
            ("[reserved]\nmemory_mib = '1G'", "memory_mib"),
            ("cluster = 7", "cluster"),
            ("labels = ['site=berlin', 'a,b']", "a,b"),
            ("labels = ['site=']", "site="),
            ("addons = ['a=b']", "a=b"),
            ("bandwidth_in_kbps = -1", "bandwidth_in_kbps"),
            ("[coordinates]\nlisten = 'here'", "listen"),
            ("[coordinates]\nlisten = '0.0.0.0:7'", "address"),
            ("[coordinates]\nlisten = '192.0.2.1:7'", "insecure_network = true"),
            ("[coordinates]\nlisten = '[::]:7'\n[reserved]", "coordinates.listen"),
            ("cluster = 'mqtt://127.0.0.1:70000'", "cluster"),
            ("state_dir = '/again'", "state_dir"),
        ] {
            let error = parse(&format!("state_dir = '/s'\n{text}")).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn files_that_are_no_configuration_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        assert!(matches!(Config::read(&path), Err(ConfigError::Read { .. })));
        std::fs::write(&path, b"state_dir = '\xff'").unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::Read { .. })));
        std::fs::write(&path, "state_dir = ").unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::Form { .. })));
        let endless = Config::read(Path::new("/dev/zero"));
        assert!(matches!(endless, Err(ConfigError::TooLong { .. })), "{endless:?}");
        std::fs::write(&path, "state_dir = '/s'").unwrap();
        assert_eq!(Config::read(&path).unwrap().state_dir, Path::new("/s"));
    }
}
