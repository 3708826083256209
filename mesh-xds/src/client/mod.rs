//! The client's half of the protocol, without a socket, clock or random number of its own.
//!
//! [`Subscriber`] is one stream's worth of state: give it responses and it gives back [`Event`]s; ask it
//! for requests and it tells what to send. It outlives the stream: after a reconnect it asks again for
//! what it wants, and says what it holds.

mod delta;
mod event;
mod held;
mod interest;
mod pace;
mod sotw;
mod status;
mod subscriber;
mod topic;

pub use event::{Accept, Cause, Event, Rejection};
pub use held::{ClientStatus, ErrorState, ResourceStatus};
pub use pace::{RateLimit, Reconnect};
pub use status::client_config;
pub use subscriber::{Subscriber, SubscriberConfig};
