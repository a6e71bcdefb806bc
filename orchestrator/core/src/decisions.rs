//! What a tier has decided about an instance, and when: the answer to "why is it here" and
//! "why does it not run".
//!
//! Why apart: it decides nothing. Decisions are kept with the instance's record, the last few
//! of them, and are written whenever that record is.

use crate::Now;
use crate::instance::Instance;
use crate::tier::Tier;
use marram_protocol::id::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;

/// Decisions kept of each instance: what led to its present place, and a little before.
pub const DECISIONS_MAX: usize = 8;

/// Bytes of a reason that are kept; ten thousand instances keep theirs.
const REASON_BYTES_MAX: usize = 240;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, by the wall clock; of several alike, the last.
    pub unix_ms: u64,
    /// How often the same was decided in a row.
    pub times: u32,
    /// What.
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It was given to a child.
    Placed {
        /// Its name.
        on: String,
        /// Children that could have taken it.
        candidates: u32,
        /// Children that there were.
        of: u32,
        /// Who chose among them.
        policy: String,
    },
    /// A child did not take it.
    Refused {
        /// Its name.
        by: String,
        /// In its words.
        reason: String,
    },
    /// Nobody takes it.
    Nowhere {
        /// Child by child.
        reason: String,
        /// The parent is to find another place.
        handed_back: bool,
    },
    /// Others have to go, so that it has room.
    MakesRoom {
        /// Where.
        on: String,
        /// Their names.
        victims: Vec<String>,
    },
    /// It had to go, since something more important needs its room.
    Yielded {
        /// From where.
        on: String,
        /// To what.
        to: String,
    },
    /// Something else, as its child being lost.
    Other(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed { on, candidates, of, policy } => {
                write!(f, "placed on {on} by {policy}, one of {candidates} that fit among {of}")
            }
            Self::Refused { by, reason } => write!(f, "refused by {by}: {reason}"),
            Self::Nowhere { reason, handed_back: false } => write!(f, "no place: {reason}"),
            Self::Nowhere { reason, .. } => write!(f, "no place here, handed back: {reason}"),
            Self::MakesRoom { on, victims } if victims.is_empty() => {
                write!(f, "waits for room on {on}, where some is about to be free")
            }
            Self::MakesRoom { on, victims } => {
                write!(f, "waits for room on {on}, which is taken from {}", victims.join(", "))
            }
            Self::Yielded { on, to } => write!(f, "had to leave {on} for {to}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Tier {
    /// What this tier has decided about the instance, the last decision last; `None` if it is
    /// not in its books.
    pub fn explain(&self, id: InstanceId) -> Option<&VecDeque<Decision>> {
        self.instances.get(&id).map(|instance| &instance.decisions)
    }

    /// Notes a decision.
    pub(crate) fn decide(&mut self, id: InstanceId, verdict: Verdict, now: Now) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.decide(verdict, now);
        }
    }
}

impl Instance {
    fn decide(&mut self, verdict: Verdict, now: Now) {
        let verdict = bounded(verdict);
        if let Some(last) = self.decisions.back_mut().filter(|last| last.verdict == verdict) {
            (last.unix_ms, last.times) = (now.unix_ms, last.times.saturating_add(1));
            return;
        }
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision { unix_ms: now.unix_ms, times: 1, verdict });
    }
}

/// A verdict whose size does not depend on who has given the reason.
fn bounded(mut verdict: Verdict) -> Verdict {
    let cut = |text: &mut String| {
        let mut end = text.len().min(REASON_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end < text.len() {
            text.truncate(end);
            text.push('…');
        }
    };
    match &mut verdict {
        Verdict::Refused { reason, .. } | Verdict::Nowhere { reason, .. } => cut(reason),
        Verdict::Other(text) => cut(text),
        Verdict::MakesRoom { victims, .. } => victims.truncate(DECISIONS_MAX),
        Verdict::Placed { .. } | Verdict::Yielded { .. } => {}
    }
    verdict
}

#[cfg(test)]
mod tests;
