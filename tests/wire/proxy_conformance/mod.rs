//! The rules of the proxy, one case each, over real sockets with HTTP/1 and HTTP/2 on either side,
//! checked by what the peers saw on the wire.

mod bodies;
mod credential;
mod draining;
mod faults;
mod forwarding;
mod frames;
mod gateway;
mod hop_headers;
mod http1;
mod http2;
mod http2_faults;
mod http2_streams;
mod identity;
mod leaving;
mod message;
mod rejections;
mod resending;
mod targets;
mod timeouts;
mod tls;
mod upstream;

use crate::common;
