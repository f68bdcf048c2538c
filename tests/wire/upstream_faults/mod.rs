//! Whatever the upstream does, the client gets a correct response or a clear error, is charged what the
//! contract says, and the next request is served as if nothing had been.
//!
//! Each kind of misbehaviour is a row that says what a raw socket does. `trial.rs` plays it for a
//! plain request, for a streamed one, and for a streamed one over HTTP/2.

mod bodies;
mod broken_request_bodies;
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

use crate::common;
