//! What operators wish for: services of all sorts.

use super::World;
use crate::network::Actor;
use crate::tier::SITES;
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{MovePolicy, Patience, Placement, Resources, ServiceSpec, Workload};

/// Least and most memory of an instance. Two of them at most fill a node, so as many as there
/// are nodes fit in whatever order they come.
const MEMORY_MIB: (u64, u64) = (50, 350);

/// Shortest and longest patience with a silent node or cluster, in seconds.
const PATIENCE_S: (u64, u64) = (5, 120);

/// So much longer than its own patience with a broken way those above wait for a service that
/// must never run twice: a keep-alive of 60 s that fails, and a grace period.
const FENCE_S: u32 = 150;

/// Which clusters an instance may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Anywhere,
    /// By name: this one or one below it.
    Cluster(usize),
    /// By the beginning of the name.
    Like(char),
    /// By label.
    Site(usize),
}

impl World {
    /// An instance of some service.
    pub(super) fn draw_workload(&mut self, instance: InstanceId) -> Workload {
        let memory_mib = self.random.between(MEMORY_MIB.0, MEMORY_MIB.1);
        let patience = self.draw_patience();
        let movement = match self.random.below(4) {
            0 => MovePolicy::StopFirst,
            1 => MovePolicy::Never,
            _ => MovePolicy::StartFirst,
        };
        let place = self.draw_place();
        self.operator.places.insert(instance, place);
        if patience.parent_s.is_some() {
            self.operator.fenced.insert(instance);
        }
        if movement == MovePolicy::StopFirst {
            self.operator.stop_first.insert(instance);
        }
        self.note(|_| {
            format!(
                "operator: deploy {instance}, {memory_mib} MiB, {patience:?} {movement:?} {place:?}"
            )
        });
        let clusters = match place {
            Where::Anywhere => Vec::new(),
            Where::Cluster(tier) => vec![self.tiers[tier].name.clone()],
            Where::Like(digit) => vec![format!("c{digit}*")],
            Where::Site(site) => vec![format!("site=s{site}")],
        };
        let spec = ServiceSpec {
            virtualization: "container".into(),
            image: "docker.io/library/nginx:latest".into(),
            resources: Resources {
                memory_mib: u32::try_from(memory_mib).unwrap_or(0),
                ..Resources::default()
            },
            placement: Placement { clusters, ..Placement::default() },
            patience,
            movement,
            ..ServiceSpec::default()
        };
        Workload { instance, revision: 1, name: format!("sim.sim.sim.{}", instance.number), spec }
    }

    fn draw_patience(&mut self) -> Patience {
        let mut seconds = || {
            let wait = self.random.chance(20);
            let patience = self.random.between(PATIENCE_S.0, PATIENCE_S.1);
            u32::try_from(patience).ok().filter(|_| !wait)
        };
        let (node_s, cluster_s) = (seconds(), seconds());
        if !self.random.chance(15) {
            return Patience { node_s, cluster_s, parent_s: None };
        }
        // Long enough for the break to be noticed below, and for the copy there to end.
        let later = |patience: Option<u32>| patience.map(|s| s + FENCE_S);
        Patience { node_s: later(node_s), cluster_s: later(cluster_s), parent_s: Some(5) }
    }

    fn draw_place(&mut self) -> Where {
        // Where machines and clusters wander, places are no more than a hope.
        if self.params.failover > 0 || !self.random.chance(20) {
            return Where::Anywhere;
        }
        match self.random.below(3) {
            0 => Where::Cluster(1 + self.random.index(self.tiers.len() - 1)),
            1 => Where::Like(char::from(b'1' + u8::try_from(self.random.below(3)).unwrap_or(0))),
            _ => Where::Site(self.random.index(SITES)),
        }
    }

    /// Whether an instance may be on a node.
    pub(super) fn may_be_on(&self, instance: InstanceId, node: usize) -> bool {
        let place = self.operator.places.get(&instance).copied().unwrap_or(Where::Anywhere);
        let mut at = Some(self.nodes[node].parent);
        for _ in 0..=self.tiers.len() {
            let Some(tier) = at else { break };
            let own = &self.tiers[tier];
            let fits = match place {
                Where::Anywhere => true,
                Where::Cluster(wanted) => wanted == tier,
                Where::Like(digit) => {
                    own.name.strip_prefix('c').is_some_and(|n| n.starts_with(digit))
                }
                Where::Site(site) => tier % SITES == site,
            };
            if fits {
                return true;
            }
            at = self.parent_of(Actor::Tier(tier));
        }
        false
    }
}
