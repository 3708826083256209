//! Endpoint sets and picking one of them.

mod config;

pub use config::{
    ActiveRequestBias, BalanceConfig, ChoiceCount, InvalidChoiceCount, LbPolicy,
    LeastRequestConfig, SelectionMethod,
};
