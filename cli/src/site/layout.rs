//! The folder of a site.
//!
//! ```text
//! DIR/marram-site.toml    shape, name and addresses; marks the folder as a site
//!     lock                held while `up` or `down` works
//!     node-extra.toml     what --node-config named, kept for the next time
//!     PART.toml .ready .pid .log    for each of root, cluster, node, or cluster-1, node-1-1, …
//!     PART/               its state
//!     run/                what the node's running workloads need, and their logs; in a tree
//!                         run/PART/
//! ```
//!
//! Why addresses are remembered: with port 0 they are known only after the first start, and a
//! part that is started again must be found where the others expect it.
//!
//! Invariant: a folder that has other things in it never becomes a site, so that removing a site
//! removes nothing else.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::write_private;
use crate::error::Error;

use super::tree::{Part, Shape, Tier};

const MARK: &str = "marram-site.toml";

/// From the root's port to the cluster's MQTT port, as in the usual 10000, 10001, 10003.
const TUNNEL_OFFSET: u16 = 1;
const MQTT_OFFSET: u16 = 3;

/// Longest file that is read here: configuration by hand, some addresses.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What is remembered of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    /// Of the cluster, if there is one.
    pub(super) name: String,
    /// Of one of each, or more.
    #[serde(with = "shape")]
    pub(super) tree: Shape,
    /// REST of the root.
    pub(super) listen: SocketAddr,
    /// The root's end for clusters.
    pub(super) tunnel_listen: SocketAddr,
    /// Of each cluster, by its part.
    pub(super) clusters: BTreeMap<String, Ends>,
}

/// Where a cluster listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ends {
    /// For nodes.
    pub(super) mqtt_listen: SocketAddr,
    /// For clusters, if it takes any.
    pub(super) children_listen: Option<SocketAddr>,
}

/// A shape as it is typed.
mod shape {
    use super::Shape;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(shape: &Shape, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(shape)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Shape, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Facts {
    /// A new site's, by its port; 0 for any. In a tree only the root's are fixed.
    pub(super) fn new(name: &str, port: u16, tree: Shape) -> Result<Self, Error> {
        let at = |offset: u16| {
            let given = if port == 0 { Some(0) } else { port.checked_add(offset) };
            given.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok_or_else(|| {
                Error::Usage(format!("the port is at most {}, got {port}", u16::MAX - MQTT_OFFSET))
            })
        };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ends = match tree.is_one() {
            true => Ends { mqtt_listen: at(MQTT_OFFSET)?, children_listen: None },
            // All of them, so that each has somebody to go to when its parent is away.
            false => Ends { mqtt_listen: any, children_listen: Some(any) },
        };
        let clusters = tree.parts().into_iter().filter(|part| part.tier == Tier::Cluster);
        let clusters = clusters.map(|part| (part.name, ends.clone())).collect();
        let (listen, tunnel_listen) = (at(0)?, at(TUNNEL_OFFSET)?);
        Ok(Self { name: name.to_owned(), tree, listen, tunnel_listen, clusters })
    }

    /// The ends of a cluster that is somebody's parent.
    fn ends(&self, part: &str) -> Result<&Ends, Error> {
        let known = self.clusters.get(part);
        known.ok_or_else(|| Error::Usage(format!("{MARK} says nothing of {part}")))
    }

    /// Where the children of a part dial, and by which protocol.
    fn way_to(&self, parent: &str, child: Tier) -> Result<String, Error> {
        if parent == Tier::Root.name() {
            return Ok(format!("http://{}", self.tunnel_listen));
        }
        let ends = self.ends(parent)?;
        match (child, ends.children_listen) {
            (Tier::Node, _) => Ok(format!("mqtt://{}", ends.mqtt_listen)),
            (_, Some(address)) => Ok(format!("http://{address}")),
            (_, None) => Err(Error::Usage(format!("{parent} takes no clusters"))),
        }
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

    /// A file of a part, by its ending.
    pub(super) fn file(&self, part: &Part, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", part.name))
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

    /// Writes a part's configuration; says whether it differs from what was there.
    pub(super) fn configure(&self, part: &Part, facts: &Facts) -> Result<bool, Error> {
        let text = |text: String| Value::String(text);
        let mut config = Table::new();
        // It was checked to be UTF-8.
        let state = self.dir.join(&part.name).display().to_string();
        config.insert("state_dir".into(), text(state));
        let parent = part.parent.as_ref().map(|parent| facts.way_to(parent, part.tier));
        let parent = parent.transpose()?.unwrap_or_default();
        match part.tier {
            Tier::Root => {
                config.insert("listen".into(), text(facts.listen.to_string()));
                config.insert("tunnel_listen".into(), text(facts.tunnel_listen.to_string()));
            }
            Tier::Cluster => {
                let one = facts.tree.is_one();
                let name = if one { &facts.name } else { &part.name };
                config.insert("name".into(), text(name.clone()));
                config.insert("parent".into(), text(parent));
                let ends = facts.ends(&part.name)?;
                config.insert("mqtt_listen".into(), text(ends.mqtt_listen.to_string()));
                if let Some(address) = ends.children_listen {
                    let listen = Table::from_iter([("listen".into(), text(address.to_string()))]);
                    config.insert("children".into(), Value::Table(listen));
                }
            }
            Tier::Node => {
                config.insert("cluster".into(), text(parent));
                // Not the usual one, which a node that this machine runs already may have.
                let mut run = self.dir.join("run");
                if !facts.tree.is_one() {
                    run.push(&part.name);
                    merge(&mut config, apart(part));
                }
                config.insert("runtime_dir".into(), text(run.display().to_string()));
                let extra = self.dir.join("node-extra.toml");
                if let Some(text) = read(&extra)? {
                    merge(&mut config, parse(&extra, &text)?);
                }
            }
        }
        let path = self.file(part, "toml");
        let new = toml::to_string(&config).map_err(|error| Error::Failed(error.to_string()))?;
        let old = read(&path)?;
        if old.as_ref() == Some(&new) {
            return Ok(false);
        }
        write_private(&path, new.as_bytes())?;
        Ok(old.is_some())
    }

    /// What a part's ready file tells, once it is there in full.
    pub(super) fn ready(&self, part: &Part) -> Result<Option<Vec<(String, String)>>, Error> {
        let text = read(&self.file(part, "ready"))?;
        let Some(text) = text.filter(|text| text.ends_with('\n')) else { return Ok(None) };
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(Some(pairs.map(|(key, value)| (key.trim().into(), value.trim().into())).collect()))
    }
}

/// What keeps nodes of one machine out of each other's way: each believes that all it finds in
/// its control groups and in its namespace of containerd is its own.
fn apart(part: &Part) -> Table {
    let text = |text: String| Value::String(text);
    let group = || text(format!("/marram-{}", part.name));
    let native = Table::from_iter([("cgroup_parent".into(), group())]);
    let containerd = Table::from_iter([
        ("namespace".into(), text(format!("marram-{}", part.name))),
        ("cgroup_parent".into(), group()),
    ]);
    Table::from_iter([
        ("name".into(), text(part.name.clone())),
        ("native".into(), Value::Table(native)),
        ("containerd".into(), Value::Table(containerd)),
    ])
}

fn is_lock(entry: Result<&std::fs::DirEntry, &std::io::Error>) -> bool {
    entry.is_ok_and(|entry| entry.file_name() == "lock")
}

fn folder(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    usual_folder()
        .ok_or_else(|| Error::Usage("there is no home folder for the site; name one: --dir".into()))
}

/// Where a site is that was made without naming a folder; `None` without a home.
pub(crate) fn usual_folder() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty());
    let state = state
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    Some(state?.join("marram"))
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
        let facts = Facts::new("home", 4000, Shape::one()).unwrap();
        site.remember(&facts).unwrap();
        assert_eq!(site.facts().unwrap(), Some(facts.clone()));
        let extra = folder.path().join("extra.toml");
        std::fs::write(&extra, "name = 'pi'\n[native]\nallow_root = true\n").unwrap();
        site.keep_node_extra(&extra).unwrap();
        let parts = facts.tree.parts();
        for part in &parts {
            assert!(!site.configure(part, &facts).unwrap(), "nothing was there");
            assert!(!site.configure(part, &facts).unwrap(), "nothing changed");
        }
        let text = |tier| {
            let part = parts.iter().find(|part| part.tier == tier).unwrap();
            read(&site.file(part, "toml")).unwrap().unwrap()
        };
        assert!(text(Tier::Root).contains("listen = \"127.0.0.1:4000\""));
        assert!(text(Tier::Cluster).contains("parent = \"http://127.0.0.1:4001\""));
        assert!(text(Tier::Cluster).contains("mqtt_listen = \"127.0.0.1:4003\""));
        let node = text(Tier::Node);
        assert!(node.contains("cluster = \"mqtt://127.0.0.1:4003\""), "{node}");
        assert!(node.contains("/new/run\""), "{node}");
        assert!(node.contains("name = \"pi\"") && node.contains("allow_root = true"), "{node}");
        std::fs::write(&extra, "name = 'pi2'").unwrap();
        site.keep_node_extra(&extra).unwrap();
        assert!(site.configure(&parts[2], &facts).unwrap());
        std::fs::write(&extra, "name = ").unwrap();
        assert_eq!(site.keep_node_extra(&extra).unwrap_err().code(), 2);
    }

    #[test]
    fn in_a_tree_each_dials_its_parent_and_nodes_share_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::create(Some(&folder.path().join("new"))).unwrap();
        let mut facts = Facts::new("home", 4000, "1x1x2x1".parse().unwrap()).unwrap();
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for (ends, port) in facts.clusters.values_mut().zip([5000, 5002, 5004]) {
            *ends = Ends { mqtt_listen: at(port), children_listen: Some(at(port + 1)) };
        }
        site.remember(&facts).unwrap();
        assert_eq!(site.facts().unwrap(), Some(facts.clone()));
        let written = |part: &Part| {
            site.configure(part, &facts).unwrap();
            read(&site.file(part, "toml")).unwrap().unwrap().parse::<Table>().unwrap()
        };
        let all: Vec<Table> = facts.tree.parts().iter().map(written).collect();
        assert_eq!(all[1]["parent"].as_str(), Some("http://127.0.0.1:4001"));
        assert_eq!(all[2]["parent"].as_str(), Some("http://127.0.0.1:5001"));
        assert_eq!(all[2]["name"].as_str(), Some("cluster-1-1"));
        assert_eq!(all[3]["children"]["listen"].as_str(), Some("127.0.0.1:5005"));
        assert_eq!(all[4]["cluster"].as_str(), Some("mqtt://127.0.0.1:5002"));
        for key in ["name", "runtime_dir", "state_dir", "native", "containerd"] {
            assert_ne!(all[4][key], all[5][key], "{key}");
        }
    }

    #[test]
    fn ports_have_room_for_three() {
        assert!(Facts::new("a", u16::MAX - 2, Shape::one()).is_err());
        let any = Facts::new("a", 0, Shape::one()).unwrap();
        assert_eq!([any.listen.port(), any.tunnel_listen.port()], [0; 2]);
        assert_eq!(any.clusters["cluster"].mqtt_listen.port(), 0);
    }
}
