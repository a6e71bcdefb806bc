//! Makes room: who has to go so that something more important fits.
//!
//! Invariants: nobody goes who is as important, and nobody goes in vain: without any one of
//! the victims it would not fit.

use crate::{Amounts, KINDS};

/// Residents among which the best victims are sought one combination after the other: 4096
/// combinations. Among more the first good ones are taken.
pub const EXACT_MAX: usize = 12;

/// One that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// The higher, the more important.
    pub priority: i32,
    /// What it would leave.
    pub amounts: Amounts,
}

/// Indices of those that have to go so that the demand fits into what is free then: the
/// fewest; of as few those whose highest priority is the lowest; then the least priorities in
/// sum, then the first. `None` if all of lower priority do not make enough room. Empty if it
/// fits already.
pub fn victims(
    demand: &Amounts,
    free: &Amounts,
    priority: i32,
    residents: &[Resident],
) -> Option<Vec<usize>> {
    let lack: Amounts = std::array::from_fn(|kind| demand[kind].saturating_sub(free[kind]));
    let helps = |resident: &Resident| (0..KINDS).any(|k| lack[k] > 0 && resident.amounts[k] > 0);
    let lower = residents.iter().enumerate();
    let mut lower: Vec<(usize, &Resident)> =
        lower.filter(|(_, resident)| resident.priority < priority && helps(resident)).collect();
    if !covers(&lack, lower.iter().map(|(_, resident)| *resident)) {
        return None;
    }
    let chosen = match lower.len() {
        0..=EXACT_MAX => best(&lack, &lower),
        _ => {
            // What helps most goes first; then all whom it needs not after all may stay.
            lower.sort_by_key(|(_, resident)| std::cmp::Reverse(help(&lack, resident)));
            sufficient(&lack, &lower)
        }
    };
    Some(chosen)
}

fn best(lack: &Amounts, lower: &[(usize, &Resident)]) -> Vec<usize> {
    let members = |mask: usize| {
        lower.iter().enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1).map(|(_, one)| *one)
    };
    let cost = |mask: usize| {
        let priorities = || members(mask).map(|(_, resident)| i64::from(resident.priority));
        (mask.count_ones(), priorities().max(), priorities().sum::<i64>(), mask)
    };
    let enough = (0..1usize << lower.len())
        .filter(|mask| covers(lack, members(*mask).map(|(_, resident)| resident)));
    let chosen = enough.min_by_key(|mask| cost(*mask)).unwrap_or_default();
    members(chosen).map(|(index, _)| index).collect()
}

fn sufficient(lack: &Amounts, lower: &[(usize, &Resident)]) -> Vec<usize> {
    let mut end = 0;
    while !covers(lack, lower[..end].iter().map(|(_, resident)| *resident)) {
        end += 1;
    }
    let mut chosen = lower[..end].to_vec();
    let mut spared: Vec<usize> = (0..chosen.len()).collect();
    // The most important may stay first.
    spared.sort_by_key(|at| std::cmp::Reverse(chosen[*at].1.priority));
    let mut stays = vec![false; chosen.len()];
    for at in spared {
        stays[at] = true;
        let rest = chosen.iter().zip(&stays).filter(|(_, stays)| !**stays);
        stays[at] = covers(lack, rest.map(|((_, resident), _)| *resident));
    }
    let mut stays = stays.into_iter();
    chosen.retain(|_| !stays.next().unwrap_or_default());
    let mut chosen: Vec<usize> = chosen.into_iter().map(|(index, _)| index).collect();
    chosen.sort_unstable();
    chosen
}

/// Thousandths of what is lacking that one would leave, over all kinds.
fn help(lack: &Amounts, resident: &Resident) -> u64 {
    let share = |kind: usize| {
        let useful = u64::from(resident.amounts[kind].min(lack[kind]));
        (useful * 1000).checked_div(lack[kind].into()).unwrap_or_default()
    };
    (0..KINDS).map(share).sum()
}

fn covers<'a>(lack: &Amounts, residents: impl Iterator<Item = &'a Resident>) -> bool {
    let mut left = *lack;
    for resident in residents {
        for (left, amount) in left.iter_mut().zip(resident.amounts) {
            *left = left.saturating_sub(amount);
        }
    }
    left == [0; KINDS]
}

#[cfg(test)]
mod tests;
