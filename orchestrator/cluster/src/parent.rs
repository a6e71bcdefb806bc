//! The way up: dials whom the rules of [`Parents`] name, and carries messages.
//!
//! ```text
//!             ┌── rules: whom, when, away ──┐
//!  shell ◄─events─ keep ──Dial, Leave──► carry ◄══tunnel══► parent
//!        ─messages────────────────────────►
//! ```
//!
//! Two queues lead up: state, which goes first, and output of streams, which waits. A parent
//! that does not take state is cut off and told everything when it is back, so that nothing
//! grows without bound.

use crate::config::{Network, Parent};
use marram_protocol::id::ChildId;
use marram_protocol::parents::{Action, Known, Parents};
use marram_protocol::v1::{Down, Kin, Up};
use marram_tunnel::{ParentConnection, SendError, Sender};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// State that waits for a slow connection: the snapshot of a full cluster takes 50 messages.
const CONTROL_QUEUE_MAX: usize = 512;

/// Output that waits: a quarter of a MiB of the longest pieces.
const STREAM_QUEUE_MAX: usize = 16;

/// Words of the parent on the tree that wait: each follows from a change there.
const NOTES_MAX: usize = 16;

/// What is known of parents, in the state directory.
const FILE: &str = "parents.json";

/// What the shell hears of its parent.
#[derive(Debug)]
pub(crate) enum ParentEvent {
    /// There is a connection; and whom the cluster would rather have, if not this one.
    Up(ParentLink, Option<ChildId>),
    /// It said something on the connection of that number.
    Said(u64, Down),
    /// That connection is gone.
    Gone(u64),
}

/// The shell's end of a connection. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct ParentLink {
    /// Tells this connection from earlier ones.
    pub(crate) serial: u64,
    /// For state.
    pub(crate) control: mpsc::Sender<Up>,
    /// For output of streams.
    pub(crate) streams: mpsc::Sender<Up>,
    notes: mpsc::Sender<Note>,
}

impl ParentLink {
    /// This parent must not be the parent: another one is to be looked for.
    pub(crate) fn refuse(&self) {
        if self.notes.try_send(Note::Refused).is_err() {
            // The connection ends with this link, and its parent will say the same again.
            tracing::debug!("the parent is left without a note");
        }
    }
}

/// What a parent's words mean for staying with it.
#[derive(Debug)]
enum Note {
    Welcomed,
    Kin(Box<Kin>),
    Refused,
}

/// Who this cluster is, and by which rules it dials.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) own: ChildId,
    pub(crate) parent: Parent,
    pub(crate) network: Network,
    pub(crate) state_dir: PathBuf,
    /// Kept at whether there is a way to the root.
    pub(crate) rooted: Arc<AtomicBool>,
}

/// Connects and connects again, until dropped or until nobody listens.
pub(crate) async fn keep(way: Way, events: mpsc::Sender<ParentEvent>) {
    let file = way.state_dir.join(FILE);
    let Parent { preferred, alternates, habits } = way.parent;
    let known = read(&file);
    let parents = Parents::new(way.own, habits, preferred, alternates, known, 0);
    let (note, notes) = mpsc::channel(NOTES_MAX);
    let keeper = Keeper {
        parents,
        started: Instant::now(),
        network: way.network,
        file,
        rooted: way.rooted,
        events,
        serial: 0,
        carrying: JoinSet::new(),
        probing: JoinSet::new(),
        note,
        notes,
        told: None,
    };
    keeper.run().await;
}

struct Keeper {
    parents: Parents,
    started: Instant,
    network: Network,
    file: PathBuf,
    rooted: Arc<AtomicBool>,
    events: mpsc::Sender<ParentEvent>,
    serial: u64,
    /// The connection, if there is one.
    carrying: JoinSet<String>,
    probing: JoinSet<bool>,
    /// Notes of the present connection, and of none before it.
    note: mpsc::Sender<Note>,
    notes: mpsc::Receiver<Note>,
    /// A parent that is away for days is no news every minute.
    told: Option<String>,
}

impl Keeper {
    async fn run(mut self) {
        while !self.events.is_closed() {
            let now_ms = self.now_ms();
            match self.parents.poll(now_ms) {
                Some(Action::Dial(url)) => self.dial(&url).await,
                Some(Action::Leave(why)) => self.leave(why).await,
                Some(Action::Probe(url)) => self.probe(url),
                None => self.wait(now_ms).await,
            }
            self.rooted.store(self.parents.is_rooted(), Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn dial(&mut self, url: &str) {
        let connected = match self.network.dialer(url, "parent") {
            Ok(dialer) => dialer.connect().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match connected {
            Ok(connection) => {
                self.told = None;
                tracing::info!(parent = url, "connected");
                self.serial += 1;
                (self.note, self.notes) = mpsc::channel(NOTES_MAX);
                self.parents.connected(self.now_ms());
                let (events, note) = (self.events.clone(), self.note.clone());
                let (serial, rather) = (self.serial, self.parents.preferred());
                self.carrying.spawn(carry(connection, serial, rather, events, note));
            }
            Err(why) => {
                if self.told.as_ref() != Some(&why) {
                    tracing::warn!("{why}; trying again and again");
                }
                self.told = Some(why);
                self.parents.failed(self.now_ms(), random());
            }
        }
    }

    async fn leave(&mut self, why: &str) {
        tracing::warn!(next = self.parents.address(), "left the parent: {why}");
        self.carrying.shutdown().await;
        self.gone().await;
    }

    async fn gone(&mut self) {
        // An error says that the shell has ended; so does this task then.
        drop(self.events.send(ParentEvent::Gone(self.serial)).await);
    }

    fn probe(&mut self, url: String) {
        let dialer = self.network.dialer(&url, "parent");
        self.probing.spawn(async move {
            match dialer {
                Ok(dialer) => dialer.probe().await.is_ok(),
                Err(_) => false,
            }
        });
    }

    async fn wait(&mut self, now_ms: u64) {
        let due = self.parents.due_ms(now_ms);
        let due = due.map(|at_ms| self.started + Duration::from_millis(at_ms));
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // Queues and sets keep what was not taken.
        tokio::select! {
            // What was said before the end counts: a parent that refuses hangs up.
            biased;
            Some(note) = self.notes.recv() => self.noted(note),
            Some(ended) = self.carrying.join_next() => {
                let why = ended.unwrap_or_else(|error| error.to_string());
                tracing::warn!(parent = self.parents.address(), "disconnected: {why}");
                self.parents.lost(self.now_ms(), random());
                self.gone().await;
            }
            Some(answers) = self.probing.join_next() => {
                self.parents.probed(self.now_ms(), answers.unwrap_or(false));
            }
            () = due => {}
            () = self.events.closed() => {}
        }
    }

    fn noted(&mut self, note: Note) {
        let now_ms = self.now_ms();
        match note {
            Note::Welcomed => self.parents.welcomed(now_ms),
            Note::Refused => self.parents.refused(now_ms, random()),
            Note::Kin(mut kin) => {
                kin.alternates.retain(|a| self.network.dialer(&a.address, "parent").is_ok());
                if self.parents.kin(now_ms, &kin)
                    && let Err(error) = write(&self.file, self.parents.known())
                {
                    // It goes on with what it has in memory.
                    tracing::error!(path = %self.file.display(), "cannot be written: {error}");
                }
            }
        }
    }
}

fn random() -> u64 {
    // Without randomness all siblings come back together, which a parent survives.
    getrandom::u64().unwrap_or_default()
}

/// What was kept; nothing if it cannot be read, since the parent says it again.
fn read(file: &Path) -> Known {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Known::default(),
        Err(error) => {
            tracing::warn!(path = %file.display(), "cannot be read: {error}");
            return Known::default();
        }
    };
    Known::from_text(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %file.display(), "does not say who could be a parent: {error}");
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

/// Serves one connection, and says why it ended.
async fn carry(
    connection: ParentConnection,
    serial: u64,
    rather: Option<ChildId>,
    events: mpsc::Sender<ParentEvent>,
    notes: mpsc::Sender<Note>,
) -> String {
    let ParentConnection { sender, mut receiver } = connection;
    let (control, from_shell) = mpsc::channel(CONTROL_QUEUE_MAX);
    let (streams, from_streams) = mpsc::channel(STREAM_QUEUE_MAX);
    let link = ParentLink { serial, control, streams, notes: notes.clone() };
    let stopping = || "this cluster is stopping".to_owned();
    if events.send(ParentEvent::Up(link, rather)).await.is_err() {
        return stopping();
    }
    let listen = async {
        loop {
            let message = match receiver.recv().await {
                Ok(Some(message)) => message,
                Ok(None) => return "the parent ended the connection".to_owned(),
                Err(error) => return error.to_string(),
            };
            let note = match &message {
                Down::Welcome { .. } => Some(Note::Welcomed),
                Down::Kin(kin) => Some(Note::Kin(Box::new(kin.clone()))),
                Down::Rejected { .. } => Some(Note::Refused),
                _ => None,
            };
            if events.send(ParentEvent::Said(serial, message)).await.is_err() {
                return stopping();
            }
            if let Some(note) = note
                && notes.send(note).await.is_err()
            {
                return stopping();
            }
        }
    };
    // When one direction ends the connection is of no use, so the other is given up.
    tokio::select! {
        why = listen => why,
        why = speak(&sender, from_shell, from_streams) => why,
    }
}

async fn speak(
    sender: &Sender<Up>,
    mut from_shell: mpsc::Receiver<Up>,
    mut from_streams: mpsc::Receiver<Up>,
) -> String {
    loop {
        // Receiving from a queue can be given up without loss.
        let message = tokio::select! {
            biased;
            message = from_shell.recv() => message,
            Some(message) = from_streams.recv() => Some(message),
        };
        let Some(message) = message else { return "given up by this cluster".to_owned() };
        match sender.send(&message).await {
            Ok(()) => {}
            // The core keeps its messages below the limit; the parent has to be told anew.
            Err(error @ (SendError::Message(_) | SendError::Ended | SendError::Full)) => {
                return error.to_string();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_kept_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        assert_eq!(read(&file), Known::default());
        let preferred = marram_protocol::v1::Alternate {
            id: ChildId([1; 12]),
            name: "root".into(),
            address: "http://127.0.0.1:1".into(),
        };
        let known = Known { preferred: Some(preferred), ..Known::default() };
        write(&file, &known).unwrap();
        assert_eq!(read(&file), known);
        std::fs::write(&file, "{\"preferred\":").unwrap();
        assert_eq!(read(&file), Known::default());
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(read(&file), Known::default());
    }
}
