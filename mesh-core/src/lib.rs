//! The vocabulary that every mesh policy shares.
//!
//! Retry, breaker, outlier detection, rate limit and balancer never import each other; they meet here:
//!
//! | to say | use |
//! |---|---|
//! | what is known about a request, from first byte to access log | [`RequestInfo`], [`Attempt`] |
//! | how an attempt ended | [`Outcome`], [`Classify`] |
//! | why there is no (good) answer | [`Error`], [`ErrorKind`], [`ResponseFlag`] |
//! | what a policy decided, and on which numbers | [`Decision`], [`Reason`] |
//! | which endpoint, and is it well | [`Endpoint`], [`Health`] |
//! | how much may run at once | [`Resources`], [`Permit`] |
//! | a request turns into a tunnel | [`TunnelRequest`], [`Tunnel`] |
//! | a value that people may change meanwhile | [`mod@runtime`] |
//! | what time it is, wake me later | [`clock`], [`Timer`], [`Alarm`] |
//! | a random number that a test can fix | [`Rng`] |
//! | count this | [`mod@stats`] |
//! | test a text | [`matcher`] |
//! | put a number into a header | [`number_value`] |
//! | print what is known: access logs, header values, bodies, event logs | [`mod@format`], [`EventLine`] |
//! | the body at a boxed seam | [`Body`], [`GuardedBody`] |
//! | where a layer finds its policy | [`PolicySource`], [`Fixed`] |
//!
//! There is no policy and no I/O in this crate.

mod attempt;
mod backoff;
mod body;
mod boxed;
mod cidr;
pub mod clock;
mod connection;
mod decision;
mod endpoint;
mod error;
mod event;
mod flag;
pub mod format;
pub mod matcher;
mod metadata;
mod number;
mod outcome;
mod percent;
mod policy;
mod protocol;
mod request;
mod resources;
mod rng;
pub mod runtime;
mod server;
pub mod stats;
pub mod sync;
mod timer;
mod tls;
mod tunnel;

pub use attempt::{Attempt, AttemptPhase};
pub use backoff::{ExponentialBackoff, InvalidBackoff};
pub use body::{Body, EndGuard, GuardedBody, StreamEnd};
pub use boxed::{BoxFuture, BoxHttpService};
pub use cidr::{Cidr, InvalidCidr};
pub use connection::ConnectionInfo;
pub use decision::{Decision, DecisionTrace, Reason, TRACE_MAX};
pub use endpoint::{Address, Endpoint, EndpointState, EndpointStats, Health, HealthFlag, Locality};
pub use error::{BoxError, Error, ErrorKind, LocalReply, Origin, Sent, with_causes};
pub use event::EventLine;
pub use flag::{FLAGS_MAX, ResponseFlag, ResponseFlags};
pub use metadata::{Metadata, MetadataValue};
pub use number::number_value;
pub use outcome::{Classify, HttpClassify, Outcome, grpc_to_http_status};
pub use percent::{FractionalPercent, InvalidPercent, Percent, RuntimeFraction};
pub use policy::{Fixed, FromRequest, Mode, PolicySource};
pub use protocol::{Generic, Http, Requests, Responses};
pub use request::{Facts, RequestInfo};
pub use resources::{Overflow, Permit, Priority, Resource, Resources, RetryLimit, Thresholds};
pub use rng::{Rng, scale};
pub use server::ServerHealth;
pub use timer::{Alarm, Timer, Watching};
pub use tls::{ClientCertDetails, ForwardClientCert, TlsFacts, TlsField, Xfcc};
pub use tunnel::{Tunnel, TunnelRequest};
