//! Chooses among candidates: integers in, an index out.
//!
//! Why apart and why integers: a scheduler that sees neither names nor clocks can be tested
//! by tables, compared with others on recorded inputs, and never gives two answers to one
//! question. Who is a candidate at all is the caller's matter.
//!
//! A policy is a plugin: it scores one candidate at a time. [`BEST_FIT`] is the first.

use std::fmt::Debug;

/// Kinds of amounts: memory, processor, GPUs, disk, GPU memory, bandwidth in and out.
pub const KINDS: usize = 7;

/// Amounts of each kind, in the caller's units.
pub type Amounts = [u32; KINDS];

/// One that could take the demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// All it has.
    pub capacity: Amounts,
    /// What is left in all.
    pub free: Amounts,
    /// What is left at most in one place below it; equal to `free` for a single machine.
    pub slot: Amounts,
}

/// Scores a candidate that fits; the lowest score wins, the first of equals.
pub trait Policy: Sync + Debug {
    /// Name in configuration and documents.
    fn name(&self) -> &'static str;

    /// How badly `demand` sits there.
    fn score(&self, demand: &Amounts, candidate: &Candidate) -> u64;
}

/// Fills the fullest that still fits, so that large gaps stay for large demands.
#[derive(Debug)]
struct BestFit;

/// The policy in use unless another is configured.
pub static BEST_FIT: &dyn Policy = &BestFit;

impl Policy for BestFit {
    fn name(&self) -> &'static str {
        "best-fit"
    }

    /// Sum of what would be left of each kind, in thousandths of its capacity.
    fn score(&self, demand: &Amounts, candidate: &Candidate) -> u64 {
        (0..KINDS).fold(0, |sum, kind| {
            let left = u64::from(candidate.free[kind].saturating_sub(demand[kind]));
            sum + left * 1000 / u64::from(candidate.capacity[kind]).max(1)
        })
    }
}

/// Whether the demand fits as a whole and in one place.
pub fn fits(demand: &Amounts, candidate: &Candidate) -> bool {
    (0..KINDS).all(|k| demand[k] <= candidate.free[k] && demand[k] <= candidate.slot[k])
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
        .min_by_key(|(_, candidate)| policy.score(demand, candidate))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(capacity: u32, free: u32) -> Candidate {
        let amounts = |n| [n, n, 0, n, 0, 0, 0];
        Candidate { capacity: amounts(capacity), free: amounts(free), slot: amounts(free) }
    }

    #[test]
    fn the_fullest_that_fits_is_chosen() {
        // Demand, machines as (capacity, free), index of the chosen one.
        type Case = (u32, &'static [(u32, u32)], Option<usize>);
        let table: &[Case] = &[
            (10, &[], None),
            (10, &[(100, 9)], None),
            (10, &[(100, 100), (100, 20), (100, 50)], Some(1)),
            (10, &[(100, 20), (100, 20)], Some(0)),
            (0, &[(100, 0)], Some(0)),
        ];
        for (demand, machines, expected) in table {
            let candidates = machines.iter().map(|&(capacity, free)| machine(capacity, free));
            let demand = [*demand, *demand, 0, *demand, 0, 0, 0];
            assert_eq!(plan(BEST_FIT, &demand, candidates), *expected, "{machines:?}");
        }
    }

    #[test]
    fn a_sum_of_small_gaps_is_no_place_for_a_large_demand() {
        let scattered = Candidate { slot: [5, 5, 0, 5, 0, 0, 0], ..machine(100, 100) };
        assert_eq!(plan(BEST_FIT, &[10, 0, 0, 0, 0, 0, 0], [scattered]), None);
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits_and_nothing_fitting_is_missed(
            demand in any::<[u32; KINDS]>(),
            free in prop::collection::vec((any::<[u32; KINDS]>(), any::<[u32; KINDS]>()), 0..20),
        ) {
            let candidates: Vec<Candidate> = free
                .into_iter()
                .map(|(free, slot)| Candidate { capacity: free, free, slot })
                .collect();
            match plan(BEST_FIT, &demand, candidates.iter().copied()) {
                Some(index) => prop_assert!(fits(&demand, &candidates[index])),
                None => prop_assert!(candidates.iter().all(|c| !fits(&demand, c))),
            }
        }
    }
}
