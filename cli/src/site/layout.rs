//! The folder of a site.
//!
//! ```text
//! DIR/marram-site.toml    name and addresses; marks the folder as a site
//!     lock                held while `up` or `down` works
//!     node-extra.toml     what --node-config named, kept for the next time
//!     TIER.toml .ready .pid .log    for each of root, cluster, node
//!     TIER/               its state
//!     run/                what the node's running workloads need, and their logs
//! ```
//!
//! Why addresses are remembered: with port 0 they are known only after the first start, and a
//! part that is started again must be found where the others expect it.
//!
//! Invariant: a folder that has other things in it never becomes a site, so that removing a site
//! removes nothing else.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::write_private;
use crate::error::Error;

const MARK: &str = "marram-site.toml";

/// From the root's port to the cluster's MQTT port, as in the usual 10000, 10001, 10003.
const TUNNEL_OFFSET: u16 = 1;
const MQTT_OFFSET: u16 = 3;

/// Longest file that is read here: configuration by hand, some addresses.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// One of the three programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Where clients go.
    Root,
    /// Where nodes go.
    Cluster,
    /// Where workloads run.
    Node,
}

impl Tier {
    /// In the order of starting: each dials the one before.
    pub(super) const ALL: [Self; 3] = [Self::Root, Self::Cluster, Self::Node];

    /// As in file names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }

    /// The program.
    pub(super) fn program(self) -> String {
        format!("marram-{}", self.name())
    }
}

/// What is remembered of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    /// Of the cluster.
    pub(super) name: String,
    /// REST of the root.
    pub(super) listen: SocketAddr,
    /// The root's end for clusters.
    pub(super) tunnel_listen: SocketAddr,
    /// The cluster's end for nodes.
    pub(super) mqtt_listen: SocketAddr,
}

impl Facts {
    /// A new site's, by its port; 0 for any.
    pub(super) fn new(name: &str, port: u16) -> Result<Self, Error> {
        let at = |offset: u16| {
            let given = if port == 0 { Some(0) } else { port.checked_add(offset) };
            given.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok_or_else(|| {
                Error::Usage(format!("the port is at most {}, got {port}", u16::MAX - MQTT_OFFSET))
            })
        };
        Ok(Self {
            name: name.to_owned(),
            listen: at(0)?,
            tunnel_listen: at(TUNNEL_OFFSET)?,
            mqtt_listen: at(MQTT_OFFSET)?,
        })
    }
}

/// A folder that is a site or may become one.
#[derive(Debug)]
pub(super) struct Site {
    dir: PathBuf,
    /// Held until dropped.
    _lock: File,
}

impl Site {
    /// Opens a site, or makes an empty or missing folder one.
    pub(super) fn create(dir: Option<&Path>) -> Result<Self, Error> {
        let dir = folder(dir)?;
        let failed = |error| Error::io("make", &dir, error);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        // Absolute, since the programs run elsewhere.
        let dir = dir.canonicalize().map_err(failed)?;
        if dir.to_str().is_none() {
            return Err(Error::Usage(format!("the folder's name is not UTF-8: {}", dir.display())));
        }
        let mut foreign = std::fs::read_dir(&dir).map_err(|e| Error::io("read", &dir, e))?;
        if !dir.join(MARK).exists() && foreign.any(|entry| !is_lock(entry.as_ref())) {
            return Err(Error::Usage(format!(
                "{} is no site and not empty; name an empty or a new folder: --dir",
                dir.display()
            )));
        }
        Self::locked(dir)
    }

    /// Opens a site; `None` if there is none.
    pub(super) fn open(dir: Option<&Path>) -> Result<Option<Self>, Error> {
        let dir = folder(dir)?;
        if !dir.join(MARK).exists() {
            return Ok(None);
        }
        let dir = dir.canonicalize().map_err(|error| Error::io("open", &dir, error))?;
        Self::locked(dir).map(Some)
    }

    fn locked(dir: PathBuf) -> Result<Self, Error> {
        let path = dir.join("lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(|error| Error::io("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Failed(format!(
                "another `marram up` or `down` is at work in {}",
                dir.display()
            ))),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
        }
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is remembered; `None` before the first start.
    pub(super) fn facts(&self) -> Result<Option<Facts>, Error> {
        let path = self.dir.join(MARK);
        let Some(text) = read(&path)? else { return Ok(None) };
        let facts = toml::from_str(&text);
        facts.map(Some).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
    }

    /// Remembers.
    pub(super) fn remember(&self, facts: &Facts) -> Result<(), Error> {
        let text = toml::to_string(facts).map_err(|error| Error::Failed(error.to_string()))?;
        write_private(&self.dir.join(MARK), text.as_bytes())
    }

    /// A file of a tier, by its ending.
    pub(super) fn file(&self, tier: Tier, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", tier.name()))
    }

    /// Where the root leaves the password of its first user.
    pub(super) fn admin_password(&self) -> PathBuf {
        self.dir.join(Tier::Root.name()).join("admin-password")
    }

    /// Keeps what is to be laid over the node's configuration.
    pub(super) fn keep_node_extra(&self, given: &Path) -> Result<(), Error> {
        let text = read(given)?
            .ok_or_else(|| Error::io("read", given, std::io::Error::from(ErrorKind::NotFound)))?;
        parse(given, &text)?;
        write_private(&self.dir.join("node-extra.toml"), text.as_bytes())
    }

    /// Writes a tier's configuration; says whether it differs from what was there.
    pub(super) fn configure(&self, tier: Tier, facts: &Facts) -> Result<bool, Error> {
        let text = |text: String| Value::String(text);
        let mut config = Table::new();
        // It was checked to be UTF-8.
        let state = self.dir.join(tier.name()).display().to_string();
        config.insert("state_dir".into(), text(state));
        match tier {
            Tier::Root => {
                config.insert("listen".into(), text(facts.listen.to_string()));
                config.insert("tunnel_listen".into(), text(facts.tunnel_listen.to_string()));
            }
            Tier::Cluster => {
                config.insert("name".into(), text(facts.name.clone()));
                config.insert("parent".into(), text(format!("http://{}", facts.tunnel_listen)));
                config.insert("mqtt_listen".into(), text(facts.mqtt_listen.to_string()));
            }
            Tier::Node => {
                config.insert("cluster".into(), text(format!("mqtt://{}", facts.mqtt_listen)));
                // Not the usual one, which a node that this machine runs already may have.
                let run = self.dir.join("run").display().to_string();
                config.insert("runtime_dir".into(), text(run));
                let extra = self.dir.join("node-extra.toml");
                if let Some(text) = read(&extra)? {
                    merge(&mut config, parse(&extra, &text)?);
                }
            }
        }
        let path = self.file(tier, "toml");
        let new = toml::to_string(&config).map_err(|error| Error::Failed(error.to_string()))?;
        let old = read(&path)?;
        if old.as_ref() == Some(&new) {
            return Ok(false);
        }
        write_private(&path, new.as_bytes())?;
        Ok(old.is_some())
    }

    /// What a tier's ready file tells, once it is there in full.
    pub(super) fn ready(&self, tier: Tier) -> Result<Option<Vec<(String, String)>>, Error> {
        let text = read(&self.file(tier, "ready"))?;
        let Some(text) = text.filter(|text| text.ends_with('\n')) else { return Ok(None) };
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(Some(pairs.map(|(key, value)| (key.trim().into(), value.trim().into())).collect()))
    }
}

fn is_lock(entry: Result<&std::fs::DirEntry, &std::io::Error>) -> bool {
    entry.is_ok_and(|entry| entry.file_name() == "lock")
}

fn folder(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty());
    let state = state
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| {
        Error::Usage("there is no home folder for the site; name one: --dir".into())
    })?;
    Ok(state.join("marram"))
}

/// A small file's text; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let failed = |error| Error::io("read", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let path = path.display();
        return Err(Error::Usage(format!("{path} is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(text))
}

fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    text.parse().map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}

/// Lays one table over another: tables are merged, everything else is replaced.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_merge_and_arrays_are_replaced() {
        let mut under: Table = "name='a'\n[native]\nenabled=true\npath=['/bin']\n".parse().unwrap();
        let over = "labels={x='y'}\n[native]\npath=['/usr/bin','/opt']\n[[containerd.mirrors]]\nhost='h'\n";
        merge(&mut under, over.parse().unwrap());
        let expected = "name='a'\nlabels={x='y'}\n[native]\nenabled=true\npath=['/usr/bin','/opt']\n\
            [[containerd.mirrors]]\nhost='h'\n";
        assert_eq!(under, expected.parse::<Table>().unwrap());
        merge(&mut under, "native = 7".parse().unwrap());
        assert_eq!(under["native"].as_integer(), Some(7));
    }

    #[test]
    fn a_folder_with_other_things_is_no_site() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert!(Site::open(Some(dir)).unwrap().is_none());
        let site = Site::create(Some(dir)).unwrap();
        let error = Site::create(Some(dir)).unwrap_err();
        assert!(error.to_string().contains("at work"), "{error}");
        drop(site);
        std::fs::write(dir.join("letter.txt"), "x").unwrap();
        assert_eq!(Site::create(Some(dir)).unwrap_err().code(), 2);
    }

    #[test]
    fn configuration_names_the_addresses_that_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::create(Some(&folder.path().join("new"))).unwrap();
        let facts = Facts::new("home", 4000).unwrap();
        site.remember(&facts).unwrap();
        assert_eq!(site.facts().unwrap(), Some(facts.clone()));
        let extra = folder.path().join("extra.toml");
        std::fs::write(&extra, "name = 'pi'\n[native]\nallow_root = true\n").unwrap();
        site.keep_node_extra(&extra).unwrap();
        for tier in Tier::ALL {
            assert!(!site.configure(tier, &facts).unwrap(), "nothing was there");
            assert!(!site.configure(tier, &facts).unwrap(), "nothing changed");
        }
        let text = |tier| read(&site.file(tier, "toml")).unwrap().unwrap();
        assert!(text(Tier::Root).contains("listen = \"127.0.0.1:4000\""));
        assert!(text(Tier::Cluster).contains("parent = \"http://127.0.0.1:4001\""));
        assert!(text(Tier::Cluster).contains("mqtt_listen = \"127.0.0.1:4003\""));
        let node = text(Tier::Node);
        assert!(node.contains("cluster = \"mqtt://127.0.0.1:4003\""), "{node}");
        assert!(node.contains("/new/run\""), "{node}");
        assert!(node.contains("name = \"pi\"") && node.contains("allow_root = true"), "{node}");
        std::fs::write(&extra, "name = 'pi2'").unwrap();
        site.keep_node_extra(&extra).unwrap();
        assert!(site.configure(Tier::Node, &facts).unwrap());
        std::fs::write(&extra, "name = ").unwrap();
        assert_eq!(site.keep_node_extra(&extra).unwrap_err().code(), 2);
    }

    #[test]
    fn ports_have_room_for_three() {
        assert!(Facts::new("a", u16::MAX - 2).is_err());
        let any = Facts::new("a", 0).unwrap();
        assert_eq!([any.listen.port(), any.tunnel_listen.port(), any.mqtt_listen.port()], [0; 3]);
    }
}
