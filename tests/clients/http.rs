//! The HTTP clients that SDKs are made of lose no response to a request whose body nobody reads.

use std::process::Command;

use crate::common::{Gateway, GatewayCommand, Upstream, Wire, json_response};
use serde_json::{Value, json};

/// Runs a script to its end: how often each status came.
async fn statuses(mut script: Command, client: &str) -> Value {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = used_up(&gateway).await;
    script.arg(client).env("BASE_URL", gateway.url("/v1")).env("KEY", key);
    let output = tokio::task::spawn_blocking(move || script.output().unwrap()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn used_up(gateway: &Gateway) -> String {
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "{}").await.unwrap().0, 200);
    key
}

#[tokio::test]
#[ignore = "needs Python's aiohttp"]
async fn clients_of_python_report_a_used_up_key() {
    for client in ["http.client", "aiohttp"] {
        let script = crate::common::python("rejected.py");
        assert_eq!(statuses(script, client).await, json!({"429": 200}), "{client}");
    }
}

#[tokio::test]
#[ignore = "needs Node's axios and undici"]
async fn clients_of_node_report_a_used_up_key() {
    for client in ["axios", "undici", "fetch"] {
        let script = crate::common::node("rejected.cjs");
        assert_eq!(statuses(script, client).await, json!({"429": 200}), "{client}");
    }
}
