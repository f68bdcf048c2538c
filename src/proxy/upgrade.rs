use http::{HeaderMap, StatusCode, header};

use super::headers::members;
use crate::error::Rejection;

/// The request would have to become a websocket: a tunnel in which nothing could be counted.
#[derive(Debug)]
pub(super) struct Websocket;

/// Refuses websockets. Other offers to upgrade need not be taken up (RFC 9110, section 7.8).
pub(super) fn check(headers: &HeaderMap) -> Result<(), Websocket> {
    let mut protocols = members(headers, &header::UPGRADE);
    let is_websocket = protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if is_websocket { Err(Websocket) } else { Ok(()) }
}

impl From<Websocket> for Rejection {
    fn from(_: Websocket) -> Self {
        let message = "Websockets are not supported here.";
        let (status, code) = (StatusCode::NOT_IMPLEMENTED, "upgrade_not_supported");
        Self::permanent(status, "invalid_request_error", code, message)
    }
}
