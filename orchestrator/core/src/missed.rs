//! What happened while nobody above could be told.
//!
//! Why apart: the snapshot that follows each greeting says how everything is now; this is for
//! people who ask how it came to that. No decision depends on it.
//!
//! Invariants: the history is bounded, and says how much it has lost; what was sent is kept
//! until the parent has answered the greeting before it, so that a connection that breaks at
//! once loses nothing. It is kept in memory only: a restart of the tier ends it.

use crate::tier::{Notes, Tier};
use crate::{Effect, Now};
use marram_protocol::v1::{CARDS_MAX, InstanceStatus, Missed, Up};
use std::collections::VecDeque;

/// Entries that are kept, the newest: one message with the longest details, and more than an
/// operator reads of one outage.
pub const HISTORY_MAX: usize = CARDS_MAX;

/// The last entries since the parent was there.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<Missed>,
    dropped: u32,
    /// They were sent on the present connection.
    sent: bool,
}

impl History {
    fn push(&mut self, entry: Missed) {
        let last = self.entries.iter().rev().find(|known| known.instance == entry.instance);
        // What is worth a look is not always a change.
        if last.is_some_and(|last| last.state == entry.state && last.detail == entry.detail) {
            return;
        }
        if self.entries.len() >= HISTORY_MAX {
            self.entries.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.entries.push_back(entry);
    }

    /// The parent has answered: it has what was sent.
    pub(crate) fn answered(&mut self) {
        if std::mem::take(&mut self.sent) {
            *self = Self::default();
        }
    }

    /// The connection is gone: what was sent may be lost.
    pub(crate) fn doubt(&mut self) {
        self.sent = false;
    }
}

impl Tier {
    /// Notes what the parent should hear now and cannot.
    pub(crate) fn note_missed(&mut self, notes: &Notes, now: Now) {
        if self.is_root() {
            return;
        }
        let known = notes.changed.iter().filter_map(|id| self.status(*id));
        let all: Vec<InstanceStatus> = known.chain(notes.farewells.iter().cloned()).collect();
        for InstanceStatus { instance, state, detail, .. } in all {
            self.history.push(Missed { instance, unix_ms: now.unix_ms, state, detail });
        }
    }

    /// A child tells what it could not tell before: it is passed on, or kept with this tier's.
    pub(crate) fn hear_missed(&mut self, mut entries: Vec<Missed>, dropped: u32) {
        entries.truncate(HISTORY_MAX);
        entries.iter_mut().for_each(|entry| entry.detail = InstanceStatus::detail(&entry.detail));
        if self.reporting.is_up() {
            let missed = Up::Missed { entries, dropped };
            return self.notes.sends.push(Effect::ToParent(missed));
        }
        if !self.is_root() {
            self.history.dropped = self.history.dropped.saturating_add(dropped);
            entries.into_iter().for_each(|entry| self.history.push(entry));
        }
    }

    /// Adds to `notes` what has happened before this connection, behind the snapshot.
    pub(crate) fn report_missed(&mut self, notes: &mut Notes) {
        let History { entries, dropped, sent } = &mut self.history;
        if !*sent && !entries.is_empty() {
            *sent = true;
            let entries = entries.iter().cloned().collect();
            let missed = Up::Missed { entries, dropped: *dropped };
            notes.sends.push(Effect::ToParent(missed));
        }
    }
}
