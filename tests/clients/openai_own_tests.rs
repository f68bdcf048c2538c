//! openai-python's own API tests (of its source distribution, which `.ci/nightly` installs) pass
//! through the gateway as they pass without it, and the upstream sees the same requests.

use std::{path::Path, process::Command};

use crate::common::{Call, GatewayCommand, StubBody, Upstream, full};
use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use serde_json::json;

/// Gives the response that the request names.
fn as_requested(request: Request<Bytes>) -> Response<StubBody> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let content_type = header("x-test-type").unwrap_or("application/json");
    let body = match content_type {
        "text/event-stream" => "data: [DONE]\n\n",
        // The gateway requests the list of models itself.
        _ => header("x-test-response").unwrap_or(r#"{"object":"list","data":[]}"#),
    };
    Response::builder().header(CONTENT_TYPE, content_type).body(full(body.to_owned())).unwrap()
}

/// How the tests ended: one line each.
fn run(tests: &Path, base_url: &str, key: &str) -> Vec<String> {
    let python = crate::common::installed("python/bin/python").expect("what .ci/nightly installs");
    let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/scripts");
    let output = Command::new(python)
        .args(["-m", "pytest", "-q", "-rA", "--tb=line", "-p", "respond_by_type"])
        .args(["-p", "no:cacheprovider", "-o", "addopts=", "--show-capture=no", "-n", "2"])
        // Others mock the wire.
        .args(["-m", "not respx"])
        .arg("tests/api_resources")
        .current_dir(tests)
        .env("PYTHONPATH", plugins)
        .env("TEST_API_BASE_URL", base_url)
        .env("KEY", key)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let ends = ["PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL", "XPASS"];
    let is_end = |line: &&str| ends.iter().any(|end| line.starts_with(end));
    // A failure's reason may name the address.
    let cut = |line: &str| line.split(" - ").next().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = printed.lines().filter(is_end).map(cut).collect();
    lines.sort_unstable();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(lines.len() > 1000, "{} tests:\n{printed}\n{stderr}", lines.len());
    lines
}

/// What of a request must be the same on both ways.
fn seen(call: &Call) -> (String, Bytes) {
    let content_type = call.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    // Their boundaries are random.
    let is_multipart = content_type.is_some_and(|value| value.starts_with(b"multipart/"));
    let body = if is_multipart { Bytes::new() } else { call.body.clone() };
    (format!("{} {}", call.method, call.uri), body)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs openai-python's own tests (.ci/nightly)"]
async fn nightly_pythons_api_tests_pass_through_the_gateway_as_without_it() {
    let tests = crate::common::installed("openai-python").expect("what .ci/nightly installs");
    let upstream = Upstream::start(as_requested).await;
    let gateway = GatewayCommand::before(upstream.base_url()).env("STREAM_USAGE", "off").start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let through = run(&tests, &gateway.url("/v1"), &key);
    let through_calls = upstream.calls();
    let direct = run(&tests, &upstream.base_url(), &key);
    let direct_calls = upstream.calls().split_off(through_calls.len());

    let passed = direct.iter().filter(|line| line.starts_with("PASSED")).count();
    println!("{passed} of {} pass both ways", direct.len());
    let differ: Vec<_> = through.iter().filter(|line| !direct.contains(line)).take(20).collect();
    assert!(through == direct, "of {} and {}: {differ:#?}", through.len(), direct.len());
    assert_eq!(passed, direct.len(), "{direct:#?}");
    let [through, direct] = [&through_calls, &direct_calls].map(|calls| {
        // The list of models comes from the gateway's cache.
        let calls = calls.iter().filter(|call| call.uri != "/v1/models");
        let mut seen: Vec<_> = calls.map(seen).collect();
        seen.sort_unstable();
        seen
    });
    assert!(through == direct, "{} and {} requests", through.len(), direct.len());
}
