//! Clients that cheat, stall or send garbage are rejected or closed, and no other client notices.
//!
//! The gateway runs as a process between raw sockets on both sides: what clients send is not made
//! by a client library, and what reaches the upstream is judged by its bytes.

mod chunks;
mod closing;
mod floods;
mod frames;
mod heads;
mod hosts;
mod http2_requests;
mod mutations;
mod paths;
mod pipelines;
mod scene;
mod slow;
mod slow_streams;
mod socket;
mod upstream;
mod vectors;

use crate::common;
