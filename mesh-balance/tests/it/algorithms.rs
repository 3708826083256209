use std::sync::Arc;

use mesh_balance::{
    ActiveRequestBias, ChoiceCount, LbPolicy, LeastRequestConfig, PickContext, SelectionMethod,
};
use mesh_core::{Health, sync::Ordering};
use proptest::prelude::*;

use crate::support::{Picker, Spec, set, set_active, set_health};

fn weighted(weights: &[u32]) -> Arc<mesh_balance::EndpointSet> {
    set(&weights.iter().map(|&w| Spec::weight(w)).collect::<Vec<_>>())
}

fn least_request(config: LeastRequestConfig) -> LbPolicy {
    LbPolicy::LeastRequest(config)
}

/// Weights of which at least two differ; equal ones take another path, which other tests hold.
fn unequal(below: u32) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..below, 2..8).prop_map(|mut weights| {
        if weights.iter().all(|w| *w == weights[0]) {
            weights[0] += 1;
        }
        weights
    })
}

/// Weighted round robin by the definition: endpoint `i` is due at every multiple of `1/w_i`; whoever is
/// due first is picked, and of several who joined the queue first. Due times are compared as fractions.
struct Naive {
    /// When each is due next, as a multiple of `1/w_i`, and when it joined the queue.
    queue: Vec<(u64, usize)>,
    weights: Vec<u32>,
    joined: usize,
}

impl Naive {
    fn new(weights: &[u32]) -> Self {
        Self {
            queue: (0..weights.len()).map(|i| (1, i)).collect(),
            weights: weights.to_vec(),
            joined: weights.len(),
        }
    }

    fn pick(&mut self) -> usize {
        let earlier = |a: &usize, b: &usize| {
            let ((turn_a, joined_a), (turn_b, joined_b)) = (self.queue[*a], self.queue[*b]);
            let (a, b) = (u64::from(self.weights[*a]), u64::from(self.weights[*b]));
            (turn_a * b)
                .cmp(&(turn_b * a))
                .then(joined_a.cmp(&joined_b))
        };
        let first = (0..self.queue.len()).min_by(earlier).unwrap();
        self.queue[first] = (self.queue[first].0 + 1, self.joined);
        self.joined += 1;
        first
    }
}

proptest! {
    #[test]
    fn model_round_robin_is_exact_over_every_cycle(
        weights in prop::collection::vec(1u32..12, 2..8),
        seed in any::<u64>(),
        skip in 0usize..50,
    ) {
        let cycle = weights.iter().sum::<u32>() as usize;
        let mut picker = Picker::new(LbPolicy::RoundRobin, weighted(&weights), seed);
        picker.count(skip);
        let (counts, times) = if weights.iter().all(|w| *w == weights[0]) {
            (vec![1; weights.len()], weights.len())
        } else {
            (weights.iter().map(|&w| w as usize).collect(), cycle)
        };
        for _ in 0..3 {
            prop_assert_eq!(picker.count(times), counts.clone());
        }
    }

    #[test]
    fn model_round_robin_always_picks_whoever_is_due_first(
        // Powers of two, whose fractions are exact: who comes first of several is defined too.
        powers in prop::collection::vec(0u32..6, 2..8),
        seed in any::<u64>(),
    ) {
        let mut weights: Vec<u32> = powers.into_iter().map(|power| 1 << power).collect();
        weights[0] = 1;
        weights[1] = weights[1].max(2);
        let mut picker = Picker::new(LbPolicy::RoundRobin, weighted(&weights), seed);
        let mut naive = Naive::new(&weights);
        // Workers start somewhere within the first round.
        let start = mesh_core::Rng::seeded(seed).below(weights.len() as u64);
        (0..start).for_each(|_| { naive.pick(); });
        for _ in 0..300 {
            prop_assert_eq!(picker.number(), naive.pick());
        }
    }

    #[test]
    fn model_round_robin_is_smooth(
        weights in prop::collection::vec(1u32..20, 2..8),
        seed in any::<u64>(),
    ) {
        let mut picker = Picker::new(LbPolicy::RoundRobin, weighted(&weights), seed);
        let picks: Vec<usize> = (0..500).map(|_| picker.number()).collect();
        for (i, &weight) in weights.iter().enumerate() {
            let places: Vec<usize> = (0..picks.len()).filter(|&at| picks[at] == i).collect();
            for pair in places.windows(2) {
                for (j, &other) in weights.iter().enumerate().filter(|(j, _)| *j != i) {
                    // Between two turns of one, another has as many as fit, rounded up.
                    let between = picks[pair[0]..pair[1]].iter().filter(|&&p| p == j).count();
                    prop_assert!(between <= other.div_ceil(weight) as usize, "{i} {j} {picks:?}");
                }
            }
        }
    }

    #[test]
    fn model_full_scan_finds_one_with_the_fewest_requests(
        active in prop::collection::vec(0u64..4, 2..10),
        seed in any::<u64>(),
    ) {
        let set = weighted(&vec![1; active.len()]);
        for (place, &requests) in active.iter().enumerate() {
            set_active(&set, place, requests);
        }
        let config = LeastRequestConfig {
            selection_method: SelectionMethod::FullScan,
            ..LeastRequestConfig::default()
        };
        let mut picker = Picker::new(least_request(config), set, seed);
        for _ in 0..20 {
            prop_assert_eq!(active[picker.number()], *active.iter().min().unwrap());
        }
    }

    #[test]
    fn model_weighted_least_request_without_load_is_weighted_round_robin(
        weights in unequal(20),
        seed in any::<u64>(),
    ) {
        let set = weighted(&weights);
        let mut one = Picker::new(least_request(LeastRequestConfig::default()), Arc::clone(&set), seed);
        let cycle = weights.iter().sum::<u32>() as usize;
        let counts = one.count(10 * cycle);
        for (count, weight) in counts.iter().zip(&weights) {
            // The start within a cycle and rounded fractions may shift one turn.
            prop_assert!(count.abs_diff(*weight as usize * 10) <= 1, "{counts:?} {weights:?}");
        }
    }
}

#[test]
fn equal_weights_take_turns_and_workers_start_anywhere() {
    let set = weighted(&[5; 7]);
    let mut starts = std::collections::HashSet::new();
    for seed in 0..50 {
        let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), seed);
        let first = picker.number();
        starts.insert(first);
        for turn in 1..30 {
            assert_eq!(picker.number(), (first + turn) % 7);
        }
    }
    assert!(starts.len() >= 6, "{starts:?}");
}

#[test]
fn weighted_workers_start_anywhere_in_the_cycle() {
    let set = weighted(&[1, 2, 3, 4]);
    let starts: std::collections::HashSet<Vec<usize>> = (0..50)
        .map(|seed| {
            let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), seed);
            (0..4).map(|_| picker.number()).collect()
        })
        .collect();
    assert!(starts.len() >= 3, "{starts:?}");
}

#[test]
fn a_turn_goes_on_where_it_was_when_health_changes() {
    let set = weighted(&[1; 4]);
    let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), 3);
    let mut seen = vec![picker.number()];
    // Health flaps before each pick: whoever started over each time would favour one place.
    for turn in 0..40 {
        let flapping = &set.endpoints()[3].state;
        set_health(
            flapping,
            if turn % 2 == 0 {
                Health::Unhealthy
            } else {
                Health::Healthy
            },
        );
        seen.push(picker.number());
    }
    for place in 0..3 {
        let times = seen.iter().filter(|&&p| p == place).count();
        assert!((8..=18).contains(&times), "{seen:?}");
    }
}

#[test]
fn huge_weights_are_in_proportion() {
    let set = weighted(&[u32::MAX, u32::MAX / 2, 1]);
    let mut picker = Picker::new(LbPolicy::RoundRobin, set, 1);
    let counts = picker.count(30_000);
    assert!(
        counts[0].abs_diff(20_000) <= 1 && counts[2] <= 1,
        "{counts:?}"
    );
}

#[test]
fn a_weight_of_zero_is_read_as_one() {
    let mut picker = Picker::new(LbPolicy::RoundRobin, weighted(&[0, 3]), 1);
    assert_eq!(picker.count(40), [10, 30]);
}

#[test]
fn two_choices_prefer_the_one_with_fewer_requests_by_the_known_share() {
    // Drawn with replacement from two, the busy one is left only when it is drawn twice: a quarter.
    let set = weighted(&[1, 1]);
    set_active(&set, 0, 5);
    let mut picker = Picker::new(least_request(LeastRequestConfig::default()), set, 7);
    let counts = picker.count(10_000);
    assert!((2_300..2_700).contains(&counts[0]), "{counts:?}");
}

#[test]
fn more_choices_find_the_idle_one_more_often() {
    let set = weighted(&[1; 4]);
    (0..3).for_each(|place| set_active(&set, place, 1));
    let share = |choices: u32| {
        let config = LeastRequestConfig {
            choice_count: ChoiceCount::new(choices).unwrap(),
            ..LeastRequestConfig::default()
        };
        let set = Arc::clone(&set);
        Picker::new(least_request(config), set, 7).count(10_000)[3]
    };
    // 1 - (3/4)^n
    assert!((4_175..4_575).contains(&share(2)), "{}", share(2));
    assert!((6_636..7_036).contains(&share(4)), "{}", share(4));
}

#[test]
fn ties_of_two_choices_spread_evenly() {
    let mut picker = Picker::new(
        least_request(LeastRequestConfig::default()),
        weighted(&[1; 5]),
        9,
    );
    let counts = picker.count(10_000);
    assert!(
        counts.iter().all(|n| (1_800..2_200).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn of_two_choices_with_equal_load_the_first_drawn_stands() {
    let policy = least_request(LeastRequestConfig::default());
    let mut picker = Picker::new(policy, weighted(&[1; 9]), 4);
    let same = mesh_core::Rng::seeded(4);
    for _ in 0..100 {
        let (first, _) = (same.below(9), same.below(9));
        assert_eq!(picker.number(), first as usize);
    }
}

#[test]
fn ties_of_a_full_scan_spread_evenly() {
    let config = LeastRequestConfig {
        selection_method: SelectionMethod::FullScan,
        ..LeastRequestConfig::default()
    };
    let set = weighted(&[1; 5]);
    set_active(&set, 2, 1);
    let counts = Picker::new(least_request(config), set, 9).count(10_000);
    assert_eq!(counts[2], 0);
    assert!(
        [0, 1, 3, 4]
            .iter()
            .all(|&i| (2_300..2_700).contains(&counts[i])),
        "{counts:?}"
    );
}

#[test]
fn unequal_weights_weigh_against_running_requests() {
    let counts = |bias: f64, active: u64| {
        let set = weighted(&[1, 4]);
        set_active(&set, 1, active);
        let config = LeastRequestConfig {
            active_request_bias: ActiveRequestBias::new(bias),
            ..LeastRequestConfig::default()
        };
        let counts = Picker::new(least_request(config), set, 5).count(5_000);
        (counts[0], counts[1])
    };
    let near = |(a, b): (usize, usize), want: (usize, usize)| {
        assert!(
            a.abs_diff(want.0) <= 2 && b.abs_diff(want.1) <= 2,
            "{a} {b} {want:?}"
        );
    };
    // 4 / (3 + 1)^1 = 1; 4 / (3 + 1)^0 = 4; 4 / (3 + 1)^0.5 = 2; 4 / (15 + 1)^0.5 = 1.
    near(counts(1.0, 3), (2_500, 2_500));
    near(counts(0.0, 3), (1_000, 4_000));
    near(counts(0.5, 3), (1_667, 3_333));
    near(counts(0.5, 15), (2_500, 2_500));
    // Neither a number nor positive: read as 1.
    near(counts(f64::NAN, 3), (2_500, 2_500));
    near(counts(-2.0, 3), (2_500, 2_500));
}

#[test]
fn an_endpoint_that_drowns_in_requests_is_not_lost_for_ever() {
    let set = weighted(&[1, 2]);
    set_active(&set, 0, u64::MAX / 2);
    let config = LeastRequestConfig {
        active_request_bias: ActiveRequestBias::new(1e6),
        ..LeastRequestConfig::default()
    };
    let mut picker = Picker::new(least_request(config), Arc::clone(&set), 5);
    assert_eq!(picker.count(100)[1], 100);
}

#[test]
fn random_ignores_weights() {
    let mut picker = Picker::new(LbPolicy::Random, weighted(&[1, 1_000]), 5);
    let counts = picker.count(10_000);
    assert!((4_800..5_200).contains(&counts[0]), "{counts:?}");
}

#[test]
fn a_retry_avoids_hosts_it_has_tried_as_long_as_attempts_allow() {
    let set = weighted(&[1; 3]);
    let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), 1);
    for _ in 0..20 {
        let tried = [picker.pick().unwrap(), picker.pick().unwrap()];
        let context = PickContext::new(&picker.rng).avoiding(&tried, 3);
        let other = picker.balancer.pick(&context).unwrap();
        assert!(tried.iter().all(|t| !Arc::ptr_eq(t, &other)));
    }
    // With every host tried, the last pick stands.
    let tried: Vec<_> = set.endpoints().to_vec();
    let before = picker.number();
    let context = PickContext::new(&picker.rng).avoiding(&tried, 2);
    let stands = picker.balancer.pick(&context).unwrap();
    // Three picks were made: it went once around.
    assert!(Arc::ptr_eq(&stands, &set.endpoints()[before]));
}

#[test]
fn a_first_attempt_takes_what_comes() {
    let set = weighted(&[1; 3]);
    let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), 1);
    let next = (picker.number() + 1) % 3;
    let tried = [Arc::clone(&set.endpoints()[next])];
    let context = PickContext::new(&picker.rng).avoiding(&tried, 0);
    assert!(Arc::ptr_eq(
        &picker.balancer.pick(&context).unwrap(),
        &tried[0]
    ));
    assert_eq!(
        set.endpoints()[0]
            .state
            .stats
            .rq_total
            .load(Ordering::Relaxed),
        0
    );
}
