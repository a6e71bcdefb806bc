//! Whether an instance would sit better on another child.
//!
//! Why apart: placing asks where there is room; this compares a place that is taken, counted as
//! if it was not, with all others by the same rank.
//!
//! Invariant: what was moved once does not go back by the same rank: the gain has a margin.

use super::wish::Judged;
use crate::child::Child;
use crate::tier::Tier;
use marram_protocol::id::{ChildId, InstanceId};

/// A place is better if it has less of its service in its failure domain, or if the policy's
/// score is lower by a fifth: less is not worth a start and a stop.
const GAIN: (u64, u64) = (4, 5);

impl Tier {
    /// The child where the instance would sit better by the margin.
    pub(crate) fn better_place(&self, id: InstanceId) -> Option<ChildId> {
        let instance = self.instances.get(&id)?;
        let here = self.children.get(&instance.placed?)?;
        let wish = self.wish(instance);
        let mut judged = Judged::default();
        let now = wish.standing(here, &mut judged)?;
        let now = marram_placement::rank(wish.policy, &wish.demand, &now);
        let others = self.children.values().filter_map(|child: &Child| {
            let candidate = wish.judge(child, &mut judged).ok()?;
            Some((marram_placement::rank(wish.policy, &wish.demand, &candidate), child.id))
        });
        let (best, child) = others.min_by_key(|(rank, _)| *rank)?;
        let (least, most) = GAIN;
        let is_lower = best.1.saturating_mul(most) < now.1.saturating_mul(least);
        (best.0 < now.0 || best.0 == now.0 && is_lower).then_some(child)
    }
}
