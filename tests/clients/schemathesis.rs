//! The admin API responds as its OpenAPI document says to requests that schemathesis generates from it.

use std::{env, fs, process::Command};

use http::Method;

use crate::common::{ADMIN_TOKEN, Client, GatewayCommand, Random, memory_gateway::MemoryGateway};

/// Approximate number of random requests without `SCHEMATHESIS_CASES`. Examples and edge cases come on
/// top.
const DEFAULT_CASES: u64 = 500;
/// Number of requests that one of `--max-examples` results in, over all calls and phases.
const REQUESTS_PER_EXAMPLE: u64 = 15;
/// Time that a request may take, in seconds: more than the default of 10, which a list of keys exceeds on a
/// busy machine.
const REQUEST_TIMEOUT: &str = "60";

#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_finds_nothing() {
    // Requests come from many sources (see the hooks), as each has few attempts.
    let gateway = GatewayCommand::new().env("TRUSTED_PROXIES", "127.0.0.1").arg("--demo").start();
    let cases =
        env::var("SCHEMATHESIS_CASES").map_or(DEFAULT_CASES, |cases| cases.parse().unwrap());
    finds_nothing(&gateway.url(""), cases, &[]);
}

#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_finds_nothing_over_a_store_in_memory() {
    // It has no backups, and schemathesis takes each 5xx for a failure.
    finds_nothing(
        &MemoryGateway::start().url(""),
        DEFAULT_CASES,
        &["--exclude-operation-id", "backUp"],
    );
}

fn finds_nothing(base_url: &str, cases: u64, more: &[&str]) {
    let seed = Random::seeded("schemathesis").below(u32::MAX.into());
    let schemathesis = crate::common::installed("schemathesis/bin/schemathesis");
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/scripts/schemathesis_hooks.py");
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(schemathesis.unwrap_or_else(|| "schemathesis".into()))
        .arg("run")
        .arg(format!("{base_url}/admin/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")])
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"])
        .args(["--max-examples", &(cases / REQUESTS_PER_EXAMPLE).max(1).to_string()])
        .args(["--request-timeout", REQUEST_TIMEOUT])
        .args(["--seed", &seed.to_string(), "--continue-on-failure", "--no-color"])
        // With a generated second token every request would be rejected. Wrong and missing tokens are
        // tested nevertheless, by the check `ignored_auth`.
        .args(["--generation-with-security-parameters", "false"])
        .args(["--generation-database", "none"])
        .args(more)
        .env("SCHEMATHESIS_HOOKS", hooks)
        .current_dir(&dir)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(report.contains("Stateful"), "a phase is missing");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs openapi-spec-validator"]
async fn the_document_is_valid() {
    let gateway = GatewayCommand::new().arg("--demo").start();
    let url = gateway.url("/admin/openapi.json");
    let document = Client::http1().send(Method::GET, &url, &[], "").await;
    let file = gateway.dir().join("openapi.json");
    fs::write(&file, document.body).unwrap();
    let python = crate::common::installed("schemathesis/bin/python");
    let output = Command::new(python.unwrap_or_else(|| "python3".into()))
        .args(["-m", "openapi_spec_validator", "--schema", "3.1"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
