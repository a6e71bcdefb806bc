//! Which clusters this node goes to: the rules, the addresses it may use, and the small file of
//! what it was told of others.
//!
//! Why apart from the link: the link carries messages on the one connection there is.

use crate::config::{Config, ConfigError, broker};
use marram_protocol::id::ChildId;
use marram_protocol::parents::{Action, Known, Parents};
use marram_protocol::v1::Down;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is known of clusters, in the state directory.
const FILE: &str = "parents.json";

/// The first pause before dialling again: half a second costs nobody anything, and a broker
/// that was restarted is there by then.
const PAUSE_MS: u64 = 500;

/// A probe waits no longer for a connection.
const PROBE_TIME_MAX: Duration = Duration::from_secs(10);

/// Refusals in a row that mean it: the first only asks for another hello, as a cluster does
/// that was started anew.
const REFUSALS: u32 = 2;

/// The way up.
#[derive(Debug)]
pub(crate) struct Way {
    parents: Parents,
    insecure: bool,
    file: PathBuf,
    started: Instant,
    random: u64,
    /// On this connection, in a row.
    refusals: u32,
    probing: JoinSet<bool>,
}

impl Way {
    /// From configuration and file. `seed` makes pauses differ from node to node.
    pub(crate) fn open(config: &Config, node: ChildId, seed: u64) -> Result<Self, ConfigError> {
        let file = config.state_dir.join(FILE);
        let (preferred, alternates) = config.clusters()?;
        let habits = config.cluster.habits(PAUSE_MS, false);
        let parents = Parents::new(node, habits, preferred, alternates, read(&file), 0);
        Ok(Self {
            parents,
            insecure: config.insecure_network,
            file,
            started: Instant::now(),
            random: seed | 1,
            refusals: 0,
            probing: JoinSet::new(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// xorshift: it only has to differ from node to node, and the seed does.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// What the link is to do now; probes are made here.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        loop {
            match self.parents.poll(self.now_ms()) {
                Some(Action::Probe(url)) => self.probe(&url),
                action => return action,
            }
        }
    }

    fn probe(&mut self, url: &str) {
        let address = self.address(url);
        self.probing.spawn(async move {
            let Ok((host, port)) = address else { return false };
            let connected = TcpStream::connect((host, port));
            tokio::time::timeout(PROBE_TIME_MAX, connected).await.is_ok_and(|done| done.is_ok())
        });
    }

    /// Waits until [`Way::poll`] may have something. Cancel-safe.
    pub(crate) async fn due(&mut self) {
        let due = self.parents.due_ms(self.now_ms());
        let due = due.map(|at_ms| self.started + Duration::from_millis(at_ms));
        tokio::select! {
            Some(answers) = self.probing.join_next() => {
                self.parents.probed(self.now_ms(), answers.unwrap_or(false));
            }
            () = crate::shell::until(due) => {}
        }
    }

    /// Host and port of a cluster's endpoint, if it may be used.
    pub(crate) fn address(&self, url: &str) -> Result<(String, u16), ConfigError> {
        broker(url, "cluster", self.insecure)
    }

    /// Where the link is, or is to be.
    pub(crate) fn url(&self) -> &str {
        self.parents.address()
    }

    /// The link is up. Gives the cluster that the node would rather have.
    pub(crate) fn up(&mut self) -> Option<ChildId> {
        self.refusals = 0;
        self.parents.connected(self.now_ms());
        self.parents.preferred()
    }

    /// It has ended, or was not to be had.
    pub(crate) fn lost(&mut self, was_up: bool) {
        let (now_ms, random) = (self.now_ms(), self.draw());
        match was_up {
            true => self.parents.lost(now_ms, random),
            false => self.parents.failed(now_ms, random),
        }
    }

    /// The cluster speaks: what that means for staying there.
    pub(crate) fn heard(&mut self, message: &Down) {
        let now_ms = self.now_ms();
        match message {
            Down::Welcome { .. } => {
                self.refusals = 0;
                self.parents.welcomed(now_ms);
            }
            Down::Rejected { .. } => {
                self.refusals = self.refusals.saturating_add(1);
                let guest = self.parents.preferred().is_some();
                if guest && self.refusals >= REFUSALS {
                    let random = self.draw();
                    self.parents.refused(now_ms, random);
                } else {
                    self.parents.unwelcome(now_ms);
                }
            }
            Down::Kin(kin) => {
                let mut kin = kin.clone();
                kin.alternates.retain(|a| self.address(&a.address).is_ok());
                if self.parents.kin(now_ms, &kin)
                    && let Err(error) = write(&self.file, self.parents.known())
                {
                    // It goes on with what it has in memory.
                    tracing::error!(path = %self.file.display(), %error, "cannot be written");
                }
            }
            _ => {}
        }
    }
}

/// What was kept; nothing if it cannot be read, since the cluster says it again.
fn read(file: &Path) -> Known {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Known::default(),
        Err(error) => {
            tracing::warn!(path = %file.display(), %error, "cannot be read");
            return Known::default();
        }
    };
    Known::from_text(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %file.display(), error, "does not say who could be the cluster");
        Known::default()
    })
}

/// Beside, synced, renamed: whole or not at all.
fn write(file: &Path, known: &Known) -> std::io::Result<()> {
    let aside = file.with_extension("new");
    let mut draft = std::fs::File::create(&aside)?;
    draft.write_all(known.to_text().as_bytes())?;
    draft.sync_all()?;
    std::fs::rename(&aside, file)?;
    match file.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::v1::{Alternate, Ancestor, Kin};

    fn config(dir: &Path) -> Config {
        let text = format!(
            "state_dir = '{}'\n[cluster]\nurl = 'mqtt://127.0.0.1:1'\nfailover_patience_s = 1\n",
            dir.display()
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn what_the_cluster_tells_of_others_is_kept_if_it_may_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let other = |id, address: &str| Alternate {
            id: ChildId([id; 12]),
            name: "other".into(),
            address: address.into(),
        };
        let alternates = vec![other(2, "mqtt://127.0.0.1:2"), other(3, "mqtt://10.0.0.1:2")];
        let parent = Ancestor { id: ChildId([1; 12]), name: "c".into(), ..Ancestor::default() };
        let kin = Kin { rooted: true, path: vec![parent], alternates, ..Kin::default() };
        let mut way = Way::open(&config(dir.path()), ChildId([7; 12]), 1).unwrap();
        assert!(matches!(way.poll(), Some(Action::Dial(_))));
        assert_eq!(way.up(), None);
        way.heard(&Down::Welcome { epoch: 1, unix_ms: 0 });
        way.heard(&Down::Kin(kin.clone()));
        let kept = read(&dir.path().join(FILE));
        assert_eq!(kept.learned, &kin.alternates[..1]);
        assert_eq!(kept.preferred.map(|there| there.id), Some(ChildId([1; 12])));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(read(&dir.path().join(FILE)), Known::default());
    }
}
