//! The root's stream of events, each stamped when it arrived: what a client sees, and when.

use anyhow::{Context, bail};
use marram_e2e::{Api, PATIENCE};
use serde_json::Value;
use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Events that nobody has asked for yet: twenty workloads change some ten times each.
const QUEUE_MAX: usize = 1024;

/// What came, and when.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// `instance`, `ready` or `removed`.
    pub(crate) kind: String,
    pub(crate) value: Value,
}

impl Seen {
    /// Whether it tells of this instance in this state.
    pub(crate) fn is(&self, instance: &str, state: &str) -> bool {
        self.of(instance) && self.value["state"] == state
    }

    /// Whether it tells that this instance is no more.
    pub(crate) fn is_end_of(&self, instance: &str) -> bool {
        self.kind == "removed" && self.of(instance)
    }

    pub(crate) fn of(&self, instance: &str) -> bool {
        self.value["instance_id"] == instance
    }
}

/// A connected watcher. Its thread ends with the root or at the first event without a reader.
#[derive(Debug)]
pub(crate) struct Watch(Receiver<Seen>);

impl Watch {
    /// Connects, and skips what is there already.
    pub(crate) fn start(api: &Api) -> anyhow::Result<Self> {
        let stream = api.events()?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        thread::spawn(move || read(stream, &sender));
        let watch = Self(receiver);
        watch.until("the stream's beginning", |seen| seen.kind == "ready")?;
        Ok(watch)
    }

    /// The next event that is waited for; others before it are dropped.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                bail!("waited {PATIENCE:?} in vain for: {what}");
            }
            let seen = self.0.recv_timeout(left).with_context(|| format!("no event: {what}"))?;
            if is(&seen) {
                return Ok(seen);
            }
        }
    }
}

fn read(stream: impl BufRead, sender: &SyncSender<Seen>) {
    let mut kind = String::new();
    // The stream breaks when the root ends.
    for line in stream.lines().map_while(Result::ok) {
        let at = Instant::now();
        if let Some(name) = line.strip_prefix("event: ") {
            name.clone_into(&mut kind);
        } else if let Some(text) = line.strip_prefix("data: ") {
            let value = serde_json::from_str(text).unwrap_or(Value::Null);
            if sender.send(Seen { at, kind: kind.clone(), value }).is_err() {
                return;
            }
        }
    }
}
