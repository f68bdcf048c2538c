//! What is forgiven around a key, and what a message says of a header that holds none.

use crate::common::{Client, CollectedResponse, Gateway};
use http::Method;
use serde_json::json;

async fn send(gateway: &Gateway, lines: &[(&str, String)]) -> CollectedResponse {
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, &**value)).collect();
    Client::http1().send(Method::GET, &gateway.url("/usage"), &lines, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn white_space_quotes_and_brackets_around_a_key_are_forgiven() {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({})).await;
    for wrapped in [
        format!("Bearer {key}"),
        format!("bearer   {key}  "),
        format!("Bearer\t{key}"),
        format!("Bearer \"{key}\""),
        format!("Bearer '{key}'"),
        format!("Bearer `{key}`"),
        format!("Bearer <{key}>"),
        format!("Bearer [{key}]"),
        format!("Bearer {{{key}}}"),
        format!("Bearer “{key}”"),
        format!("Bearer \" <{key}> \""),
        format!("Bearer \u{a0}{key}\u{3000}"),
        format!("Bearer\u{a0}{key}"),
        format!("\"Bearer {key}\""),
        format!("<Bearer {key}>"),
    ] {
        let response = send(&gateway, &[("authorization", wrapped.clone())]).await;
        assert_eq!(response.status, 200, "{wrapped} {response:?}");
    }
    for name in ["x-api-key", "x-trial-key"] {
        assert_eq!(send(&gateway, &[(name, format!(" \"{key}\" "))]).await.status, 200);
    }
    let twice = [("authorization", format!("Bearer \"{key}\"")), ("x-api-key", key.clone())];
    assert_eq!(send(&gateway, &twice).await.status, 200, "one credential in two forms");
    let basic = [("authorization", "Basic dTpw".to_owned()), ("x-api-key", key.clone())];
    assert_eq!(send(&gateway, &basic).await.status, 200, "another scheme is somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_says_what_is_wrong_with_the_header_and_never_repeats_it() {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({})).await;
    let full_width: String =
        key.chars().map(|letter| char::from_u32(letter as u32 + 0xfee0).unwrap()).collect();
    let id = key.rsplit('-').next().unwrap();
    let (missing, invalid) = ("missing_api_key", "invalid_api_key");
    for (name, value, code, says) in [
        ("authorization", key.clone(), missing, "has no scheme"),
        ("authorization", format!("Token {key}"), missing, "another scheme than `Bearer`"),
        ("authorization", format!("Basic {key}"), missing, "another scheme than `Bearer`"),
        ("authorization", format!("Bearer: {key}"), missing, "another scheme than `Bearer`"),
        ("authorization", "Bearer".to_owned(), missing, "no key behind it"),
        ("authorization", "Bearer \"\"".to_owned(), missing, "no key behind it"),
        ("authorization", " ".to_owned(), missing, "No API key was sent"),
        ("authorization", format!("Bearer Bearer {key}"), invalid, "begins with `Bearer`"),
        ("authorization", format!("Bearer bearer\u{a0}{key}"), invalid, "begins with `Bearer`"),
        ("x-api-key", format!("Bearer {key}"), invalid, "begins with `Bearer`"),
        ("authorization", format!("Bearer {key}\u{200b}"), invalid, "invisible character"),
        ("authorization", format!("Bearer \u{feff}{key}"), invalid, "invisible character"),
        ("authorization", format!("Bearer {full_width}"), invalid, "full-width"),
        ("authorization", format!("Bearer {key} {key}"), invalid, "white space"),
        ("authorization", "Bearer trial-key-…x7Qp".to_owned(), invalid, "masked form"),
        ("authorization", "Bearer 你的TRIAL_KEY".to_owned(), invalid, "no visible ASCII"),
        ("authorization", format!("Bearer {}", key.repeat(10)), invalid, "more than 256"),
        ("authorization", "Bearer trial-key-nobody".to_owned(), invalid, "unknown or was deleted"),
    ] {
        let rejected = send(&gateway, &[(name, value.clone())]).await;
        let message = rejected.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!((rejected.status.as_u16(), rejected.code().as_str()), (401, code), "{value}");
        assert!(message.contains(says), "{value}: {message}");
        assert!(!message.contains(id) && !message.contains("TRIAL"), "{message}");
        let challenge = rejected.header("www-authenticate");
        assert_eq!(challenge.contains("invalid_token"), code == invalid, "{value}: {challenge}");
    }
    let other = [("authorization", "Bearer \"a\"".to_owned()), ("x-api-key", key.clone())];
    assert_eq!(send(&gateway, &other).await.code(), "conflicting_api_keys");
    assert!(!gateway.printed().contains(id), "{}", gateway.printed());
}
