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
            let left = u64::from(candidate.free[kind].saturating_sub(demand[kind]));
            sum + left * FULL / u64::from(candidate.capacity[kind]).max(1)
        })
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
            let capacity = u64::from(candidate.capacity[kind]);
            let left = u64::from(candidate.free[kind].saturating_sub(demand[kind]));
            // Rounded up, so that of two that differ at all the emptier has less.
            (capacity.saturating_sub(left) * FULL).div_ceil(capacity.max(1))
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
