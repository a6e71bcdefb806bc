//! The cluster's configuration file.
//!
//! Why checked here and not where it is used: a wrong value is reported before anything is
//! opened or bound, with the key it stands under.

use crate::local::SOCKET_BYTES_MAX;
use marram_protocol::parents::{Habits, WayUp};
use marram_protocol::v1::SUMMARY_LIST_MAX;
use marram_tunnel::{DialError, Dialer};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where nodes connect, as Oakestra's do.
pub const MQTT_PORT: u16 = 10_003;

/// Where a root listens for clusters.
const PARENT: &str = "http://127.0.0.1:10001";

/// Where state lasts if nothing else is said.
const STATE_DIR: &str = "/var/lib/marram/cluster";

/// The socket for operators, in the state directory.
const SOCKET: &str = "cluster.sock";

/// Longest configuration file: some forty times what is written by hand.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// Longest name: what a parent keeps of it.
const NAME_BYTES_MAX: usize = 64;

/// The first pause before dialling again: long enough for a parent to restart.
const PAUSE_MS: u64 = 1_000;

/// What a cluster is told by its operator.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name for people.
    pub name: String,
    /// `latitude,longitude[,metres]`, or empty.
    pub location: String,
    /// What selectors go by: `key=value` or a word.
    pub labels: Vec<String>,
    /// The way to the parent.
    pub parent: Parent,
    /// The way to the nodes.
    pub mqtt: Mqtt,
    /// Where nodes reach this cluster, as it tells others; made of the address they connect to
    /// if absent.
    pub mqtt_url: Option<String>,
    /// Child clusters, if it takes any.
    pub children: Option<Children>,
    /// Everything that lasts.
    pub state_dir: PathBuf,
    /// Where operators at this machine are served, if they are.
    pub socket: Option<PathBuf>,
    /// Where it may listen and connect.
    pub network: Network,
}

/// The way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The preferred parent.
    pub preferred: String,
    /// Others, the best first.
    pub alternates: Vec<String>,
    /// How patient the cluster is with them.
    pub habits: Habits,
}

/// Where child clusters connect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Children {
    /// The address that is bound.
    pub listen: SocketAddr,
    /// The same as others reach it; made of `listen` if absent.
    pub url: Option<String>,
}

/// Which addresses are used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Those of this machine.
    Loopback,
    /// All, though nobody proves who he is and everybody can listen: `insecure_network`.
    Any,
}

impl Network {
    /// The way to a parent at this URL.
    ///
    /// # Errors
    /// It is no such URL, or one that is not used.
    pub fn dialer(self, url: &str, key: &'static str) -> Result<Dialer, ConfigError> {
        let dialer = Dialer::new(url).map_err(ConfigError::Parent)?;
        let host = host_and_port(url, "http://").map_or("", |(host, _)| host);
        self.check(host, url, "connects", key)?;
        Ok(dialer)
    }

    /// Names other than `localhost` could be anybody's.
    fn check(
        self,
        host: &str,
        address: &str,
        verb: &'static str,
        key: &'static str,
    ) -> Result<(), ConfigError> {
        let ip = host.parse::<IpAddr>();
        let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        if is_loopback || self == Self::Any {
            return Ok(());
        }
        Err(ConfigError::NotLoopback { verb, address: address.to_owned(), key })
    }
}

/// Where nodes' messages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mqtt {
    /// The endpoint inside this program, on this address.
    Embedded(SocketAddr),
    /// A broker elsewhere.
    Broker {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    parent: WayUp,
    mqtt_listen: Option<SocketAddr>,
    mqtt_url: Option<String>,
    broker: Option<String>,
    children: Option<Children>,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    #[serde(default)]
    insecure_network: bool,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is longer than 64 KiB.
    #[error("{} has {bytes} bytes, at most {CONFIG_BYTES_MAX} are allowed", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not TOML, an unknown key or a value of another type.
    #[error("{}: {why}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// In the parser's words.
        why: String,
    },
    /// No name for people.
    #[error(
        "{0:?} is no name, a name has 1 to {NAME_BYTES_MAX} bytes without control characters (name)"
    )]
    Name(String),
    /// More than a parent keeps, or not of its form.
    #[error(
        "{0:?} (labels): at most {SUMMARY_LIST_MAX} labels of up to {NAME_BYTES_MAX} bytes, each a \
         word or KEY=VALUE of letters, digits and ._-/:"
    )]
    Label(String),
    /// No place on earth.
    #[error(
        "{0:?} is no location, write latitude,longitude or latitude,longitude,metres (location)"
    )]
    Location(String),
    /// No address of a parent.
    #[error("{0} (parent)")]
    Parent(DialError),
    /// No address of a broker.
    #[error("{0:?} is no broker's address, write mqtt://HOST:PORT (broker)")]
    Broker(String),
    /// A path that the kernel does not take.
    #[error(
        "{} is no place for a socket, a path has at most {SOCKET_BYTES_MAX} bytes (socket)",
        .0.display()
    )]
    Socket(PathBuf),
    /// Two ways to the nodes.
    #[error("mqtt_listen and broker exclude each other, leave one out")]
    TwoBrokers,
    /// Reachable from, or on, other machines.
    #[error(
        "identity and encryption are not built yet, so Marram {verb} to 127.0.0.1 and ::1 only; \
         refused: {address} ({key}); with insecure_network = true it is done, and whoever reaches \
         the other end or listens on the way can read and command everything"
    )]
    NotLoopback {
        /// Binds or connects.
        verb: &'static str,
        /// What was asked for.
        address: String,
        /// Under which key.
        key: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_path_buf(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong { path: path.to_path_buf(), bytes });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let file: File = toml::from_str(&text).map_err(|error| ConfigError::Form {
            path: path.to_path_buf(),
            why: error.to_string().trim_end().to_owned(),
        })?;
        file.check()
    }
}

impl File {
    fn check(self) -> Result<Config, ConfigError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&self.name.len());
        if !fits || self.name.chars().any(char::is_control) {
            return Err(ConfigError::Name(self.name.chars().take(NAME_BYTES_MAX).collect()));
        }
        if !self.location.is_empty() && !is_location(&self.location) {
            return Err(ConfigError::Location(self.location));
        }
        let wrong = self.labels.iter().find(|label| !is_label(label));
        if let Some(label) = wrong.or(self.labels.get(SUMMARY_LIST_MAX)) {
            return Err(ConfigError::Label(label.clone()));
        }
        let network = match self.insecure_network {
            true => Network::Any,
            false => Network::Loopback,
        };
        let habits = self.parent.habits(PAUSE_MS, true);
        let preferred = self.parent.url.unwrap_or_else(|| PARENT.to_owned());
        network.dialer(&preferred, "parent")?;
        for url in &self.parent.alternates {
            network.dialer(url, "parent.alternates")?;
        }
        let parent = Parent { preferred, alternates: self.parent.alternates, habits };
        let mqtt = match (self.mqtt_listen, self.broker) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoBrokers),
            (None, Some(url)) => broker(&url, network)?,
            (listen, None) => {
                let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), MQTT_PORT);
                let listen = listen.unwrap_or(usual);
                let ip = listen.ip().to_string();
                network.check(&ip, &listen.to_string(), "binds", "mqtt_listen")?;
                Mqtt::Embedded(listen)
            }
        };
        if let Some(url) = &self.mqtt_url {
            broker(url, network)?;
        }
        if let Some(Children { listen, url }) = &self.children {
            let ip = listen.ip().to_string();
            network.check(&ip, &listen.to_string(), "binds", "children.listen")?;
            url.as_ref().map(|url| network.dialer(url, "children.url")).transpose()?;
        }
        let state_dir = self.state_dir.unwrap_or_else(|| STATE_DIR.into());
        let socket = socket(self.socket, &state_dir)?;
        Ok(Config {
            name: self.name,
            location: self.location,
            labels: self.labels,
            parent,
            mqtt,
            mqtt_url: self.mqtt_url,
            children: self.children,
            state_dir,
            socket,
            network,
        })
    }
}

/// Beside the state if nothing else is said; nowhere if nothing is said explicitly.
fn socket(given: Option<PathBuf>, state_dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
    let path = given.unwrap_or_else(|| state_dir.join(SOCKET));
    match path.as_os_str().len() {
        0 => Ok(None),
        1..=SOCKET_BYTES_MAX => Ok(Some(path)),
        _ => Err(ConfigError::Socket(path)),
    }
}

fn broker(url: &str, network: Network) -> Result<Mqtt, ConfigError> {
    let (host, port) =
        host_and_port(url, "mqtt://").ok_or_else(|| ConfigError::Broker(url.to_owned()))?;
    network.check(host, url, "connects", "broker")?;
    Ok(Mqtt::Broker { host: host.to_owned(), port })
}

/// Host without brackets, and port, of `SCHEME HOST:PORT [/]`.
fn host_and_port<'a>(url: &'a str, scheme: &str) -> Option<(&'a str, u16)> {
    let rest = url.strip_prefix(scheme)?;
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').filter(|a| a.parse::<IpAddr>().is_ok())?,
        None => Some(host).filter(|host| !host.is_empty() && host.chars().all(plain))?,
    };
    Some((host, port))
}

/// The same form as on a node, without what gives a selector its meaning.
fn is_label(label: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let is_plain = |text: &str| !text.is_empty() && text.chars().all(allowed);
    let (key, value) = label.split_once('=').unwrap_or((label, "-"));
    label.len() <= NAME_BYTES_MAX && is_plain(key) && is_plain(value)
}

fn is_location(text: &str) -> bool {
    let numbers: Vec<Option<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    let within = |number: Option<f64>, min, max| number.is_some_and(|n| (min..=max).contains(&n));
    match numbers[..] {
        [latitude, longitude] => within(latitude, -90.0, 90.0) && within(longitude, -180.0, 180.0),
        [latitude, longitude, metres] => {
            within(latitude, -90.0, 90.0)
                && within(longitude, -180.0, 180.0)
                && within(metres, 0.0, 20_100_000.0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
