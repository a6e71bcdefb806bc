//! Chooses among candidates: integers in, an index out.
//!
//! Why apart and why integers: a scheduler that sees neither names nor clocks can be tested
//! by tables, compared with others on recorded inputs, and never gives two answers to one
//! question. Who is a candidate at all is the caller's matter; what this crate knows of
//! distances and of making room helps it with that.
//!
//! A policy is a plugin: it scores one candidate at a time, and the lowest score wins, the
//! first of equals. Before the score comes [`Candidate::crowd`]: a service that is to be
//! spread over failure domains goes to the emptiest one, whatever the policy.
//!
//! | plugin | score, with all amounts as thousandths of the capacity | after |
//! |---|---|---|
//! | `best-fit` | `Σ (free - demand) / capacity` over the kinds of amounts | best-fit bin packing; Oakestra's `calculate.py` takes the largest rest instead |
//! | `spread` | first the service's instances there, then `max (used + demand) / capacity` | Kubernetes' `PodTopologySpread` and `LeastAllocated`, as ideas |
//! | `ldp` | first the strain in tenths, then as `best-fit` | Oakestra's LDP: Bartolomeo and others, "Oakestra" (USENIX ATC 2023), algorithm 2 |
//!
//! | part of `ldp` | formula | after |
//! |---|---|---|
//! | latency | `√(Δx² + Δy²) + h₁ + h₂` ([`near::Point`]) | Dabek and others, "Vivaldi" (SIGCOMM 2004) |
//! | distance | great circle: `2 R asin(|a - b| / 2)` of unit vectors, `R` = 6 371 008.8 m ([`near::Place`]) | haversine, in vectors |
//! | tolerance | `limit · (1 + 0.2 · (1 - rigidness))` ([`near::Bound`]) | LDP's fifth, scaled by the SLA's rigidness |
//! | strain | `max distance / limit` over all bounds, in thousandths | |
//! | users from reference distances | `argmin Σ (|p - pᵢ| - dᵢ)²`, by gradient steps ([`points::multilaterate`]) | LDP's trilateration |
//! | several users | `argmin Σ |p - pᵢ|`, by Weiszfeld's steps ([`points::geometric_median`]) | Weiszfeld 1937, Vardi and Zhang 2000 |
//! | making room | fewest victims, then the lowest priorities ([`preempt::victims`]) | |
//!
//! Invariants: the same numbers give the same answer on every machine. Where fractions are
//! needed only `+ - * /` and `sqrt` are used, which IEEE 754 rounds alike everywhere.

pub mod near;
pub mod points;
mod policies;
pub mod preempt;

pub use policies::{BEST_FIT, LDP, POLICIES, SPREAD, policy};

use std::fmt::Debug;

/// Kinds of amounts: memory, processor, GPUs, disk, GPU memory, bandwidth in and out.
pub const KINDS: usize = 7;

/// Amounts of each kind, in the caller's units.
pub type Amounts = [u32; KINDS];

/// One that could take the demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidate {
    /// All it has.
    pub capacity: Amounts,
    /// What is left in all.
    pub free: Amounts,
    /// What is left at most in one place below it; equal to `free` for a single machine.
    pub slot: Amounts,
    /// Instances of the same service there.
    pub siblings: u32,
    /// How full the failure domain is that it is in, with instances of the same service:
    /// thousandths of an instance for each domain there.
    pub crowd: u32,
    /// How much of its bounds on latency and distance is used up, in thousandths.
    pub strain: u32,
}

/// Scores a candidate that fits; the lowest score wins, the first of equals.
pub trait Policy: Sync + Debug {
    /// Name in configuration and documents.
    fn name(&self) -> &'static str;

    /// Whether it looks at [`Candidate::siblings`], which costs the caller a count.
    fn counts_siblings(&self) -> bool {
        false
    }

    /// How badly `demand` sits there.
    fn score(&self, demand: &Amounts, candidate: &Candidate) -> u64;
}

/// Whether the demand fits as a whole and in one place.
pub fn fits(demand: &Amounts, candidate: &Candidate) -> bool {
    (0..KINDS).all(|k| demand[k] <= candidate.free[k] && demand[k] <= candidate.slot[k])
}

/// What decides between candidates: the domain, then the policy.
pub fn rank(policy: &dyn Policy, demand: &Amounts, candidate: &Candidate) -> (u32, u64) {
    (candidate.crowd, policy.score(demand, candidate))
}

/// The index of the best candidate that fits, if one does.
pub fn plan(
    policy: &dyn Policy,
    demand: &Amounts,
    candidates: impl IntoIterator<Item = Candidate>,
) -> Option<usize> {
    candidates
        .into_iter()
        .enumerate()
        .filter(|(_, candidate)| fits(demand, candidate))
        .min_by_key(|(_, candidate)| rank(policy, demand, candidate))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests;
