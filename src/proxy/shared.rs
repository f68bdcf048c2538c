use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderValue, Response, StatusCode, Version, header, request,
    response::Parts,
};
use http_body::Body;
use jiff::{civil::DateTime, tz::TimeZone};
use tokio::time::Instant;

use super::{
    ProxyBody, ProxyRules, RequestTarget, TargetError, Timeouts, UpstreamBase,
    coding::{self, Coding, Gunzip},
    cooldown::{CredentialCooldown, Turn},
    credential::UpstreamCredential,
    error::{Chain, faulty, rejection, transport_fault},
    framing,
    headers::{has_hop_by_hop, remove_where, strip_hop_by_hop},
    mask::Mask,
    passed::{PassedBody, TrailerRules},
    secret::Secret,
    timeout::IdleTimeout,
    upgrade,
    upload::Upload,
};
use crate::{
    body::ResponseBody,
    error::{Reject, Rejection, Retry, UpstreamFault},
};

/// What all clones of a proxy service have in common.
#[derive(Clone)]
pub(super) struct Shared<R> {
    pub(super) base: UpstreamBase,
    pub(super) mount: Box<str>,
    pub(super) credential: Option<UpstreamCredential>,
    pub(super) rules: ProxyRules,
    pub(super) timeouts: Timeouts,
    pub(super) cooldown: Option<CredentialCooldown>,
    pub(super) reject: R,
}

/// The longest `Retry-After` that is passed on: some clients sleep by it, however long it is.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why a request is not sent.
fn unsent(why: impl Into<Rejection>) -> Box<Rejection> {
    Box::new(why.into())
}

/// An upstream answer that is not passed on.
pub(super) struct Replaced {
    pub(super) fault: UpstreamFault,
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
    coded: bool,
}

impl<R: Reject> Shared<R> {
    /// Turns a request's head into the one for the upstream, or says why it is not sent.
    ///
    /// It always says HTTP/1.1: a client over ALPN turns it into HTTP/2 where that was agreed on,
    /// but refuses an HTTP/2 request on an HTTP/1 connection. The client's `Host` goes; where none is
    /// put in its place, the transport derives it from the address. The extensions stay behind, as
    /// they belong to the layers of this side and may hold secrets.
    ///
    /// Returns what must not stand in the answer.
    pub(super) fn prepare(
        &self,
        head: &mut request::Parts,
        body: &impl Body,
    ) -> Result<Option<Secret>, Box<Rejection>> {
        let target = RequestTarget::of(head).map_err(unsent)?;
        if has_hop_by_hop(&head.headers) {
            upgrade::check(&head.headers).map_err(unsent)?;
            strip_hop_by_hop(&mut head.headers);
        }
        let uri = self.base.join(&self.mount, target.path_and_query());
        head.uri = uri.map_err(|_| unsent(TargetError::too_long()))?;
        head.version = Version::HTTP_11;
        let peer = std::mem::take(&mut head.extensions).get().copied();
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
            // Without it hyper takes a GET to have no body.
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        Ok(secret)
    }

    /// Whether the next request is sent.
    pub(super) fn turn(&self) -> Turn {
        self.cooldown.as_ref().map_or(Turn::Regular, |cooldown| cooldown.turn())
    }

    /// Notes how a request that was sent has ended: with an answer of the upstream's, or a fault.
    pub(super) fn note(&self, turn: Turn, fault: Option<UpstreamFault>) {
        if let Some(cooldown) = &self.cooldown {
            cooldown.note(turn, fault);
        }
    }

    /// The answer to a request that is not sent.
    pub(super) fn refusal(&self, rejection: Rejection) -> Response<Bytes> {
        rejection.render(&self.reject)
    }

    /// Whether the answer with this head must be replaced.
    pub(super) fn replaced(&self, head: &Parts) -> Option<Replaced> {
        let fault = self.rules.fault(head)?;
        Some(Replaced {
            fault,
            status: head.status,
            retry_after: retry_after(&head.headers, SystemTime::now()),
            coded: Coding::of(&head.headers) != Coding::Identity,
        })
    }

    /// The upstream's answer as the client gets it, until `end`, without the secret.
    pub(super) fn passed<B: Body>(
        &self,
        mut head: Parts,
        body: B,
        end: Option<Instant>,
        secret: Option<&Secret>,
    ) -> Response<ProxyBody<B>> {
        head.version = Version::HTTP_11;
        head.extensions = Extensions::new();
        // `Connection` may nominate what says how the body is coded.
        let coding = Coding::of(&head.headers);
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(header::TE);
        framing::name_one_length(&mut head.headers);
        self.rules.response.apply(&mut head.headers);
        if let Some(secret) = secret {
            remove_where(&mut head.headers, |_, value| secret.is_in(value.as_bytes()));
        }
        let mask = match secret.filter(|_| head.status.is_client_error()) {
            Some(secret) if !body.is_end_stream() => match coding {
                Coding::Identity => Some(Mask::new(secret.clone(), None)),
                Coding::Gzip => Some(Mask::new(secret.clone(), Some(Gunzip::new()))),
                Coding::Other => return self.unreadable(head).map(ResponseBody::own),
            },
            _ => None,
        };
        if mask.is_some() && coding == Coding::Gzip {
            coding::forget(&mut head.headers);
        }
        let body = IdleTimeout::new(body, self.timeouts.idle).until(end);
        let rules = TrailerRules { headers: self.rules.response.clone(), secret: secret.cloned() };
        Response::from_parts(head, ResponseBody::passed(PassedBody::new(body, mask, rules)))
    }

    /// Stands for a 4xx answer in a coding in which the credential cannot be looked for. Its headers
    /// stay, but for those that describe the body.
    fn unreadable(&self, mut head: Parts) -> Response<Bytes> {
        tracing::warn!(status = %head.status, "a compressed error of the upstream was withheld");
        let rejection = rejection(UpstreamFault::Unreadable, Some(head.status));
        let mut response = faulty(&self.reject, UpstreamFault::Unreadable, rejection);
        coding::forget(&mut head.headers);
        head.headers.remove(header::CONTENT_LANGUAGE);
        head.headers.extend(std::mem::take(response.headers_mut()));
        *response.headers_mut() = head.headers;
        response
    }

    /// The answer in place of one that the upstream gave; `text` is how its body began.
    pub(super) fn replacement(
        &self,
        replaced: Replaced,
        text: &[u8],
        secret: Option<&Secret>,
    ) -> Response<Bytes> {
        tracing::warn!(
            fault = replaced.fault.code(),
            status = replaced.status.as_u16(),
            text = ?readable(if replaced.coded { b"" } else { text }, secret),
            "an answer of the upstream was replaced",
        );
        let mut rejection = rejection(replaced.fault, Some(replaced.status));
        if rejection.retry == Retry::Later
            && let Some(wait) = replaced.retry_after
        {
            if wait > MAX_RETRY_AFTER {
                rejection.retry = Retry::Never;
            }
            let seconds = wait.min(MAX_RETRY_AFTER).as_secs();
            rejection = rejection.header(header::RETRY_AFTER, seconds.into());
        }
        faulty(&self.reject, replaced.fault, rejection)
    }

    /// The answer when the upstream gave none.
    pub(super) fn fault(&self, fault: UpstreamFault) -> Response<Bytes> {
        faulty(&self.reject, fault, rejection(fault, None))
    }

    /// The answer when the transport failed, be it that the upload failed first.
    pub(super) fn failure(
        &self,
        error: &(dyn Error + 'static),
        upload: &Upload,
        secret: Option<&Secret>,
    ) -> Response<Bytes> {
        if let Some(fault) = upload.fault() {
            return self.fault(fault);
        }
        let fault = transport_fault(error);
        let text = readable(Chain(error).to_string().as_bytes(), secret);
        tracing::warn!(fault = fault.code(), error = text, "the upstream gave no answer");
        self.fault(fault)
    }
}

/// Text for the log, without the secret.
fn readable(text: &[u8], secret: Option<&Secret>) -> String {
    let mut text = text.to_vec();
    if let Some(secret) = secret {
        secret.mask(&mut text);
        // Where the text is cut, the secret may be, too.
        text.truncate(text.len() - secret.begun(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// How long the upstream asks to wait: `Retry-After` in seconds, or as a date (RFC 9110, section
/// 10.2.3) by the upstream's clock.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    if (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = headers.get(header::DATE).and_then(|date| http_date(date.to_str().ok()?));
    let wait = http_date(text)?.duration_since(date.unwrap_or(now)).unwrap_or_default();
    Some(Duration::from_secs(wait.as_millis().div_ceil(1000) as u64))
}

fn http_date(text: &str) -> Option<SystemTime> {
    let date = DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

impl<R> fmt::Debug for Shared<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
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
    fn a_text_that_is_cut_within_the_credential_does_not_show_its_begin() {
        let secret = Secret::of(&HeaderValue::from_static("Bearer sk-sponsor-0123"));
        let text = readable(b"bad sk-sponsor-0123, sk-sponsor-012", secret.as_ref());
        assert_eq!(text, "bad ***************, ");
    }

    #[test]
    fn a_time_to_retry_is_seconds_or_a_date_and_nothing_else() {
        let now = http_date("Sun, 06 Nov 1994 08:49:00 GMT").unwrap();
        let wait = |lines: &[(&'static str, &'static str)]| {
            retry_after(&map_of(lines), now).map(|wait| wait.as_secs())
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait(&[("retry-after", "0")]), Some(0));
        assert_eq!(wait(&[("retry-after", "9999999999")]), Some(9_999_999_999));
        assert_eq!(wait(&[("retry-after", date)]), Some(37));
        let earlier = ("date", "Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(wait(&[("retry-after", date), earlier]), Some(7), "by the upstream's clock");
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0), "over");
        for text in ["", "-1", "1.5", "sk-sponsor-0123", "Sun, 06 Nov 1994", "99999999999"] {
            assert_eq!(wait(&[("retry-after", text)]), None, "{text}");
        }
    }
}
