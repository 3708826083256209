//! Instruction counts per policy and load runs against real peers.
