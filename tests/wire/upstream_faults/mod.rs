//! Whatever the upstream does, its client gets a right response or a clear error, pays what the
//! contract says, and the next request is served as if nothing had been.
//!
//! Each kind of misbehaviour is a row that says what a raw socket does. `trial.rs` plays it for a
//! plain request, for a streamed one, and for a streamed one over HTTP/2.

mod bodies;
mod coded;
mod connecting;
mod floods;
mod framing;
mod heads;
mod holder;
mod rogue;
mod silence;
mod statuses;
mod trial;
mod uploads;

use crate::common;
