//! What breaks, at every place where it can: each case says what the log and the stats tell of it, that nothing is
//! held afterwards, and that the next request is served.

mod client;
mod mixed;
mod origin;
mod process;
mod rig;
