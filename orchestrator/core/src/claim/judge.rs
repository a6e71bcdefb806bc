//! What becomes of a claim, by what is known of the instance now.

use crate::child::Child;
use crate::tier::Tier;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::Claim;

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody can say yet.
    Wait,
    /// As [`Verdict::Wait`], but not for ever: then it is disowned.
    Doubt,
    /// The parent has to say.
    Ask,
    /// It is placed there.
    Settled,
    /// The claimant gets it: nobody else has it.
    Grant,
    /// The claimant gets it once it has confirmed; until then both are to run it.
    Move,
    /// Nobody wants it there.
    Disown,
}

impl Tier {
    /// What becomes of the claim, by what is known now.
    pub(super) fn judge(&self, id: InstanceId, by: ChildId, claim: &Claim) -> Verdict {
        if !self.is_established() {
            return Verdict::Wait;
        }
        let Some(instance) = self.instances.get(&id) else { return self.not_ours(by) };
        // The parent has taken it back from here, which the child has not heard.
        if instance.removing && self.is_behind(by) {
            return Verdict::Disown;
        }
        if instance.handed_back || instance.removing {
            return self.not_ours(by);
        }
        if instance.is_at(by) {
            return Verdict::Settled;
        }
        if instance.stopping || (instance.leaving.is_some() && !instance.claimed) {
            return if self.is_behind(by) { Verdict::Disown } else { Verdict::Wait };
        }
        let Some(holder) = instance.placed.and_then(|child| self.children.get(&child)) else {
            return Verdict::Grant;
        };
        let status = self.status(id).filter(|_| !is_silent(holder));
        let theirs = status.as_ref().map_or(Strength::Lost, |status| strength(status.state));
        if instance.claimed && theirs > Strength::Lost {
            return Verdict::Wait;
        }
        let silent = is_silent(holder);
        let node = self.status(id).and_then(|status| status.node).map(|node| node.id);
        let same = claim.node.is_some() && claim.node == node;
        let scheduled_there = status.as_ref().is_some_and(|status| is_scheduled(status.state));
        match (strength(claim.state), theirs) {
            (Strength::Nothing, _) => Verdict::Disown,
            // The node is lost to both, and comes back to whom it belongs.
            (Strength::Lost, Strength::Lost) if same && holder.guest => Verdict::Move,
            // That it is there no more was decided after it was last heard of.
            (Strength::Lost, _) if self.is_behind(by) => Verdict::Disown,
            // Who lost it by losing the claimant hears of that soon.
            (Strength::Lost, Strength::Held) if scheduled_there => Verdict::Doubt,
            (Strength::Lost, Strength::Held | Strength::Alive) if same => Verdict::Doubt,
            (_, Strength::Nothing) => Verdict::Grant,
            (Strength::Lost, Strength::Lost) if silent || same || node.is_none() => Verdict::Move,
            (Strength::Held | Strength::Alive, Strength::Lost) => Verdict::Move,
            (Strength::Alive, Strength::Held) => Verdict::Move,
            // The same copy, told of by two: the node can be at one of them only.
            (Strength::Alive | Strength::Held, _) if same => Verdict::Move,
            _ => Verdict::Disown,
        }
    }

    /// What is not in the books of the root was removed; elsewhere others may want it, whom the
    /// parent knows. While there is no parent, a child that follows this tier and is behind is
    /// given some time: most likely that it is over was decided before, and it has not heard.
    pub(super) fn not_ours(&self, by: ChildId) -> Verdict {
        match self.is_root() {
            true => Verdict::Disown,
            false if self.is_behind(by) && !self.reporting.is_up() => Verdict::Doubt,
            false => Verdict::Ask,
        }
    }

    /// Whether the child follows this tier, and has not heard all.
    pub(super) fn is_behind(&self, by: ChildId) -> bool {
        let link = self.children.get(&by).and_then(|child| child.link.as_ref());
        let waits = link.filter(|link| link.is_adopting());
        waits.is_some_and(|link| link.held.epoch == self.epoch)
    }
}

/// How much somebody has of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    /// No copy.
    Nothing,
    /// A copy that nobody hears of.
    Lost,
    /// It is to run there, and does not run now.
    Held,
    /// It runs, is about to, or has done what it should.
    Alive,
}

pub(super) fn strength(state: InstanceState) -> Strength {
    use InstanceState::{
        ClusterScheduled, Completed, Created, Creating, Dead, Failed, Lost, NodeScheduled, Refused,
        Requested, Running, Undeployed, Unknown, Unplaceable,
    };
    match state {
        Creating | Created | Running | Completed => Strength::Alive,
        ClusterScheduled | NodeScheduled | Failed | Dead => Strength::Held,
        Unknown | Lost => Strength::Lost,
        Requested | Unplaceable | Refused | Undeployed => Strength::Nothing,
    }
}

/// What the child says now is not known.
pub(super) fn is_silent(child: &Child) -> bool {
    !child.link.as_ref().is_some_and(|link| link.complete)
}

pub(super) fn is_scheduled(state: InstanceState) -> bool {
    matches!(state, InstanceState::ClusterScheduled | InstanceState::NodeScheduled)
}
