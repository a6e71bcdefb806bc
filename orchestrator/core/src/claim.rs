//! Children that come from another parent of the same tree, and who owns what they run.
//!
//! ```text
//!  greeting: same tree, another parent's generation
//!     │ welcomed, told of the tree, and nothing else: it goes on with what it holds
//!     ▼
//!  snapshot: each instance that is alive there is a claim
//!     ├─ in the books, placed there ──────────────────────────────► settled
//!     ├─ in the books, without a place ───────────────────────────► placed there
//!     ├─ placed on a child that has less of it, or the same copy ─► moved there: desired on
//!     │                                    both until this one confirms (see `movement`)
//!     ├─ alive at another child, on another node ─────────────────► disowned
//!     └─ not in the books ── root: removed meanwhile ─────────────► disowned
//!                         └─ parent asked: desired state holds it ► placed there
//!                                          Down::Disown ──────────► disowned
//!  all settled ──► the list: from here on it is a child like others
//! ```
//!
//! Why apart: all this happens only when somebody has moved; a day without faults never comes
//! here.
//!
//! **Who owns a copy.** A node runs what is desired by the generation that it holds, and a
//! parent's word counts from the moment its list was taken over. So a claim moves nothing by
//! itself: the former owner goes on wanting the instance until the new one has heard, from the
//! node and under its own generation, that it runs. Whatever gets lost, late or twice in
//! between, the copy that runs is wanted by the one whose generation its node holds. A parent
//! that takes over a copy's books reports it as running only then.
//!
//! **One question, one answer.** A tier asks its parent once for an instance and connection.
//! The answer is [`Down::Disown`] or a desired state that says something of the instance. A
//! question is taken back by the same claim with the state `Undeployed`; if it was still open
//! it is answered by a disown, and only then asked anew. So an answer is never taken for that
//! to a later question, and with a connection all of its questions end.
//!
//! Invariants:
//! - until its claims are settled, a child is told no list and no change, so nothing stops;
//! - what the tree still wants there is not disowned: that takes a root that has removed it, or
//!   a copy alive on another node;
//! - of two claimants of one instance the first keeps it, until it is known not to run it.

mod grant;
mod judge;

use crate::child::Child;
use crate::tier::{Notes, Tier};
use crate::{Effect, Now};
use judge::{Strength, Verdict, strength};
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{CARDS_MAX, ChildKind, Claim, Down, InstanceStatus, Scope, Up};
use std::collections::{BTreeMap, BTreeSet};

/// Why an instance that was asked for is handed back at once.
const LEFT_AGAIN: &str = "the child that ran it has left again";

/// How long a claim waits for somebody whose word may be out of date: a connection that is
/// gone without a word is noticed before, on MQTT as on the tunnel, with room to spare.
const DOUBT_MS: u64 = 90_000;

/// Ids in one message: 17 bytes each, a quarter of the message limit.
const DISOWNED_MAX: usize = 4_000;

/// A child on its way from another parent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Adoption {
    /// What it has told of its instances.
    told: BTreeMap<InstanceId, InstanceStatus>,
    /// It was greeted as one, and has told everything.
    begun: bool,
    /// Its claims that are not settled.
    open: BTreeSet<InstanceId>,
    /// What was granted it for children of its own: it does not run that by any word yet, and
    /// still is to hear of it.
    passed_on: BTreeSet<InstanceId>,
}

impl Adoption {
    /// The child has told everything, and is no child like others yet.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }
}

/// A question to the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Open,
    /// Nobody claims it any more; its answer is still to come.
    TakenBack,
}

/// All claims of all children.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Not settled yet.
    open: BTreeMap<InstanceId, BTreeMap<ChildId, Claim>>,
    /// To be judged: something has changed.
    stale: BTreeSet<InstanceId>,
    /// Until when somebody may hear that what it says of an instance is out of date.
    doubts: BTreeMap<InstanceId, u64>,
    /// Asked of the parent on the present connection.
    asked: BTreeMap<InstanceId, Question>,
    /// On its way up.
    upward: Vec<Claim>,
    /// On their way down.
    disowned: BTreeMap<ChildId, Vec<InstanceId>>,
    /// Claims of theirs were settled.
    eased: BTreeSet<ChildId>,
}

impl Claims {
    /// When a doubt is over.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.doubts.values().copied().min()
    }
}

impl Tier {
    /// A child that is not welcomed yet tells of what it runs by another parent's word.
    pub(crate) fn note_adopted(&mut self, id: ChildId, scope: Scope, statuses: &[InstanceStatus]) {
        let Some(link) = self.children.get_mut(&id).and_then(|child| child.link.as_mut()) else {
            return;
        };
        let Some(adoption) = &mut link.adoption else { return };
        if let Scope::Snapshot { first: true, .. } = scope {
            adoption.told.clear();
        }
        for status in statuses {
            match strength(status.state) {
                Strength::Nothing => drop(adoption.told.remove(&status.instance)),
                _ if adoption.told.len() >= CLUSTER_INSTANCES_MAX
                    && !adoption.told.contains_key(&status.instance) => {}
                _ => drop(adoption.told.insert(status.instance, status.clone())),
            }
        }
        if adoption.begun {
            let named: Vec<InstanceId> = statuses.iter().map(|status| status.instance).collect();
            named.into_iter().for_each(|instance| self.reclaim(id, instance));
        }
    }

    /// Claims an adopted child's instances, once it has told everything.
    pub(crate) fn begin_adoption(&mut self, id: ChildId) {
        let Some(link) = self.children.get_mut(&id).and_then(|child| child.link.as_mut()) else {
            return;
        };
        // What it tells in a further snapshot replaces what it told before.
        let Some(adoption) = link.adoption.as_mut().filter(|_| link.complete) else { return };
        adoption.begun = true;
        let named: BTreeSet<InstanceId> =
            adoption.told.keys().chain(&adoption.open).copied().collect();
        named.into_iter().for_each(|instance| self.reclaim(id, instance));
        self.claims.eased.insert(id);
    }

    /// What an adopted child runs is other than before.
    fn reclaim(&mut self, id: ChildId, instance: InstanceId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let kind = child.kind;
        let Some(adoption) = child.link.as_mut().and_then(|link| link.adoption.as_mut()) else {
            return;
        };
        let Some(status) = adoption.told.get(&instance) else {
            if adoption.open.remove(&instance) {
                self.claims.eased.insert(id);
                self.drop_claim(instance, id);
            }
            return;
        };
        let node = match kind {
            ChildKind::Node => Some(id),
            ChildKind::Cluster => status.node.as_ref().map(|node| node.id),
        };
        // A node that has just started and does not know yet how its instance is still has it.
        let state = match (kind, status.state) {
            (ChildKind::Node, InstanceState::Unknown) => InstanceState::NodeScheduled,
            (_, state) => state,
        };
        let claim = Claim { instance, revision: status.revision, node, state };
        adoption.open.insert(instance);
        self.note_claim(id, claim);
    }

    /// A child cluster passes on what children of its own claim.
    pub(crate) fn hear_claims(&mut self, by: ChildId, claims: Vec<Claim>) {
        let is_cluster = |child: &&Child| child.is_connected() && child.kind == ChildKind::Cluster;
        if self.children.get(&by).filter(is_cluster).is_none() {
            return;
        }
        for claim in claims {
            let id = claim.instance;
            if strength(claim.state) != Strength::Nothing {
                self.note_claim(by, claim);
            } else if self.drop_claim(id, by) {
                self.claims.disowned.entry(by).or_default().push(id);
            }
        }
    }

    fn note_claim(&mut self, by: ChildId, claim: Claim) {
        let of_instance = self.claims.open.entry(claim.instance).or_default();
        of_instance.insert(by, claim);
        self.claims.stale.insert(claim.instance);
    }

    /// The child does not claim the instance any more; whether it did.
    fn drop_claim(&mut self, id: InstanceId, by: ChildId) -> bool {
        let Some(claimants) = self.claims.open.get_mut(&id) else { return false };
        let dropped = claimants.remove(&by).is_some();
        if claimants.is_empty() {
            self.claims.open.remove(&id);
            if let Some(question @ Question::Open) = self.claims.asked.get_mut(&id) {
                *question = Question::TakenBack;
                let state = InstanceState::Undeployed;
                let claim = Claim { instance: id, revision: 0, node: None, state };
                self.claims.upward.push(claim);
            }
        }
        dropped
    }

    /// The child's connection is gone or begins anew, and with it all that it has claimed.
    pub(crate) fn drop_claims(&mut self, by: ChildId, now: Now) {
        let link = self.children.get(&by).and_then(|child| child.link.as_ref());
        if let Some(held) = link.filter(|link| !link.welcomed).map(|link| link.held) {
            self.ungrant_unheard(by, held, &BTreeSet::new(), now);
        }
        let of_child = |(id, claimants): (&InstanceId, &BTreeMap<ChildId, Claim>)| {
            claimants.contains_key(&by).then_some(*id)
        };
        for id in self.claims.open.iter().filter_map(of_child).collect::<Vec<_>>() {
            self.drop_claim(id, by);
        }
        self.claims.disowned.remove(&by);
    }

    /// The connection to the parent is gone or begins anew: nothing was asked on it.
    pub(crate) fn forget_questions(&mut self) {
        self.claims.asked.clear();
        self.claims.upward.clear();
        self.judge_all_claims();
    }

    /// Something has changed that any claim may depend on.
    pub(crate) fn judge_all_claims(&mut self) {
        self.claims.stale.extend(self.claims.open.keys());
    }

    /// The parent disowns what was claimed.
    pub(crate) fn hear_disowned(&mut self, disowned: &[InstanceId]) {
        for id in disowned {
            match self.claims.asked.remove(id) {
                Some(Question::Open) => self.disown_all(*id),
                Some(Question::TakenBack) => drop(self.claims.stale.insert(*id)),
                // Of an earlier connection.
                None => {}
            }
        }
    }

    /// The parent's desired state says that the instance is not desired here: an answer too.
    pub(crate) fn not_desired(&mut self, id: InstanceId) {
        if self.claims.asked.remove(&id) == Some(Question::Open) {
            self.disown_all(id);
        }
    }

    fn disown_all(&mut self, id: InstanceId) {
        let claimants = self.claims.open.get(&id).into_iter().flat_map(BTreeMap::keys);
        for by in claimants.copied().collect::<Vec<_>>() {
            self.close(id, by, Verdict::Disown);
        }
    }

    /// The parent's desired state holds the instance: an answer.
    pub(crate) fn answered(&mut self, id: InstanceId) {
        self.claims.asked.remove(&id);
        self.claims.stale.insert(id);
    }

    /// The parent desires an instance that has no place here: who claims it gets it. Whether
    /// it has a
    /// place now, or is handed back since whom it was asked for has left.
    pub(crate) fn place_claimed(&mut self, id: InstanceId, now: Now) -> bool {
        let question = self.claims.asked.remove(&id);
        if self.claims.open.contains_key(&id) {
            self.judge_claims_of(id, now);
            return self.instances.get(&id).is_some_and(|i| i.placed.is_some());
        }
        if question == Some(Question::TakenBack) && self.reporting.is_up() {
            self.hand_back(id, LEFT_AGAIN, now);
            return true;
        }
        false
    }

    /// Judges what has changed.
    pub(crate) fn settle_claims(&mut self, now: Now) {
        let over = self.claims.doubts.iter().filter(|(_, until)| **until <= now.mono_ms);
        self.claims.stale.extend(over.map(|(id, _)| *id));
        if !self.claims.open.is_empty() {
            let open = &self.claims.open;
            let changed = self.notes.changed.iter().filter(|id| open.contains_key(id)).copied();
            self.claims.stale.extend(changed);
            while let Some(id) = self.claims.stale.pop_first() {
                self.judge_claims_of(id, now);
            }
        }
        self.claims.stale.clear();
        let open = &self.claims.open;
        self.claims.doubts.retain(|id, until| *until > now.mono_ms && open.contains_key(id));
        for (by, instances) in std::mem::take(&mut self.claims.disowned) {
            for part in instances.chunks(DISOWNED_MAX) {
                let disown = Effect::ToChild(by, Down::Disown(part.to_vec()));
                self.notes.sends.push(disown);
            }
        }
        for id in std::mem::take(&mut self.claims.eased) {
            let link = self.children.get(&id).and_then(|child| child.link.as_ref());
            let Some(adoption) = link.and_then(|link| link.adoption.as_ref()) else { continue };
            if adoption.begun && adoption.open.is_empty() {
                let kept = adoption.told.keys().chain(&adoption.passed_on).copied();
                let kept: BTreeSet<InstanceId> = kept.collect();
                let held = link.map(|link| link.held).unwrap_or_default();
                self.ungrant_unheard(id, held, &kept, now);
                self.end_adoption(id);
            }
        }
    }

    fn judge_claims_of(&mut self, id: InstanceId, now: Now) {
        let Some(claimants) = self.claims.open.get(&id) else { return };
        let mut claimants: Vec<(ChildId, Claim)> =
            claimants.iter().map(|(by, claim)| (*by, *claim)).collect();
        claimants.sort_by_key(|(_, claim)| std::cmp::Reverse(strength(claim.state)));
        for (by, claim) in claimants {
            match self.judge(id, by, &claim) {
                Verdict::Wait => {}
                Verdict::Doubt => {
                    let until = now.mono_ms.saturating_add(DOUBT_MS);
                    let until = *self.claims.doubts.entry(id).or_insert(until);
                    if until <= now.mono_ms {
                        self.close(id, by, Verdict::Disown);
                    }
                }
                Verdict::Ask => self.ask(id, claim),
                Verdict::Settled => {
                    self.note_unconfirmed(id, by, now);
                    self.close(id, by, Verdict::Settled);
                }
                Verdict::Disown => self.close(id, by, Verdict::Disown),
                verdict @ (Verdict::Grant | Verdict::Move) => {
                    self.grant(id, by, verdict == Verdict::Move, now);
                    self.close(id, by, verdict);
                }
            }
        }
    }

    fn ask(&mut self, id: InstanceId, claim: Claim) {
        if self.reporting.is_up() && !self.claims.asked.contains_key(&id) {
            self.claims.asked.insert(id, Question::Open);
            self.claims.upward.push(claim);
        }
    }

    /// The claim is settled one way or the other.
    fn close(&mut self, id: InstanceId, by: ChildId, verdict: Verdict) {
        if let Some(claimants) = self.claims.open.get_mut(&id) {
            claimants.remove(&by);
            if claimants.is_empty() {
                self.claims.open.remove(&id);
            }
        }
        let link = self.children.get_mut(&by).and_then(|child| child.link.as_mut());
        let adoption = link.and_then(|link| link.adoption.as_mut());
        // What the child itself has told is told it by its list; what it passed on by a word.
        match (adoption, verdict) {
            (Some(adoption), _) if adoption.open.contains(&id) => {
                adoption.open.remove(&id);
                self.claims.eased.insert(by);
            }
            (_, Verdict::Disown) => self.claims.disowned.entry(by).or_default().push(id),
            (Some(adoption), _) => drop(adoption.passed_on.insert(id)),
            (None, _) => {}
        }
    }

    /// All claims of the child are settled: it is one like others, and hears what is desired.
    fn end_adoption(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        link.adoption = None;
        child.note_offer(&mut self.abilities);
        self.notes.wake.insert(id);
        self.notes.adopted.insert(id);
    }

    /// Sends the lists of those whose claims are settled, last of all that follows.
    pub(crate) fn tell_adopted(&mut self) {
        for id in std::mem::take(&mut self.notes.adopted) {
            let link = self.children.get_mut(&id).and_then(|child| child.link.as_mut());
            link.into_iter().for_each(|link| link.welcomed = true);
            self.send_manifest(id);
        }
    }

    /// Adds to `notes` what is asked of the parent now.
    pub(crate) fn report_claims(&mut self, notes: &mut Notes) {
        let claims = std::mem::take(&mut self.claims.upward);
        let messages = claims.chunks(CARDS_MAX).map(|part| Up::Claim(part.to_vec()));
        notes.sends.extend(messages.map(Effect::ToParent));
    }
}
