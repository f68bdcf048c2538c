//! Whatever the two heads say, the upstream learns nothing of the client's credentials and the client
//! nothing of the sponsor's.
#![no_main]

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use tower::{ServiceExt, service_fn};
use tower_quota::{
    openai::{OpenAiErrors, proxy_rules},
    proxy::{RequestBody, UpstreamProxyService},
};

const SPONSOR: &str = "sk-sponsor";
const TO_UPSTREAM: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "expect",
    "cookie",
    "x-trial-key",
    "x-api-key",
    "x-admin-token",
    "api-key",
    "x-forwarded-for",
    "openai-organization",
];
const TO_CLIENT: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "transfer-encoding",
    "upgrade",
    "set-cookie",
    "openai-organization",
    "x-ratelimit-limit-requests",
    "location",
];

fuzz_target!(|data: (&str, bool, u16, &[u8], &[u8], &[u8])| {
    let (target, is_http2, status, request, response, body) = data;
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let Ok(mut sent) = Request::get(target).body(Full::new(Bytes::copy_from_slice(body))) else {
        return;
    };
    *sent.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    *sent.headers_mut() = headers(request);
    let headers_of_response = headers(response);
    let body = Bytes::copy_from_slice(body);
    let transport = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
        assert_upstream_may_see(&request);
        let mut response = Response::new(Full::new(body.clone()));
        *response.status_mut() = status;
        *response.headers_mut() = headers_of_response.clone();
        async { Ok::<_, Infallible>(response) }
    });
    let proxy = UpstreamProxyService::new(transport, "http://upstream/base/v1".parse().unwrap())
        .mount("/v1")
        .rules(proxy_rules())
        .credential(HeaderValue::from_static("Bearer sk-sponsor"))
        .reject(OpenAiErrors);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (head, body) = proxy.oneshot(sent).await.unwrap().into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            for name in TO_CLIENT {
                let own = name == "connection" && head.status == StatusCode::BAD_REQUEST
                    || head.status == StatusCode::METHOD_NOT_ALLOWED;
                assert!(own || !head.headers.contains_key(name), "{name} got through");
            }
            assert!(!head.status.is_informational());
            assert!(!head.status.is_redirection() || head.status == StatusCode::NOT_MODIFIED);
            if head.status.is_client_error() {
                assert!(head.headers.values().all(|value| !has_secret(value.as_bytes())));
                assert!(body.is_err() || !has_secret(&body.unwrap()));
            }
        });
    });
});

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

/// The lines of `text`, as far as they are headers.
fn headers(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn has_secret(text: &[u8]) -> bool {
    memchr::memmem::find(text, SPONSOR.as_bytes()).is_some()
}

fn assert_upstream_may_see<B>(request: &Request<B>) {
    let headers = request.headers();
    for name in headers.keys() {
        let dashed = name.as_str().replace('_', "-");
        assert!(!TO_UPSTREAM.contains(&&*dashed), "{name} got through");
    }
    let sponsors: Vec<_> = headers.get_all("authorization").iter().collect();
    assert_eq!(sponsors, ["Bearer sk-sponsor"]);
    assert_eq!(headers.get_all("host").iter().collect::<Vec<_>>(), ["upstream"]);
    assert!(headers.get("te").is_none_or(|te| te == "trailers"));
    let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
    assert!(lengths.len() <= 1);
    assert!(lengths.iter().all(|length| length.as_bytes().iter().all(u8::is_ascii_digit)));
    let path = request.uri().path();
    assert!(path == "/base/v1" || path.starts_with("/base/v1/"), "{path}");
    assert_eq!(request.uri().authority().map(|name| name.as_str()), Some("upstream"));
}
