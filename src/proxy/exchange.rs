use std::sync::Weak;

use http::Request;
use http_body::Body;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};

use super::{connection::Traffic, resend::Sent};

/// So much of an upload is taken by the system, whatever the upstream does.
const TAKEN: u64 = 8 * 1024;

/// A request on its way, for as long as its answer is wanted. On drop the connection that serves it
/// is told to give it up.
pub(super) struct Exchange {
    connection: CaptureConnection,
    /// Is there until the connection needs no more of the request's body.
    upload: Weak<()>,
    answered: bool,
}

impl Exchange {
    /// That of a request, if its upload may be held up.
    pub(super) fn of<B: Body>(request: &mut Request<Sent<B>>) -> Option<Box<Self>> {
        if request.body().size_hint().upper().is_some_and(|length| length <= TAKEN) {
            return None;
        }
        let connection = capture_connection(request);
        let upload = request.body_mut().held();
        Some(Box::new(Self { connection, upload, answered: false }))
    }

    /// The answer has begun: once the upload is over, too, the connection may serve others.
    pub(super) fn answered(mut self: Box<Self>) -> Box<Self> {
        self.answered = true;
        self
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.answered && self.upload.strong_count() == 0 {
            return;
        }
        let connected = self.connection.connection_metadata();
        if let Some(traffic) = connected.as_ref().and_then(Traffic::of) {
            traffic.give_up();
        }
    }
}
