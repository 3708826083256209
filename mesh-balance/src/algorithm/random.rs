use mesh_core::Rng;

use super::Members;

/// Any; weights do not matter.
///
/// # Envoy
/// `envoy.load_balancing_policies.random`
pub(super) fn pick(members: &Members<'_>, rng: &Rng) -> usize {
    rng.below(members.len() as u64) as usize
}
