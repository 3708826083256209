//! The vocabulary that every mesh policy shares: facts, outcomes, errors, permits, clock, stats.
