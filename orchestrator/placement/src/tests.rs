//! Tables of choices, and each plugin against the best of all choices.

use super::*;
use proptest::prelude::*;

fn machine(capacity: u32, free: u32) -> Candidate {
    let amounts = |n| [n, n, 0, n, 0, 0, 0];
    let (capacity, free) = (amounts(capacity), amounts(free));
    Candidate { capacity, free, slot: free, ..Candidate::default() }
}

fn demand(n: u32) -> Amounts {
    [n, n, 0, n, 0, 0, 0]
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
    for (wanted, machines, expected) in table {
        let candidates = machines.iter().map(|&(capacity, free)| machine(capacity, free));
        assert_eq!(plan(BEST_FIT, &demand(*wanted), candidates), *expected, "{machines:?}");
    }
}

#[test]
fn spreading_goes_where_fewest_are_and_then_where_most_is_free() {
    let on = |siblings, free| Candidate { siblings, ..machine(100, free) };
    let table: &[(&[Candidate], usize)] = &[
        (&[on(1, 90), on(0, 20), on(2, 100)], 1),
        (&[on(0, 20), on(0, 90), on(0, 50)], 1),
        (&[on(u32::MAX, 100), on(u32::MAX - 1, 10)], 1),
    ];
    for (candidates, expected) in table {
        let chosen = plan(SPREAD, &demand(10), candidates.iter().copied());
        assert_eq!(chosen, Some(*expected));
    }
}

#[test]
fn the_near_come_first_and_of_those_the_full() {
    let at = |strain, free| Candidate { strain, ..machine(100, free) };
    let table: &[(&[Candidate], usize)] = &[
        (&[at(900, 20), at(50, 100)], 1),
        (&[at(10, 100), at(90, 20), at(200, 15)], 1),
        (&[at(1000, 100), at(100, 9)], 0),
    ];
    for (candidates, expected) in table {
        let chosen = plan(LDP, &demand(10), candidates.iter().copied());
        assert_eq!(chosen, Some(*expected));
    }
}

#[test]
fn the_emptiest_failure_domain_comes_before_all_else() {
    let in_domain = |crowd, free| Candidate { crowd, ..machine(100, free) };
    for policy in POLICIES {
        let candidates = [in_domain(2000, 20), in_domain(1000, 100), in_domain(1500, 20)];
        assert_eq!(plan(policy, &demand(10), candidates), Some(1), "{}", policy.name());
    }
}

#[test]
fn a_sum_of_small_gaps_is_no_place_for_a_large_demand() {
    let scattered = Candidate { slot: [5, 5, 0, 5, 0, 0, 0], ..machine(100, 100) };
    assert_eq!(plan(BEST_FIT, &[10, 0, 0, 0, 0, 0, 0], [scattered]), None);
}

#[test]
fn policies_are_found_by_name() {
    for name in ["best-fit", "spread", "ldp"] {
        assert_eq!(policy(name).map(Policy::name), Some(name));
    }
    assert!(policy("random").is_none());
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let amounts = || prop::array::uniform7(0..50u32);
    let one = (amounts(), amounts(), amounts(), 0..3u32, 0..3u32, 0..1500u32);
    let one = one.prop_map(|(used, free, slot, siblings, crowd, strain)| {
        let capacity = std::array::from_fn(|k| used[k] + free[k]);
        Candidate { capacity, free, slot, siblings, crowd, strain }
    });
    prop::collection::vec(one, 0..12)
}

/// The share of what is used once the demand is there, as a fraction.
fn used(wanted: &Amounts, candidate: &Candidate) -> f64 {
    let share = |k: usize| {
        let used = candidate.capacity[k] - candidate.free[k] + wanted[k];
        f64::from(used) / f64::from(candidate.capacity[k].max(1))
    };
    (0..KINDS).map(share).fold(0.0, f64::max)
}

fn rest(wanted: &Amounts, candidate: &Candidate) -> f64 {
    let share = |k: usize| {
        f64::from(candidate.free[k] - wanted[k]) / f64::from(candidate.capacity[k].max(1))
    };
    (0..KINDS).map(share).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_chosen_fits_and_nothing_fitting_is_missed(
        demand in any::<[u32; KINDS]>(),
        free in prop::collection::vec((any::<[u32; KINDS]>(), any::<[u32; KINDS]>()), 0..20),
    ) {
        let candidates: Vec<Candidate> = free
            .into_iter()
            .map(|(free, slot)| Candidate { capacity: free, free, slot, ..Candidate::default() })
            .collect();
        for policy in POLICIES {
            match plan(policy, &demand, candidates.iter().copied()) {
                Some(index) => prop_assert!(fits(&demand, &candidates[index])),
                None => prop_assert!(candidates.iter().all(|c| !fits(&demand, c))),
            }
        }
    }

    /// The formulas once more, in fractions: nobody is better than the chosen one by more than
    /// rounding to thousandths can hide.
    #[test]
    fn no_choice_is_better_by_the_formula(
        wanted in prop::array::uniform7(0..20u32),
        candidates in candidates(),
    ) {
        let fitting: Vec<&Candidate> = candidates.iter().filter(|c| fits(&wanted, c)).collect();
        let Some(least) = fitting.iter().map(|c| c.crowd).min() else { return Ok(()) };
        for policy in POLICIES {
            let chosen = plan(policy, &wanted, candidates.iter().copied()).unwrap();
            let chosen = &candidates[chosen];
            prop_assert_eq!(chosen.crowd, least);
            for other in fitting.iter().filter(|c| c.crowd == least) {
                match policy.name() {
                    "best-fit" => prop_assert!(rest(&wanted, chosen) <= rest(&wanted, other) + 0.0071),
                    "spread" => {
                        prop_assert!(chosen.siblings <= other.siblings);
                        let same = chosen.siblings == other.siblings;
                        prop_assert!(!same || used(&wanted, chosen) <= used(&wanted, other) + 0.0011);
                    }
                    "ldp" => {
                        let (mine, theirs) = (chosen.strain / 100, other.strain / 100);
                        prop_assert!(mine <= theirs);
                        let better = rest(&wanted, chosen) <= rest(&wanted, other) + 0.0071;
                        prop_assert!(mine < theirs || better);
                    }
                    name => prop_assert!(false, "{} has no formula here", name),
                }
            }
        }
    }

    /// A burst of equal demands, one after the other with what each has taken: no node is ever
    /// fuller than another by more than one demand.
    #[test]
    fn a_burst_does_not_pile_up_when_it_is_spread(nodes in 1..8usize, burst in 0..40u32) {
        let mut held = vec![0u32; nodes];
        for _ in 0..burst {
            let now = held.iter().map(|count| Candidate {
                siblings: *count,
                ..machine(1000, 1000 - count * 10)
            });
            let chosen = plan(SPREAD, &demand(10), now.collect::<Vec<_>>()).unwrap();
            held[chosen] += 1;
        }
        let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", held);
    }
}
