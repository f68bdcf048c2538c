//! Where a key is read, what is removed with it, and requests without one.

use std::convert::Infallible;

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::{
        AuthRejection, Bearer, Cookie, Credential, CredentialSource, Header, TrialKeyAuthLayer,
    },
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::{DailyQuotaLayer, Subject},
    request::RequestContext,
};

use super::{KEY, store};

const JWT: &str = "Bearer eyJhbGciOiJub25lIn0.e30.";

/// Responds with the key's id and the head that has passed: `id|uri|name: value|…`, sorted by name.
async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let key = request.extensions().get().and_then(RequestContext::key);
    let id = key.map(|key| key.id.to_string()).unwrap_or_default();
    let mut lines: Vec<_> = request.headers().iter().collect();
    lines.sort_by_key(|(name, _)| name.as_str());
    let lines = lines.iter().map(|(name, value)| format!("|{name}: {}", value.to_str().unwrap()));
    let text = format!("{id}|{}{}", request.uri(), lines.collect::<String>());
    Ok(Response::new(Body::from(text)))
}

async fn get<S, B>(service: &S, uri: &str, lines: &[(&str, &str)]) -> (StatusCode, String)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let request = lines.iter().fold(Request::get(uri), |request, (name, value)| {
        request.header(*name, value.replace("KEY", KEY))
    });
    let Ok(response) = service.clone().oneshot(request.body(Body::empty()).unwrap()).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_key_is_read_where_the_application_says() {
    let source = Bearer.or(Header("X-Api-Key")).or(Cookie("key"));
    let auth = TrialKeyAuthLayer::new(store(1)).credential(source);
    let service = ServiceBuilder::new().layer(auth).service(service_fn(echo));
    for (lines, expected) in [
        (&[("authorization", "bearer KEY")][..], "alice|/"),
        (&[("x-api-key", " 'KEY' ")], "alice|/"),
        (&[("cookie", "key=KEY")], "alice|/"),
        (&[("cookie", "a=1; key=KEY;b=2")], "alice|/|cookie: a=1; b=2"),
        (&[("cookie", "a=1;b=2"), ("cookie", "key=\"KEY\"")], "alice|/|cookie: a=1; b=2"),
        (
            &[("x-api-key", "KEY"), ("cookie", "a=1;b"), ("x-trial-key", "k")],
            "alice|/|cookie: a=1;b|x-trial-key: k",
        ),
        (
            &[("x-api-key", "KEY"), ("cookie", "key=KEY"), ("authorization", "Bearer KEY")],
            "alice|/",
        ),
        (&[("x-api-key", "KEY"), ("authorization", "Basic dXNlcg==")], "alice|/"),
        (
            &[("x-api-key", "KEY"), ("cookie", "key="), ("authorization", "")],
            "alice|/|cookie: key=",
        ),
    ] {
        let (status, body) = get(&service, "/", lines).await;
        assert_eq!((status, &*body), (StatusCode::OK, expected), "{lines:?}");
    }
    for (lines, status, code) in [
        (&[][..], 401, "missing_api_key"),
        (&[("cookie", "other=KEY; keys=KEY")], 401, "missing_api_key"),
        (&[("x-trial-key", "KEY")], 401, "missing_api_key"),
        (&[("authorization", "KEY")], 401, "missing_api_key"),
        (&[("x-api-key", "trial-key-guessed")], 401, "invalid_api_key"),
        (&[("cookie", "key=with space")], 401, "invalid_api_key"),
        (&[("x-api-key", "KEY"), ("cookie", "key=other")], 400, "conflicting_api_keys"),
        (&[("x-api-key", "KEY"), ("x-api-key", "with space")], 400, "conflicting_api_keys"),
        (&[("authorization", JWT), ("x-api-key", "KEY")], 400, "conflicting_api_keys"),
    ] {
        let (found, body) = get(&service, "/", lines).await;
        assert_eq!(found, status, "{lines:?}");
        assert!(body.contains(&format!("\"{code}\"")), "{lines:?}: {body}");
    }
}

#[tokio::test]
async fn only_what_was_read_is_removed_with_its_copies() {
    let auth = TrialKeyAuthLayer::new(store(1)).credential(Header("x-api-key"));
    let service = ServiceBuilder::new().layer(auth).service(service_fn(echo));
    let lines = [("x-api-key", "KEY"), ("authorization", JWT), ("cookie", "key=1")];
    let (status, body) = get(&service, "/?a=1&copy=trial-key-manual-123", &lines).await;
    assert_eq!(status, 200);
    assert_eq!(body, format!("alice|/?a=1|authorization: {JWT}|cookie: key=1"));
    let lines = [("x-api-key", "KEY"), ("authorization", "Bearer KEY"), ("x-copy", "a KEY")];
    assert_eq!(get(&service, "/", &lines).await.1, "alice|/", "copies");
}

/// `Authorization: Key <key>`; other schemes are left to the application.
struct KeyScheme;

impl CredentialSource for KeyScheme {
    fn take(&self, headers: &mut HeaderMap) -> Result<Option<Credential>, AuthRejection> {
        let value = headers.get(AUTHORIZATION);
        let value = value.and_then(|value| value.as_bytes().strip_prefix(b"Key "));
        let Some(credential) = value.map(Credential::new) else { return Ok(None) };
        assert!(!format!("{credential:?}").contains(KEY));
        headers.remove(AUTHORIZATION);
        Ok(Some(credential))
    }
}

#[tokio::test]
async fn a_source_of_ones_own() {
    let auth = TrialKeyAuthLayer::new(store(1)).credential(KeyScheme.or(Cookie("key")));
    let service = ServiceBuilder::new().layer(auth).service(service_fn(echo));
    let (_, body) = get(&service, "/", &[("authorization", "Key KEY")]).await;
    assert_eq!(body, "alice|/");
    let (_, body) = get(&service, "/", &[("authorization", JWT), ("cookie", "key=KEY")]).await;
    assert_eq!(body, format!("alice|/|authorization: {JWT}"));
    let (status, _) = get(&service, "/", &[("authorization", "Key trial-key-other")]).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_rejection_says_how_a_key_is_sent() {
    let layer = || TrialKeyAuthLayer::new(store(1));
    for (layer, sentence) in [
        (layer(), "Send it as `Authorization: Bearer <key>`."),
        (layer().credential(Header("x-api-key").or(Bearer)), "Send it as `x-api-key: <key>`."),
        (layer().credential(Cookie("key")), "Send it in the cookie `key`."),
    ] {
        let service = ServiceBuilder::new().layer(layer).service(service_fn(echo));
        let (_, body) = get(&service, "/", &[]).await;
        assert!(body.contains(&format!("\"No API key was sent. {sentence}\"")), "{body}");
    }
}

#[tokio::test]
async fn an_optional_key_may_be_missing_but_not_wrong() {
    let store = store(1);
    let mut disabled = KeyRecord::new(KeyId::from("bob"), Limit::Unlimited);
    disabled.disabled = true;
    store.insert(&SecretKey::parse("trial-key-disabled").unwrap(), disabled).unwrap();
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()).credential(Header("x-api-key")).optional())
        .layer(DailyQuotaLayer::new(store).subject(|request| match Subject::of_key(request) {
            Subject::Unknown => Subject::Exempt,
            subject => subject,
        }))
        .service(service_fn(echo));
    for (key, expected, body) in [
        ("", 200, "|/"),
        ("", 200, "|/"),
        ("KEY", 200, "alice|/"),
        ("KEY", 429, ""),
        ("trial-key-guessed", 401, ""),
        ("no key", 401, ""),
        ("trial-key-disabled", 403, ""),
    ] {
        let (status, text) = get(&service, "/", &[("x-api-key", key)]).await;
        assert_eq!(status, expected, "{key}");
        assert!(status != 200 || text == body, "{text}");
    }
}
