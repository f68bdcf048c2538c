//! A client that requests keys and never gets the response gets the same keys when it requests them again.

use std::{collections::HashSet, time::Duration};

use crate::common::{ADMIN_TOKEN, Client, Gateway, GatewayCommand};
use http::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const TRIES: u64 = 30;

/// Sends a request, and leaves a little later.
async fn lose(gateway: &Gateway, head: &str, body: &str, after: Duration) {
    let mut lost = TcpStream::connect(gateway.address()).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nhost: gateway\r\ncontent-length: {length}\r\n\r\n{body}");
    lost.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_response_was_lost_are_shown_when_requested_again() {
    let gateway = GatewayCommand::new().arg("--demo").env("RUST_LOG", "warn").start();
    let (client, url) = (Client::http1(), gateway.url("/admin/keys"));
    let (mut keys, mut replayed) = (HashSet::new(), 0);
    for n in 0..TRIES {
        let (name, body) = (format!("lost-{n}"), format!(r#"{{"label":"lost {n}"}}"#));
        let head = format!(
            "POST /admin/keys HTTP/1.1\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\
             idempotency-key: {name}"
        );
        lose(&gateway, &head, &body, Duration::from_micros(n * 100)).await;

        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", &*bearer), ("idempotency-key", &*name)];
        let response = loop {
            let response = client.send(Method::POST, &url, &headers, body.clone()).await;
            if response.code() != "request_in_progress" {
                break response;
            }
        };
        assert_eq!(response.status, 201, "{response:?}");
        replayed += u64::from(response.headers.contains_key("idempotency-replayed"));
        let made = response.json();
        assert_eq!(made["label"], json!(format!("lost {n}")));
        assert!(keys.insert(made["key"].as_str().unwrap().to_owned()));
        assert_eq!(
            client.get_as(made["key"].as_str().unwrap(), &gateway.url("/usage")).await.status,
            200
        );
    }
    let listed = gateway.admin(Method::GET, "/admin/keys?limit=1000", &Value::Null).await;
    assert_eq!(listed["count"], TRIES, "nothing was issued twice");
    assert!(replayed > TRIES / 2, "only {replayed} of {TRIES} responses were lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_claim_response_is_repeated_for_the_same_client_only() {
    let gateway = GatewayCommand::new().arg("--demo").env("RUST_LOG", "warn").start();
    let (client, url) = (Client::http1(), gateway.url("/claim"));
    for n in 0..TRIES {
        let made = gateway.admin(Method::POST, "/admin/keys", &json!({})).await;
        let path = format!("/admin/keys/{}/claim", made["id"].as_str().unwrap());
        let link = gateway.admin(Method::POST, &path, &json!({})).await;
        let (_, token) = link["url"].as_str().unwrap().split_once('#').unwrap();
        let body = json!({"token": token, "open": true}).to_string();
        let head = format!("POST /claim HTTP/1.1\r\nidempotency-key: mine-{n}");
        lose(&gateway, &head, &body, Duration::from_micros(n * 100)).await;

        let ask = async |name: &str| {
            loop {
                let headers = [("idempotency-key", name)];
                let response = client.send(Method::POST, &url, &headers, body.clone()).await;
                if response.code() != "request_in_progress" {
                    return response;
                }
            }
        };
        let given = ask(&format!("mine-{n}")).await;
        assert_eq!(given.status, 200, "{given:?}");
        let key = given.json()["key"].as_str().unwrap().to_owned();
        assert_eq!(client.get_as(&key, &gateway.url("/usage")).await.status, 200);
        assert_eq!(ask("another").await.code(), "claim_opened");
        assert_eq!(ask(&format!("mine-{n}")).await.body, given.body);
    }
}
