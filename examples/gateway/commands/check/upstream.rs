//! Checks of the upstream with a request for its list of models, which costs nothing and takes the same
//! route as a chat.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Empty;
use jiff::fmt::rfc2822;
use tower::BoxError;

use super::{
    super::client::{self, Response, sources},
    Finding::{self, Failure, Fine, Warning},
    count,
};
use crate::{connector::connector, settings::UpstreamSettings};

/// Maximum time for the head of the response, which is shorter than that of a chat.
const MAX_HEAD_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RESPONSE_BYTES: usize = 8 << 20;
/// Difference to the upstream's clock above which a warning is printed.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Checks the connection and the credential.
pub(super) async fn check(upstream: &UpstreamSettings) -> Vec<Finding> {
    let base = upstream.base_url.to_string();
    let url = format!("{base}/models");
    let sent_at = SystemTime::now();
    let response = match get(upstream, &url).await {
        Ok(response) => response,
        Err(problem) => return vec![Failure(format!("{base}: {problem}"))],
    };
    let route = match (upstream.proxy.is_some(), base.starts_with("https")) {
        (true, true) => " through the proxy, with TLS",
        (true, false) => " through the proxy, without TLS",
        (false, true) => " with TLS",
        (false, false) => ", without TLS",
    };
    let reached = format!("{base}: reached in {} ms{route}", response.time_to_head.as_millis());
    let mut findings = vec![match response.status {
        StatusCode::NOT_FOUND => Failure(not_found(upstream, &base).await),
        _ => check_response(upstream, &url, &reached, &response),
    }];
    if upstream.api_key.is_none() {
        findings.push(Warning(
            "UPSTREAM_API_KEY is not set: requests go upstream with no credential".to_owned(),
        ));
    }
    findings.extend(clock(&response.headers, sent_at));
    findings
}

fn check_response(
    upstream: &UpstreamSettings,
    url: &str,
    reached: &str,
    response: &Response,
) -> Finding {
    let has_key = upstream.api_key.is_some();
    let Response { status, headers, body, .. } = response;
    let number = status.as_u16();
    match number {
        200 => {
            let list: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let models = list["data"].as_array().map(|models| count(models.len(), "model"));
            match (models, has_key) {
                (Some(models), true) => {
                    Fine(format!("{reached}; the credential is accepted, {models}"))
                }
                (Some(models), false) => Fine(format!("{reached}; {models}")),
                (None, _) => Failure(format!(
                    "{url} returns 200, but no list of models: UPSTREAM_BASE_URL is probably that of \
                     a web page; it often ends in /v1"
                )),
            }
        }
        401 | 403 if has_key => Failure(format!(
            "{reached}; the credential is rejected ({number}): UPSTREAM_API_KEY is not, or no longer, \
             a key of this upstream"
        )),
        401 | 403 => Failure(format!("{reached}; it requires a credential: set UPSTREAM_API_KEY")),
        402 => Failure(format!("{reached}; the sponsor's balance is used up (402)")),
        300..=399 => {
            let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            Failure(format!(
                "{url} returns {number}, a redirect to {}, which is not followed: set \
                 UPSTREAM_BASE_URL to its target, without /models",
                location.unwrap_or("nowhere")
            ))
        }
        405 | 501 => Warning(format!(
            "{reached}; it has no list of models ({number}), so the credential was not checked"
        )),
        429 => Warning(format!("{reached}; it currently limits the sponsor's rate (429)")),
        407 => Failure(format!("{url} returns 407: UPSTREAM_PROXY requires a user and password")),
        500.. => Failure(format!("{reached}; it currently fails ({number})")),
        _ => Failure(format!("{url} returns {number}, which an OpenAI-compatible API does not")),
    }
}

/// Returns the problem of a wrong base URL, with the right one if it is found.
async fn not_found(upstream: &UpstreamSettings, base: &str) -> String {
    let other = match base.strip_suffix("/v1") {
        Some(shorter) => shorter.to_owned(),
        None => format!("{base}/v1"),
    };
    let is_there = get(upstream, &format!("{other}/models"))
        .await
        .is_ok_and(|response| matches!(response.status.as_u16(), 200 | 401 | 403));
    let advice = if is_there {
        format!("{other}/models exists: set UPSTREAM_BASE_URL={other}")
    } else {
        "the base URL probably lacks /v1, or has a wrong path".to_owned()
    };
    format!("{base}/models does not exist (404): {advice}")
}

async fn get(upstream: &UpstreamSettings, url: &str) -> Result<Response, String> {
    let timeout = upstream.head_timeout.min(MAX_HEAD_TIMEOUT) + upstream.connect_timeout;
    let mut request = Request::get(url)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("gateway-check/", env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = &upstream.api_key {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let response = async {
        let connector = connector(upstream.authorities(), upstream.proxy.as_ref())?;
        client::send(request.body(Empty::new())?, connector, MAX_RESPONSE_BYTES).await
    };
    match tokio::time::timeout(timeout, response).await {
        Ok(response) => response.map_err(|error| explain(upstream, &error)),
        Err(_) => Err(format!("no response within {} s: check for firewalls", timeout.as_secs())),
    }
}

/// Describes why the upstream was not reached, with advice.
fn explain(upstream: &UpstreamSettings, error: &BoxError) -> String {
    let reasons: Vec<String> = sources(&**error).map(|error| error.to_string()).collect();
    let reason = reasons.last().map_or("", String::as_str);
    let all = reasons.join(": ");
    let is = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let advice = if is(&["dns error", "lookup", "resolve"]) {
        "its name does not resolve: check UPSTREAM_BASE_URL and this machine's DNS"
    } else if is(&["UnknownIssuer", "CaUsedAsEndEntity"]) {
        "its certificate is not signed by a trusted authority: set UPSTREAM_CA_FILE"
    } else if is(&["certificate", "Certificate"]) {
        "its certificate is invalid: check UPSTREAM_BASE_URL and this machine's clock"
    } else if is(&["corrupt message", "InvalidContentType", "received fatal alert"]) {
        "it does not support this machine's TLS: UPSTREAM_BASE_URL may have to begin with http://"
    } else if upstream.proxy.is_some() {
        "check whether the proxy of UPSTREAM_PROXY (or HTTPS_PROXY) is running and allows it"
    } else if is(&["onnection refused"]) {
        "nothing listens there: check UPSTREAM_BASE_URL"
    } else {
        "check UPSTREAM_BASE_URL and firewalls"
    };
    format!("not reached: {reason}; {advice}")
}

/// Compares this machine's clock, on which days and expiry depend, with the upstream's.
fn clock(headers: &HeaderMap, sent_at: SystemTime) -> Option<Finding> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let upstream_time: SystemTime = rfc2822::parse(date).ok()?.timestamp().into();
    let (difference, relation) = match sent_at.duration_since(upstream_time) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (difference > MAX_CLOCK_DIFFERENCE).then(|| {
        Warning(format!(
            "this machine's clock is {} s {relation} the upstream's: quota days and the expiry of \
             keys depend on it; synchronize it with NTP",
            difference.as_secs()
        ))
    })
}
