//! A rejection for a limit names it as its policy, in each form of an error, and no other rejection does.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use crate::zone::memory_store;
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt, service_fn, util::ServiceFn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::Period,
    error::{ProblemJson, Reject},
    key::{KeyId, Limit},
    openai::{AnthropicErrorsLayer, OpenAiErrors},
    quota::{DailyQuotaLayer, InFlightLimitLayer, RateLimitLayer},
    store::{Quota, QuotaSubject},
};

type Body = Full<Bytes>;
type Hello = ServiceFn<fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>>;

fn hello(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::from("hello"))))
}

/// Returns status and body of the second of two requests, while the first is in flight.
async fn second<L, B>(layer: L, is_anthropic: bool) -> (u16, Value)
where
    L: Layer<Hello>,
    L::Service: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes, Error = Infallible>,
{
    let service = AnthropicErrorsLayer::new().layer(layer.layer(service_fn(hello as fn(_) -> _)));
    let request = || {
        let path = if is_anthropic { "/v1/messages" } else { "/" };
        Request::post(path).body(Body::default()).unwrap()
    };
    let _first = service.clone().oneshot(request()).await.unwrap();
    let (head, body) = service.oneshot(request()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
}

/// Returns the rejection by the limit with this policy, or of a request without a subject or a key.
async fn rejected<R>(policy: &str, reject: R, is_anthropic: bool) -> (u16, Value)
where
    R: Reject + Copy,
{
    let one = |_: &Parts| Some(QuotaSubject::new(KeyId::from("acme"), Limit::Units(1)));
    let quota = || DailyQuotaLayer::new(memory_store()).reject(reject);
    let in_flight = || InFlightLimitLayer::new(Limit::Units(1)).reject(reject);
    let rate = || RateLimitLayer::per_minute(Limit::Units(1)).reject(reject);
    match policy {
        "daily" => second(quota().subject(one), is_anthropic).await,
        "exports" => {
            let quota = quota().quota(Quota::new("exports", Period::Month).unwrap());
            second(quota.subject(one), is_anthropic).await
        }
        "in_flight" => second(in_flight().subject(one), is_anthropic).await,
        "streams" => second(in_flight().name("streams").subject(one), is_anthropic).await,
        "minute" => second(rate().subject(one), is_anthropic).await,
        "quota without a subject" => second(quota(), is_anthropic).await,
        "requests in flight without a subject" => second(in_flight(), is_anthropic).await,
        "rate without a subject" => second(rate(), is_anthropic).await,
        "no key" => {
            second(TrialKeyAuthLayer::new(memory_store()).reject(reject), is_anthropic).await
        }
        _ => unreachable!("{policy}"),
    }
}

const POLICIES: [(&str, &str, &str); 5] = [
    ("daily", "insufficient_quota", "insufficient_quota"),
    ("exports", "insufficient_quota", "insufficient_quota"),
    ("in_flight", "rate_limit_error", "rate_limit_exceeded"),
    ("streams", "rate_limit_error", "rate_limit_exceeded"),
    ("minute", "rate_limit_error", "rate_limit_exceeded"),
];

#[tokio::test]
async fn a_rejection_for_a_limit_names_it_in_each_form() {
    for (policy, kind, code) in POLICIES {
        let (status, mut object) = rejected(policy, OpenAiErrors, false).await;
        let message = object["error"]["message"].take();
        let error = json!({
            "message": null, "type": kind, "param": null, "code": code, "policy": policy,
        });
        assert_eq!((status, object), (429, json!({ "error": error })), "{message}");

        let (status, mut object) = rejected(policy, OpenAiErrors, true).await;
        object["error"]["message"].take();
        let error = json!({
            "type": "rate_limit_error", "message": null, "param": null, "code": code, "policy": policy,
        });
        let expected = json!({"type": "error", "error": error, "request_id": null});
        assert_eq!((status, object), (429, expected), "{message}");

        let (status, object) = rejected(policy, ProblemJson, false).await;
        let expected = json!({
            "title": "Too Many Requests",
            "status": 429,
            "detail": object["detail"].clone(),
            "code": code,
            "policy": policy,
        });
        assert_eq!((status, object), (429, expected));
    }
}

#[tokio::test]
async fn other_rejections_name_no_limit() {
    for (case, expected) in [
        ("quota without a subject", 500),
        ("requests in flight without a subject", 500),
        ("rate without a subject", 500),
        ("no key", 401),
    ] {
        let (status, object) = rejected(case, OpenAiErrors, false).await;
        assert_eq!((status, object["error"].get("policy")), (expected, None), "{case}");
        let (_, object) = rejected(case, OpenAiErrors, true).await;
        assert_eq!(object["error"].get("policy"), None, "{case}");
        let (_, object) = rejected(case, ProblemJson, false).await;
        assert_eq!(object.get("policy"), None, "{case}");
    }
}
