use std::iter;

use mesh_core::{Rng, scale, sync::Ordering};

use super::{
    Members,
    edf::{Edf, turn_of},
};
use crate::{LeastRequestConfig, SelectionMethod};

/// The endpoint with the fewest running requests.
///
/// # Envoy
/// `envoy.load_balancing_policies.least_request`
#[derive(Debug)]
pub(super) struct LeastRequest {
    config: LeastRequestConfig,
    /// Only when weights differ: by weight over load, as that was when the endpoint was last picked.
    weighted: Option<Edf>,
}

impl LeastRequest {
    pub(super) fn new(config: LeastRequestConfig, members: &Members<'_>, rng: &Rng) -> Self {
        let weighted = (!members.are_alike())
            .then(|| Edf::new(members.len(), |index| turn(&config, members, index), rng));
        Self { config, weighted }
    }

    pub(super) fn pick(&mut self, members: &Members<'_>, rng: &Rng) -> usize {
        let config = &self.config;
        if let Some(weighted) = &mut self.weighted {
            return weighted.pick(|index| turn(config, members, index));
        }
        match config.selection_method {
            SelectionMethod::NChoices => n_choices(members, config.choice_count.get(), rng),
            SelectionMethod::FullScan => full_scan(members, rng),
        }
    }
}

/// The request that is being placed is not counted yet.
fn active(members: &Members<'_>, index: usize) -> u64 {
    // Relaxed: a number to compare, whose age does not matter.
    members
        .get(index)
        .state
        .stats
        .rq_active
        .load(Ordering::Relaxed)
}

fn turn(config: &LeastRequestConfig, members: &Members<'_>, index: usize) -> u128 {
    let weight = f64::from(members.weight(index)) * members.grown(index).unwrap_or(1.0);
    let bias = config.active_request_bias.get();
    // Spared where it changes nothing: a power costs more than the rest of a pick.
    let load = (active(members, index) + 1) as f64;
    let load = if bias == 1.0 { load } else { load.powf(bias) };
    turn_of(weight / load)
}

/// The first drawn wins a tie; the same one may be drawn twice.
fn n_choices(members: &Members<'_>, count: u32, rng: &Rng) -> usize {
    let index = |draw| scale(draw, members.len() as u64) as usize;
    // The usual two in one step.
    let [first, second] = rng.draws();
    let mut best = index(first);
    let mut fewest = active(members, best);
    let others = iter::once(second).chain(iter::repeat_with(|| rng.next_u64()));
    for draw in others.take(count as usize - 1) {
        let index = index(draw);
        let load = active(members, index);
        if load < fewest {
            (best, fewest) = (index, load);
        }
    }
    best
}

/// Each of those with the fewest has the same chance.
fn full_scan(members: &Members<'_>, rng: &Rng) -> usize {
    let (mut best, mut fewest, mut ties) = (0, active(members, 0), 1);
    for index in 1..members.len() {
        let load = active(members, index);
        if load < fewest {
            (best, fewest, ties) = (index, load, 1);
        } else if load == fewest {
            ties += 1;
            if rng.below(ties) == 0 {
                best = index;
            }
        }
    }
    best
}
