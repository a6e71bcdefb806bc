//! The policies that there are. The table in the crate's documentation has their formulas.

use crate::{Amounts, Candidate, KINDS, Policy};

/// Fills the fullest that still fits, so that large gaps stay for large demands.
#[derive(Debug)]
struct BestFit;

/// Fills the emptiest, so that few instances go down together.
#[derive(Debug)]
struct Spread;

/// Goes near: latency and distance first.
#[derive(Debug)]
struct Ldp;

/// The policy in use unless another is asked for.
pub static BEST_FIT: &dyn Policy = &BestFit;

/// See the table.
pub static SPREAD: &dyn Policy = &Spread;

/// See the table.
pub static LDP: &dyn Policy = &Ldp;

/// All of them.
pub static POLICIES: [&dyn Policy; 3] = [&BestFit, &Spread, &Ldp];

/// The policy of that name.
pub fn policy(name: &str) -> Option<&'static dyn Policy> {
    POLICIES.into_iter().find(|policy| policy.name() == name)
}

/// Kinds of which all are full at most, in thousandths.
const FULL: u64 = 1_000;

/// Each tenth of the bounds counts more than any difference in fit.
const STRAIN_STEP: u32 = 100;

/// More than any sum of rests: seven kinds of a thousand thousandths at most.
const FIT_LIMIT: u64 = 1 << 16;

impl Policy for BestFit {
    fn name(&self) -> &'static str {
        "best-fit"
    }

    fn score(&self, demand: &Amounts, candidate: &Candidate) -> u64 {
        (0..KINDS).fold(0, |sum, kind| {
            let left = candidate.free[kind].saturating_sub(demand[kind]);
            sum + permille(left, candidate.capacity[kind])
        })
    }
}

/// Thousandths of a capacity. Most kinds are not there at all, and most amounts are small:
/// it is asked of all candidates, and wide divisions are slow.
fn permille(amount: u32, capacity: u32) -> u64 {
    match amount.checked_mul(1000) {
        Some(0) => 0,
        Some(thousandfold) => u64::from(thousandfold / capacity.max(1)),
        None => u64::from(amount) * FULL / u64::from(capacity).max(1),
    }
}

impl Policy for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn counts_siblings(&self) -> bool {
        true
    }

    fn score(&self, demand: &Amounts, candidate: &Candidate) -> u64 {
        let fullest = (0..KINDS).map(|kind| {
            let capacity = candidate.capacity[kind];
            let left = candidate.free[kind].saturating_sub(demand[kind]);
            permille(capacity.saturating_sub(left), capacity)
        });
        u64::from(candidate.siblings) << 32 | fullest.max().unwrap_or_default().min(FIT_LIMIT)
    }
}

impl Policy for Ldp {
    fn name(&self) -> &'static str {
        "ldp"
    }

    fn score(&self, demand: &Amounts, candidate: &Candidate) -> u64 {
        let fit = BEST_FIT.score(demand, candidate).min(FIT_LIMIT - 1);
        u64::from(candidate.strain / STRAIN_STEP) * FIT_LIMIT + fit
    }
}
