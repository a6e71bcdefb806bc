//! The root's configuration file.
//!
//! Why checked here and not where it is used: a wrong value is reported before anything is
//! opened or bound, with the key it stands under.

use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Oakestra's clients have this port built in.
pub const REST_PORT: u16 = 10_000;

/// Where clusters dial in.
pub const TUNNEL_PORT: u16 = 10_001;

/// Longest configuration file: some forty times what is written by hand.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// What the root is told by its operator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// REST.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The tunnel of clusters.
    #[serde(default = "default_tunnel_listen")]
    pub tunnel_listen: SocketAddr,
    /// The same as others reach it, `http://HOST:PORT`; made of `tunnel_listen` if absent.
    pub tunnel_url: Option<String>,
    /// Everything that lasts.
    pub state_dir: PathBuf,
    /// Bind to addresses that other machines reach too, though nothing is encrypted and clusters
    /// do not prove who they are.
    #[serde(default)]
    pub insecure_network: bool,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is longer than [`CONFIG_BYTES_MAX`].
    #[error("{} has {bytes} bytes, at most {CONFIG_BYTES_MAX} are allowed", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not TOML, an unknown key or a wrong value.
    #[error("{}: {why}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// In the parser's words.
        why: String,
    },
    /// Not of the form of an address.
    #[error("{0} (tunnel_url)")]
    Url(#[from] marram_tunnel::DialError),
    /// Reachable from other machines.
    #[error(
        "identity and encryption are not built yet, so Marram binds to 127.0.0.1 and ::1 only; \
         refused: {address} ({key}); with insecure_network = true it is done, and whoever reaches \
         that address can read passwords on the way and pose as a cluster"
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
        /// Under which key.
        key: &'static str,
    },
}

fn default_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), REST_PORT)
}

fn default_tunnel_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), TUNNEL_PORT)
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
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Form {
            path: path.to_path_buf(),
            why: error.to_string().trim_end().to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses addresses that other machines reach.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, address) in [("listen", self.listen), ("tunnel_listen", self.tunnel_listen)] {
            if !address.ip().is_loopback() && !self.insecure_network {
                return Err(ConfigError::NotLoopback { address, key });
            }
        }
        if let Some(url) = &self.tunnel_url {
            marram_tunnel::Dialer::new(url)?;
        }
        Ok(())
    }

    /// Where clusters reach this root, as it tells those that are further away; empty if that
    /// cannot be known. `bound` is what became of `tunnel_listen`.
    pub fn tunnel_address(&self, bound: SocketAddr) -> String {
        match &self.tunnel_url {
            Some(url) => url.clone(),
            None if bound.ip().is_unspecified() => String::new(),
            None => format!("http://{bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
        let config = read("state_dir = '/var/lib/marram'").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:10000");
        assert_eq!(config.tunnel_listen.to_string(), "127.0.0.1:10001");
    }

    #[test]
    fn wrong_files_are_refused_with_the_reason() {
        let table = [
            ("", "state_dir"),
            ("state_dir = '/s'\nport = 1", "port"),
            ("state_dir = '/s'\nlisten = 'localhost'", "invalid socket address"),
            ("state_dir = ", "TOML"),
        ];
        for (text, expected) in table {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(Config::read(Path::new("/nonexistent/root.toml")).is_err());
    }

    #[test]
    fn addresses_that_others_reach_are_refused() {
        for address in ["0.0.0.0:10000", "[::]:10000", "192.0.2.1:10000"] {
            let error = read(&format!("state_dir = '/s'\nlisten = '{address}'")).unwrap_err();
            let refused = format!(
                "identity and encryption are not built yet, so Marram binds to 127.0.0.1 and \
                 ::1 only; refused: {address} (listen); with insecure_network = true"
            );
            assert!(error.to_string().starts_with(&refused), "{error}");
            let said = format!("insecure_network = true\nstate_dir = '/s'\nlisten = '{address}'");
            read(&said).unwrap();
        }
        assert!(read("state_dir = '/s'\nlisten = '[::1]:0'").is_ok());
        assert!(read("state_dir = '/s'\ntunnel_listen = '10.0.0.1:1'").is_err());
        assert!(read("state_dir = '/s'\ntunnel_url = '10.0.0.1:1'").is_err());
        let config = read("state_dir = '/s'\ntunnel_url = 'http://root:7'").unwrap();
        let bound: SocketAddr = "0.0.0.0:7".parse().unwrap();
        assert_eq!(config.tunnel_address(bound), "http://root:7");
        let config = read("state_dir = '/s'").unwrap();
        assert_eq!(config.tunnel_address(bound), "");
        assert_eq!(config.tunnel_address("127.0.0.1:7".parse().unwrap()), "http://127.0.0.1:7");
    }
}
