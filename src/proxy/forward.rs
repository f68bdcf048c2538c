use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version, header, request, response::Parts,
};
use http_body::Body;
use jiff::{civil::DateTime, tz::TimeZone};
use tokio::time::Instant;

use super::{
    ProxyRules, RequestTarget, ResponseBody, TargetError, Timeouts, UpstreamBase,
    body::{ForwardedBody, Mask, RequestProgress, TrailerRules, remove_content_fields},
    credential::{CredentialCooldown, Decision, Secret, UpstreamCredential},
    error::{Chain, fault_response, rejection, transport_fault},
    headers::{
        has_hop_by_hop, is_websocket_upgrade, merge_content_lengths, remove_where, strip_hop_by_hop,
    },
    timeout::TimeoutBody,
};
use crate::{
    content::Coding,
    error::{Reject, RejectedRequest, Rejection, Retry, UpstreamFault, catalog},
    request::RequestContext,
};

/// The configuration of a proxy, shared by all clones of the service.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) base: UpstreamBase,
    pub(super) mount: Box<str>,
    pub(super) credential: Option<UpstreamCredential>,
    pub(super) rules: ProxyRules,
    pub(super) timeouts: Timeouts,
    pub(super) cooldown: Option<CredentialCooldown>,
    pub(super) reject: Arc<dyn Reject>,
}

/// Maximum `Retry-After` that is forwarded: some clients sleep for it, however long it is.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// An upstream response that is replaced.
pub(super) struct ReplacedResponse {
    pub(super) fault: UpstreamFault,
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
    is_coded: bool,
}

impl Config {
    /// Turns a request's head into the upstream's. Returns the secret that must not appear in the
    /// response, or the rejection of an invalid request.
    ///
    /// The version is always HTTP/1.1: a client changes it to HTTP/2 where ALPN has negotiated that,
    /// but rejects an HTTP/2 request on an HTTP/1 connection. The client's `Host` is removed; unless it
    /// is replaced, the transport derives it from the URL.
    pub(super) fn prepare_request(
        &self,
        head: &mut request::Parts,
        body: &impl Body,
    ) -> Result<Option<Secret>, Box<Rejection>> {
        let target = RequestTarget::take(head).map_err(boxed)?;
        if has_hop_by_hop(&head.headers) {
            if is_websocket_upgrade(&head.headers) {
                return Err(boxed(catalog::UPGRADE_NOT_SUPPORTED.rejection()));
            }
            strip_hop_by_hop(&mut head.headers);
        }
        let uri = self.base.join(&self.mount, target.path_and_query());
        head.uri = uri.map_err(|_| boxed(TargetError::too_long()))?;
        head.version = Version::HTTP_11;
        let peer = head.extensions.get().and_then(RequestContext::trusted_peer);
        head.headers.remove(header::EXPECT);
        self.rules.request.apply_to_request(head, peer);
        match self.base.host() {
            Some(host) => head.headers.insert(header::HOST, host.clone()),
            None => head.headers.remove(header::HOST),
        };
        let mut secret = None;
        if let Some(credential) = &self.credential {
            let authorization;
            (authorization, secret) = credential.get();
            head.headers.insert(header::AUTHORIZATION, authorization);
        }
        if self.rules.identity_only {
            let identity = HeaderValue::from_static("identity");
            head.headers.insert(header::ACCEPT_ENCODING, identity);
        }
        let is_unsized = !body.is_end_stream() && body.size_hint().exact().is_none();
        if is_unsized && !head.headers.contains_key(header::CONTENT_LENGTH) {
            // Without it hyper sends a GET without a body.
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        Ok(secret)
    }

    /// Decides whether the next request is sent.
    pub(super) fn decide(&self) -> Decision {
        self.cooldown.as_ref().map_or(Decision::Send, CredentialCooldown::decide)
    }

    /// Records the outcome of a request that was sent: a response of the upstream, or a fault.
    pub(super) fn record(&self, decision: Decision, fault: Option<UpstreamFault>) {
        if let Some(cooldown) = &self.cooldown {
            cooldown.record(decision, fault);
        }
    }

    /// Returns the upstream response with this head if it must be replaced.
    pub(super) fn replaced(&self, head: &Parts) -> Option<ReplacedResponse> {
        let fault = self.rules.fault(head)?;
        Some(ReplacedResponse {
            fault,
            status: head.status,
            retry_after: retry_after(&head.headers, SystemTime::now()),
            is_coded: Coding::of(&head.headers) != Coding::Identity,
        })
    }

    /// Returns the response to the client for an upstream response: without the secret, and with a body
    /// that fails at `end`.
    pub(super) fn forward_response<B: Body>(
        &self,
        mut head: Parts,
        body: B,
        end: Option<Instant>,
        secret: Option<&Secret>,
        request: RejectedRequest<'_>,
    ) -> Response<ResponseBody<B>> {
        head.version = Version::HTTP_11;
        let reads = std::mem::take(&mut head.extensions).remove();
        // `Connection` may nominate `Content-Encoding`.
        let coding = Coding::of(&head.headers);
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(header::TE);
        merge_content_lengths(&mut head.headers);
        self.rules.response.apply_to_response(&mut head.headers);
        if let Some(secret) = secret {
            remove_where(&mut head.headers, |_, value| secret.occurs_in(value.as_bytes()));
        }
        let mask = match secret.filter(|_| head.status.is_client_error()) {
            Some(secret) if !body.is_end_stream() => match coding {
                Coding::Identity | Coding::Gzip => {
                    Some(Mask::new(secret.clone(), coding == Coding::Gzip))
                }
                Coding::Deflate | Coding::Other => {
                    return self.unreadable_response(head, request).map(ResponseBody::full);
                }
            },
            _ => None,
        };
        if mask.is_some() && coding == Coding::Gzip {
            remove_content_fields(&mut head.headers);
        }
        let body = TimeoutBody::new(body, self.timeouts.idle, end);
        let trailers =
            TrailerRules { headers: self.rules.response.clone(), secret: secret.cloned() };
        Response::from_parts(
            head,
            ResponseBody::forwarded(ForwardedBody::new(body, reads, mask, trailers)),
        )
    }

    /// Replaces a 4xx response in a coding that cannot be searched for the credential. Its headers are
    /// kept, except those that describe the body.
    fn unreadable_response(
        &self,
        mut head: Parts,
        request: RejectedRequest<'_>,
    ) -> Response<Bytes> {
        tracing::warn!(
            status = head.status.as_u16(),
            "upstream 4xx response has an unsupported coding: replacing its body",
        );
        let rejection = rejection(UpstreamFault::Unreadable, Some(head.status));
        let mut response =
            fault_response(&*self.reject, UpstreamFault::Unreadable, rejection, request);
        remove_content_fields(&mut head.headers);
        head.headers.remove(header::CONTENT_LANGUAGE);
        head.headers.extend(std::mem::take(response.headers_mut()));
        *response.headers_mut() = head.headers;
        response
    }

    /// Returns the response that replaces an upstream response whose body begins with `text`.
    pub(super) fn replacement(
        &self,
        replaced: ReplacedResponse,
        text: &[u8],
        secret: Option<&Secret>,
        request: RejectedRequest<'_>,
    ) -> Response<Bytes> {
        tracing::warn!(
            fault = replaced.fault.code(),
            status = replaced.status.as_u16(),
            text = ?masked(if replaced.is_coded { b"" } else { text }, secret),
            "upstream response reports a failure: replacing it",
        );
        let mut rejection = rejection(replaced.fault, Some(replaced.status));
        if rejection.retry == Retry::Later
            && let Some(delay) = replaced.retry_after
        {
            if delay > MAX_RETRY_AFTER {
                rejection.retry = Retry::Never;
            }
            let seconds = delay.min(MAX_RETRY_AFTER).as_secs();
            rejection = rejection.header(header::RETRY_AFTER, seconds.into());
        }
        fault_response(&*self.reject, replaced.fault, rejection, request)
    }

    /// Returns the response for a fault without a response of the upstream.
    pub(super) fn fault(
        &self,
        fault: UpstreamFault,
        request: RejectedRequest<'_>,
    ) -> Response<Bytes> {
        fault_response(&*self.reject, fault, rejection(fault, None), request)
    }

    /// Returns the response for an error of the transport. If the request body failed before, that is
    /// the reason.
    pub(super) fn transport_error(
        &self,
        error: &(dyn Error + 'static),
        progress: &RequestProgress,
        secret: Option<&Secret>,
        request: RejectedRequest<'_>,
    ) -> Response<Bytes> {
        if let Some(fault) = progress.fault() {
            return self.fault(fault, request);
        }
        let fault = transport_fault(error);
        let text = masked(Chain(error).to_string().as_bytes(), secret);
        tracing::warn!(
            fault = fault.code(),
            error = text,
            "upstream request failed: responding with an error"
        );
        self.fault(fault, request)
    }
}

fn boxed(rejection: impl Into<Rejection>) -> Box<Rejection> {
    Box::new(rejection.into())
}

/// Returns the text for the log, with the secret masked.
fn masked(text: &[u8], secret: Option<&Secret>) -> String {
    let mut text = text.to_vec();
    if let Some(secret) = secret {
        secret.mask(&mut text);
        // The end of an excerpt may be the beginning of the secret.
        text.truncate(text.len() - secret.partial_match_len(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns the delay of `Retry-After`, which is a number of seconds or a date (RFC 9110, section
/// 10.2.3) by the upstream's clock.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    if (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = headers.get(header::DATE).and_then(|date| http_date(date.to_str().ok()?));
    let delay = http_date(text)?.duration_since(date.unwrap_or(now)).unwrap_or_default();
    Some(Duration::from_secs(delay.as_millis().div_ceil(1000) as u64))
}

fn http_date(text: &str) -> Option<SystemTime> {
    let date = DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("base", &self.base)
            .field("mount", &self.mount)
            .field("credential", &self.credential)
            .field("rules", &self.rules)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::headers::map_of, *};

    #[test]
    fn excerpt_cut_inside_credential_shows_no_part_of_it() {
        let secret =
            Secret::from_authorization(&HeaderValue::from_static("Bearer sk-sponsor-0123"));
        let text = masked(b"bad sk-sponsor-0123, sk-sponsor-012", secret.as_ref());
        assert_eq!(text, "bad ***************, ");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date("Sun, 06 Nov 1994 08:49:00 GMT").unwrap();
        let delay = |lines: &[(&'static str, &'static str)]| {
            retry_after(&map_of(lines), now).map(|delay| delay.as_secs())
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(delay(&[("retry-after", "0")]), Some(0));
        assert_eq!(delay(&[("retry-after", "9999999999")]), Some(9_999_999_999));
        assert_eq!(delay(&[("retry-after", date)]), Some(37));
        let earlier = ("date", "Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(delay(&[("retry-after", date), earlier]), Some(7), "by the upstream's clock");
        assert_eq!(
            delay(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]),
            Some(0),
            "in the past"
        );
        for text in ["", "-1", "1.5", "sk-sponsor-0123", "Sun, 06 Nov 1994", "99999999999"] {
            assert_eq!(delay(&[("retry-after", text)]), None, "{text}");
        }
    }
}
