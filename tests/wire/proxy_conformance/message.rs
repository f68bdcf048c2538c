//! Requests and responses as they are on the wire.

use std::time::Duration;

use serde_json::Value;

use super::{common::DEADLINE, http1, http2};

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

use Protocol::{Http1, Http2};

/// What the client and the upstream speak: every pair.
pub(crate) const PAIRS: [(Protocol, Protocol); 4] =
    [(Http1, Http1), (Http1, Http2), (Http2, Http1), (Http2, Http2)];

/// Either protocol.
pub(crate) const PROTOCOLS: [Protocol; 2] = [Http1, Http2];

pub(crate) type Lines = Vec<(String, String)>;

/// A request or a response. HTTP/2's pseudo headers are lines of their own, but for what `start` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// Statuses of the interim responses before this one.
    pub(crate) interim: Vec<u16>,
    /// Method and target, or the status.
    pub(crate) start: String,
    pub(crate) headers: Lines,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Lines,
}

impl Message {
    /// A request like `GET /v1/x`, or a response like `200`.
    pub(crate) fn new(start: &str) -> Self {
        Self { start: start.to_owned(), ..Self::default() }
    }

    /// The same with one more line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn headers(self, lines: &[(&str, &str)]) -> Self {
        lines.iter().fold(self, |message, (name, value)| message.header(name, value))
    }

    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Returns the message after an interim response.
    pub(crate) fn after(mut self, status: u16) -> Self {
        self.interim.push(status);
        self
    }

    /// The values of all lines of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the one line of this name; empty if there is none.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [] => "",
            [value] => value,
            _ => panic!("{name} stands more than once in {self:?}"),
        }
    }

    /// The host that a request names, by whichever means.
    pub(crate) fn host(&self) -> &str {
        match (self.one("host"), self.one(":authority")) {
            ("", authority) => authority,
            (host, "") => host,
            both => panic!("two hosts: {both:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `code` of an error object; empty if the body is none.
    pub(crate) fn code(&self) -> String {
        let object: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        object["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The same with the length of its body, unless that is said otherwise.
    pub(crate) fn with_length(self) -> Self {
        let is_said = !self.all("content-length").is_empty() || !self.trailers.is_empty();
        if is_said || self.is_bare() {
            return self;
        }
        let length = self.body.len().to_string();
        self.header("content-length", &length)
    }

    /// Whether no body follows a head like this.
    pub(crate) fn is_bare(&self) -> bool {
        matches!(self.start.as_str(), "204" | "304")
    }

    pub(crate) fn is_head_request(&self) -> bool {
        self.start.starts_with("HEAD ")
    }
}

/// Sends one request over a connection of its own and reads the whole response.
pub(crate) async fn exchange(protocol: Protocol, server: &str, request: &Message) -> Message {
    let exchanged = async {
        match protocol {
            Http1 => http1::exchange(server, request).await,
            Http2 => http2::exchange(server, request).await,
        }
    };
    in_time(DEADLINE, exchanged).await
}

/// What comes within this time.
///
/// # Panics
///
/// When nothing does.
#[track_caller]
pub(crate) fn in_time<F: Future>(limit: Duration, future: F) -> impl Future<Output = F::Output> {
    let limited = tokio::time::timeout(limit, future);
    async move { limited.await.expect("within the time limit") }
}
