use mesh_core::Rng;

use super::{
    Members,
    edf::{Edf, turn, turn_of},
};

/// One after the other, as often as their weights say.
///
/// # Envoy
/// `envoy.load_balancing_policies.round_robin`
#[derive(Debug)]
pub(super) enum RoundRobin {
    /// Equal weights: the next index.
    Plain(usize),
    /// Different weights.
    Weighted(Edf),
}

/// Whole weights stay exact.
fn next(members: &Members<'_>, index: usize) -> u128 {
    let weight = members.weight(index);
    match members.grown(index) {
        None => turn(weight),
        Some(grown) => turn_of(f64::from(weight) * grown),
    }
}

impl RoundRobin {
    /// Starts anywhere: workers should not march in step.
    pub(super) fn new(members: &Members<'_>, rng: &Rng) -> Self {
        if members.are_alike() {
            Self::Plain(rng.below(members.len() as u64) as usize)
        } else {
            Self::Weighted(Edf::new(members.len(), |index| next(members, index), rng))
        }
    }

    /// A plain one goes on where it was, so that frequent changes do not favour the first.
    pub(super) fn rebuild(self, members: &Members<'_>, rng: &Rng) -> Self {
        match self {
            Self::Plain(next) if members.are_alike() => Self::Plain(next % members.len()),
            _ => Self::new(members, rng),
        }
    }

    pub(super) fn pick(&mut self, members: &Members<'_>) -> usize {
        match self {
            Self::Plain(next) => {
                let index = *next;
                *next = if index + 1 < members.len() {
                    index + 1
                } else {
                    0
                };
                index
            }
            Self::Weighted(edf) => edf.pick(|index| next(members, index)),
        }
    }
}
