//! Against all combinations.

use super::*;
use proptest::prelude::*;

fn resident(priority: i32, memory: u32, cpu: u32) -> Resident {
    Resident { priority, amounts: [memory, cpu, 0, 0, 0, 0, 0] }
}

#[test]
fn who_has_to_go() {
    let demand = [100, 100, 0, 0, 0, 0, 0];
    // Free, residents, victims of an instance of priority 10.
    type Case = ([u32; 2], &'static [(i32, u32, u32)], Option<&'static [usize]>);
    let table: &[Case] = &[
        ([100, 100], &[(0, 50, 50)], Some(&[])),
        ([90, 100], &[], None),
        ([90, 100], &[(10, 50, 50)], None),
        ([90, 100], &[(9, 10, 0)], Some(&[0])),
        // The least important of those who are enough alone.
        ([50, 100], &[(5, 60, 0), (1, 50, 0), (0, 40, 0)], Some(&[1])),
        // One rather than two, though it is more important.
        ([50, 100], &[(0, 30, 0), (0, 30, 0), (5, 50, 0)], Some(&[2])),
        ([50, 50], &[(0, 50, 0), (0, 0, 50)], Some(&[0, 1])),
        // Who has nothing that is lacking stays.
        ([50, 100], &[(0, 0, 900), (3, 90, 0)], Some(&[1])),
    ];
    for (free, residents, expected) in table {
        let free = [free[0], free[1], 0, 0, 0, 0, 0];
        let residents: Vec<Resident> =
            residents.iter().map(|&(priority, m, c)| resident(priority, m, c)).collect();
        let found = victims(&demand, &free, 10, &residents);
        assert_eq!(found.as_deref(), *expected, "{residents:?}");
    }
}

/// Number, highest priority, sum of priorities; the least of all that make room.
fn best_cost(
    demand: &Amounts,
    free: &Amounts,
    residents: &[Resident],
) -> Option<(usize, i32, i32)> {
    let all = 0..1u32 << residents.len();
    let costs = all.filter_map(|mask| {
        let gone = || (0..residents.len()).filter(move |bit| mask >> bit & 1 == 1);
        let gone = || gone().map(|index| &residents[index]);
        let left = |k: usize| free[k] + gone().map(|one| one.amounts[k]).sum::<u32>();
        let fits = (0..KINDS).all(|k| demand[k] <= left(k));
        let lower = gone().all(|one| one.priority < 10);
        let most = gone().map(|one| one.priority).max().unwrap_or(i32::MIN);
        (fits && lower).then(|| (gone().count(), most, gone().map(|one| one.priority).sum()))
    });
    costs.min()
}

fn residents(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Resident>> {
    let one = (0..14i32, 0..40u32, 0..40u32).prop_map(|(p, m, c)| resident(p, m, c));
    prop::collection::vec(one, count)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_choice_of_victims_is_better(
        demand in (0..100u32, 0..100u32),
        free in (0..50u32, 0..50u32),
        residents in residents(0..9),
    ) {
        let (demand, free) = ([demand.0, demand.1, 0, 0, 0, 0, 0], [free.0, free.1, 0, 0, 0, 0, 0]);
        let found = victims(&demand, &free, 10, &residents);
        let cost = found.map(|found| {
            let priorities = || found.iter().map(|index| residents[*index].priority);
            (found.len(), priorities().max().unwrap_or(i32::MIN), priorities().sum())
        });
        prop_assert_eq!(cost, best_cost(&demand, &free, &residents));
    }

    #[test]
    fn among_many_nobody_goes_in_vain(
        demand in 0..2000u32,
        residents in residents(EXACT_MAX..60),
    ) {
        let demand = [demand, demand / 2, 0, 0, 0, 0, 0];
        let free = [30, 10, 0, 0, 0, 0, 0];
        let lower = || residents.iter().filter(|one| one.priority < 10);
        let most = |k: usize| free[k] + lower().map(|one| one.amounts[k]).sum::<u32>();
        let found = victims(&demand, &free, 10, &residents);
        prop_assert_eq!(found.is_some(), (0..KINDS).all(|k| demand[k] <= most(k)));
        let found = found.unwrap_or_default();
        let left = |without: Option<usize>| -> [u32; KINDS] {
            let gone = found.iter().filter(|index| Some(**index) != without);
            let gone: Vec<&Resident> = gone.map(|index| &residents[*index]).collect();
            std::array::from_fn(|k| free[k] + gone.iter().map(|one| one.amounts[k]).sum::<u32>())
        };
        let fits = |left: [u32; KINDS]| (0..KINDS).all(|k| demand[k] <= left[k]);
        prop_assert!(found.is_empty() || fits(left(None)));
        for index in &found {
            prop_assert!(residents[*index].priority < 10);
            prop_assert!(!fits(left(Some(*index))), "{} goes in vain", index);
        }
    }
}
