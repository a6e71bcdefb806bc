//! What an operator wants of a cluster or of one of its children, and the way there and back.
//!
//! Why apart: an operation is asked for once and answered once, unlike desired state, which is
//! told until it is heard. It travels down the tree to the cluster that has to do it; each tier
//! on the way gives it a number of its own and remembers who asked.
//!
//! Invariants: an operation is answered when what it notes is durable; each one is answered,
//! though nobody may be there to hear it; how many are under way is bounded.

use crate::records::Key;
use crate::tier::Tier;
use crate::{Effect, Now};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Down, InstanceStatus, OperationEnd, OperationId, Up, Verb};
use std::collections::BTreeMap;

/// Longest wait for the answer of a child: what an operator at a terminal puts up with, and
/// more than a message needs through a tree as deep as it may be.
const ANSWER_MS: u64 = 30_000;

/// Operations under way at once: operators' hands and a script's loop, not a flood.
const OPERATIONS_MAX: usize = 256;

/// Who gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The owner, by its own number.
    Owner(OperationId),
    /// The parent, by its number.
    Parent(OperationId),
}

/// An operation that a child has to answer.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    of: ChildId,
    due_ms: u64,
}

/// Operations under way.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    asked: BTreeMap<u64, Asked>,
    last: u64,
}

impl Operations {
    /// Numbers begin elsewhere at each start, so that an answer to an earlier life is none to
    /// this one.
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { asked: BTreeMap::new(), last: incarnation << 16 }
    }

    /// When somebody has waited long enough.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.asked.values().map(|asked| asked.due_ms).min()
    }
}

impl Tier {
    /// Does what an operator wants, or hands it on.
    pub(crate) fn operate(
        &mut self,
        asker: Asker,
        cluster: ChildId,
        child: Option<String>,
        verb: Verb,
        now: Now,
    ) {
        let end = match cluster == self.identity.id {
            true => self.perform(child.as_deref(), verb, now),
            false => match self.hand_on(asker, cluster, child, verb, now) {
                Ok(()) => return,
                Err(end) => end,
            },
        };
        self.answer(asker, end);
    }

    fn hand_on(
        &mut self,
        asker: Asker,
        cluster: ChildId,
        child: Option<String>,
        verb: Verb,
        now: Now,
    ) -> Result<(), OperationEnd> {
        let Some(of) = self.way_to(cluster) else {
            return Err(OperationEnd::NotFound(format!("cluster {cluster} is not known here")));
        };
        let next = self.children.get(&of).filter(|child| child.is_connected());
        if next.is_none() {
            return Err(OperationEnd::Unreachable(self.unreachable(of)));
        }
        if self.operations.asked.len() >= OPERATIONS_MAX {
            let why = format!("{OPERATIONS_MAX} operations are under way, which is the most");
            return Err(OperationEnd::Refused(why));
        }
        self.operations.last = self.operations.last.wrapping_add(1);
        let number = self.operations.last;
        let due_ms = now.mono_ms.saturating_add(ANSWER_MS);
        self.operations.asked.insert(number, Asked { asker, of, due_ms });
        let operation = OperationId(number);
        let message = Down::Operate { operation, cluster, child, verb };
        self.notes.sends.push(Effect::ToChild(of, message));
        Ok(())
    }

    /// The child whose subtree holds the cluster.
    fn way_to(&self, cluster: ChildId) -> Option<ChildId> {
        self.towards(cluster)
    }

    fn unreachable(&self, of: ChildId) -> String {
        let name = self.children.get(&of).map_or("it", |child| &child.name);
        format!("{name} is not connected to {}", self.identity.name)
    }

    /// A child has answered.
    pub(crate) fn operated(&mut self, by: ChildId, operation: OperationId, end: OperationEnd) {
        let asked = self.operations.asked.get(&operation.0).filter(|asked| asked.of == by);
        let Some(asker) = asked.map(|asked| asked.asker) else { return };
        self.operations.asked.remove(&operation.0);
        self.answer(asker, bounded(end));
    }

    fn answer(&mut self, asker: Asker, end: OperationEnd) {
        self.notes.sends.push(match asker {
            Asker::Owner(operation) => Effect::Operated { operation, end },
            Asker::Parent(operation) => Effect::ToParent(Up::Operated { operation, end }),
        });
    }

    /// A child that was asked is gone: nobody knows whether it has heard.
    pub(crate) fn fail_operations(&mut self, of: ChildId) {
        let why = self.unreachable(of);
        self.end_operations(|asked| asked.of == of, &why);
    }

    /// Those that have waited long enough are told so.
    pub(crate) fn expire_operations(&mut self, now: Now) {
        let why = format!("no answer for {} s", ANSWER_MS / 1_000);
        self.end_operations(|asked| asked.due_ms <= now.mono_ms, &why);
    }

    fn end_operations(&mut self, which: impl Fn(&Asked) -> bool, why: &str) {
        let over = self.operations.asked.extract_if(.., |_, asked| which(asked));
        let askers: Vec<Asker> = over.map(|(_, asked)| asked.asker).collect();
        for asker in askers {
            self.answer(asker, OperationEnd::Unreachable(why.to_owned()));
        }
    }

    /// Does what is wanted of this tier.
    fn perform(&mut self, child: Option<&str>, verb: Verb, now: Now) -> OperationEnd {
        let Some(name) = child else { return self.perform_whole(verb, now) };
        let by_name = self.children.values().find(|child| child.name == name);
        let by_id = || self.children.get(&name.parse().ok()?);
        let Some(child) = by_name.or_else(by_id) else {
            let why = format!("{} has no child {name:?}", self.identity.name);
            return OperationEnd::NotFound(why);
        };
        let id = child.id;
        match verb {
            Verb::Cordon => self.shut(id, true, false, now),
            Verb::Uncordon => self.shut(id, false, false, now),
            Verb::Drain => self.shut(id, true, true, now),
            Verb::Forget if child.is_connected() => {
                let why = format!("{} is connected: it would come back at once", child.name);
                return OperationEnd::Refused(why);
            }
            Verb::Forget => self.forget(id, now),
            Verb::Rebalance => {
                let why = "what is rebalanced is a cluster, not one of its children".to_owned();
                return OperationEnd::Refused(why);
            }
        }
        OperationEnd::Done
    }

    /// Closes a child for new work or opens it again; one that is drained is emptied too.
    fn shut(&mut self, id: ChildId, cordoned: bool, draining: bool, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if (child.cordoned, child.draining) == (cordoned, draining) {
            return;
        }
        (child.cordoned, child.draining) = (cordoned, draining);
        child.note_offer(&mut self.abilities);
        self.notes.dirty.insert(Key::Child(id));
        self.notes.wake.insert(id);
        self.reporting.summary_stale = true;
        self.deck.stale = true;
        self.watch(id);
        match draining {
            true => self.movements.note_drain(id, now),
            false => self.end_drain(id),
        }
    }

    /// Does what is wanted of the tier as a whole.
    fn perform_whole(&mut self, verb: Verb, now: Now) -> OperationEnd {
        let cordoned = match verb {
            Verb::Cordon if self.desired.is_none() => {
                return OperationEnd::Refused("there is nobody above who gives it work".into());
            }
            Verb::Cordon => true,
            Verb::Uncordon => false,
            Verb::Drain | Verb::Forget => {
                let why = "what becomes of a whole cluster is decided by its parent: ask there";
                return OperationEnd::Refused(why.into());
            }
            Verb::Rebalance => {
                self.movements.note_rebalance(now);
                return OperationEnd::Done;
            }
        };
        if self.cordoned != cordoned {
            self.cordoned = cordoned;
            self.notes.dirty.insert(Key::Tier);
            self.reporting.summary_stale = true;
        }
        OperationEnd::Done
    }
}

/// An answer whose size does not depend on who sent it.
fn bounded(end: OperationEnd) -> OperationEnd {
    let cut = |why: String| InstanceStatus::detail(&why);
    match end {
        OperationEnd::Done => OperationEnd::Done,
        OperationEnd::Unreachable(why) => OperationEnd::Unreachable(cut(why)),
        OperationEnd::NotFound(why) => OperationEnd::NotFound(cut(why)),
        OperationEnd::Refused(why) => OperationEnd::Refused(cut(why)),
    }
}

#[cfg(test)]
mod tests;
