//! Asking the upstream for its models: free, and all that stands between is used as for a chat.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use jiff::fmt::rfc2822;
use tower::BoxError;

use super::{
    super::healthcheck::sources,
    Finding::{self, Failure, Fine, Warning},
    count,
};
use crate::{connector::connector, settings::Upstream};

/// How long the answer may take, however long one of a chat may.
const MAX_HEAD_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// A clock that differs by more is wrong, whatever the way takes.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    took: Duration,
}

/// What the upstream's list of models says about the way to it and the credential.
pub(super) async fn ask(upstream: &Upstream) -> Vec<Finding> {
    let base = upstream.base_url.to_string();
    let url = format!("{base}/models");
    let asked = SystemTime::now();
    let answer = match get(upstream, &url).await {
        Ok(answer) => answer,
        Err(problem) => return vec![Failure(format!("{base}: {problem}"))],
    };
    let way = match (upstream.proxy.is_some(), base.starts_with("https")) {
        (true, true) => " through the proxy, by TLS",
        (true, false) => " through the proxy, without TLS",
        (false, true) => " by TLS",
        (false, false) => ", without TLS",
    };
    let reached = format!("{base}: reached in {} ms{way}", answer.took.as_millis());
    let mut findings = vec![match answer.status {
        StatusCode::NOT_FOUND => Failure(not_found(upstream, &base).await),
        _ => judge(upstream, &url, &reached, &answer),
    }];
    if upstream.api_key.value.is_none() {
        findings.push(Warning(
            "UPSTREAM_API_KEY is not set: requests go upstream with no credential".to_owned(),
        ));
    }
    findings.extend(clock(&answer.headers, asked));
    findings
}

fn judge(upstream: &Upstream, url: &str, reached: &str, answer: &Answer) -> Finding {
    let has_key = upstream.api_key.value.is_some();
    let Answer { status, headers, body, .. } = answer;
    let number = status.as_u16();
    match number {
        200 => {
            let list: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let models = list["data"].as_array().map(|models| count(models.len(), "model"));
            match (models, has_key) {
                (Some(models), true) => {
                    Fine(format!("{reached}; the credential is taken, {models}"))
                }
                (Some(models), false) => Fine(format!("{reached}; {models}")),
                (None, _) => Failure(format!(
                    "{url} answers 200, but with no list of models: UPSTREAM_BASE_URL is probably \
                     that of a web page; it often ends in /v1"
                )),
            }
        }
        401 | 403 if has_key => Failure(format!(
            "{reached}; the credential is refused ({number}): UPSTREAM_API_KEY is not, or no more, a \
             key of this upstream"
        )),
        401 | 403 => Failure(format!("{reached}; it wants a credential: set UPSTREAM_API_KEY")),
        402 => Failure(format!("{reached}; the sponsor's balance is used up (402)")),
        300..=399 => {
            let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            Failure(format!(
                "{url} answers {number}, a redirect to {}, which is not followed: set \
                 UPSTREAM_BASE_URL to where it leads, without /models",
                location.unwrap_or("nowhere")
            ))
        }
        405 | 501 => Warning(format!(
            "{reached}; it has no list of models ({number}), so nothing is known of the credential"
        )),
        429 => Warning(format!("{reached}; it limits the sponsor at present (429)")),
        407 => Failure(format!("{url} answers 407: UPSTREAM_PROXY wants a user and password")),
        500.. => Failure(format!("{reached}; it fails at present ({number})")),
        _ => Failure(format!("{url} answers {number}, which an OpenAI-compatible API does not")),
    }
}

/// The base URL is wrong, and perhaps the right one can be found.
async fn not_found(upstream: &Upstream, base: &str) -> String {
    let other = match base.strip_suffix("/v1") {
        Some(shorter) => shorter.to_owned(),
        None => format!("{base}/v1"),
    };
    let is_there = get(upstream, &format!("{other}/models"))
        .await
        .is_ok_and(|answer| matches!(answer.status.as_u16(), 200 | 401 | 403));
    let advice = if is_there {
        format!("{other}/models is there: set UPSTREAM_BASE_URL={other}")
    } else {
        "the base URL probably lacks /v1, or has too much".to_owned()
    };
    format!("{base}/models is not there (404): {advice}")
}

async fn get(upstream: &Upstream, url: &str) -> Result<Answer, String> {
    let limit = upstream.head_timeout.min(MAX_HEAD_TIMEOUT) + upstream.connect_timeout;
    let begun = Instant::now();
    let asked = async {
        let (head, body) = request(upstream, url).await?.into_parts();
        let took = begun.elapsed();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), took })
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error: BoxError| explain(upstream, &error)),
        Err(_) => {
            Err(format!("no answer within {} s: a firewall may be in between", limit.as_secs()))
        }
    }
}

async fn request(
    upstream: &Upstream,
    url: &str,
) -> Result<http::Response<hyper::body::Incoming>, BoxError> {
    let uri: Uri = url.parse()?;
    let connector = connector(&upstream.authorities, upstream.proxy.as_ref())?;
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let mut request = Request::get(uri).header(header::ACCEPT, "application/json");
    request =
        request.header(header::USER_AGENT, concat!("gateway-check/", env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = &upstream.api_key.value {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    Ok(client.request(request.body(Empty::<Bytes>::new())?).await?)
}

/// What was in the way, and what can be done.
fn explain(upstream: &Upstream, error: &BoxError) -> String {
    let reasons: Vec<String> = sources(&**error).map(|error| error.to_string()).collect();
    let reason = reasons.last().map_or("", String::as_str);
    let all = reasons.join(": ");
    let is = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let advice = if is(&["dns error", "lookup", "resolve"]) {
        "its name leads nowhere: look at UPSTREAM_BASE_URL and at this machine's DNS"
    } else if is(&["UnknownIssuer", "CaUsedAsEndEntity"]) {
        "nobody who is trusted has signed its certificate: name the authority by UPSTREAM_CA_FILE"
    } else if is(&["certificate", "Certificate"]) {
        "its certificate is refused: look at UPSTREAM_BASE_URL and at this machine's clock"
    } else if is(&["corrupt message", "InvalidContentType", "received fatal alert"]) {
        "it speaks no TLS that is understood: UPSTREAM_BASE_URL may have to begin with http://"
    } else if upstream.proxy.is_some() {
        "this is the way through UPSTREAM_PROXY (or HTTPS_PROXY): look whether that runs and lets it pass"
    } else if is(&["onnection refused"]) {
        "nothing listens there: look at UPSTREAM_BASE_URL"
    } else {
        "look at UPSTREAM_BASE_URL, and at firewalls in between"
    };
    format!("not reached: {reason}; {advice}")
}

/// Whether this machine's clock is right, which days and expiry depend on.
fn clock(headers: &HeaderMap, asked: SystemTime) -> Option<Finding> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs: SystemTime = rfc2822::parse(date).ok()?.timestamp().into();
    let ahead = asked.duration_since(theirs);
    let (difference, how) = match &ahead {
        Ok(ahead) => (*ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (difference > MAX_CLOCK_DIFFERENCE).then(|| {
        Warning(format!(
            "this machine's clock is {} s {how} the upstream's: days turn and keys expire by it; \
             set it by NTP",
            difference.as_secs()
        ))
    })
}
