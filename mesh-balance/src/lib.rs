//! Endpoint sets and picking one of them.

mod algorithm;
mod balancer;
mod config;
mod error;
mod future;
mod load;
mod metrics;
mod service;
mod set;

pub use balancer::{Balancer, Panic, PickContext};
pub use config::{
    ActiveRequestBias, BalanceConfig, ChoiceCount, InvalidChoiceCount, LbPolicy,
    LeastRequestConfig, SelectionMethod,
};
pub use error::NoHealthy;
pub use future::ResponseFuture;
pub use load::{PriorityCounts, PriorityLoad, priority_loads};
pub use metrics::{BalanceStats, LbStats};
pub use service::{ActiveRequest, Balance};
pub use set::{EndpointSet, Membership, PRIORITY_MAX};
