//! The admin API responses what its OpenAPI document says, to requests that schemathesis makes of it.

use std::{env, fs, process::Command};

use crate::common::memory_gateway::MemoryGateway;
use crate::common::{ADMIN_TOKEN, Client, GatewayCommand, Random};
use http::Method;

/// About how many random requests are made if `SCHEMATHESIS_CASES` does not say. Examples and
/// edge cases come on top.
const CASES: u64 = 500;
/// How many requests each of `--max-examples` comes to, over all calls and phases.
const SHARES: u64 = 15;

#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_finds_nothing() {
    // Requests come from many sources (see the hooks), as each has few attempts.
    let gateway = GatewayCommand::new().env("TRUSTED_PROXIES", "127.0.0.1").arg("--demo").start();
    let cases = env::var("SCHEMATHESIS_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    finds_nothing(&gateway.url(""), cases, &[]);
}

#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_finds_nothing_over_a_store_in_memory() {
    // It has no copies to give, and schemathesis takes each 5xx for a fault.
    finds_nothing(&MemoryGateway::start().url(""), CASES, &["--exclude-operation-id", "backUp"]);
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
        .args(["--max-examples", &(cases / SHARES).max(1).to_string()])
        .args(["--seed", &seed.to_string(), "--continue-on-failure", "--no-color"])
        // A made-up second token beside the right one is rejected before anything else is tried.
        // Wrong and missing tokens are tried nevertheless, by the check `ignored_auth`.
        .args(["--generation-with-security-parameters", "false"])
        .args(["--generation-database", "none"])
        .args(more)
        .env("SCHEMATHESIS_HOOKS", hooks)
        .current_dir(&dir)
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&output.stdout);
    println!("{reported}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(reported.contains("Stateful"), "all phases have run");
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
