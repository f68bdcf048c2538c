//! What `gateway` does beside serving: each command's lines, exit codes and promises.

mod common;

use std::{
    net::TcpListener,
    process::Output,
    time::{Duration, Instant},
};

use common::{Gateway, GatewayCommand, Upstream, full};

/// Runs a command of the gateway with these settings.
fn run(settings: &GatewayCommand, arguments: &str) -> Output {
    arguments.split(' ').fold(settings.clone(), |command, word| command.arg(word)).output()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_healthcheck(output: &Output, code: i32, line: &str) {
    let printed = stdout(output);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(printed.contains(line), "{line:?} is not in {printed:?}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// A server that answers `status` and `body` to everything, and its URL.
async fn answers(status: u16, body: &'static str) -> (Upstream, String) {
    let upstream = Upstream::start(move |_| {
        let mut response = http::Response::new(full(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        response
    })
    .await;
    let url = format!("http://{}", upstream.address());
    (upstream, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_finds_the_gateway_by_the_settings_that_started_it() {
    let gateway = Gateway::demo();
    let port = gateway.address().port().to_string();
    let here = GatewayCommand::bare();
    for settings in [
        here.clone().env("PORT", &port),
        here.clone().env("PORT", &port).env("HOST", "0.0.0.0"),
        here.clone().env("PORT", &port).env("HOST", "localhost"),
        here.clone().env("PORT", "1").arg("--port").arg(&port),
    ] {
        assert_healthcheck(&run(&settings, "healthcheck"), 0, "/healthz: ok, version ");
        assert_healthcheck(&run(&settings, "healthcheck --ready"), 0, "/readyz: ok");
    }
    let output = run(&here, &format!("healthcheck --port {port}"));
    assert_healthcheck(&output, 0, "/healthz: ok");
    let output = run(&here, &format!("healthcheck --url http://127.0.0.1:{port}/"));
    assert_healthcheck(&output, 0, "/healthz: ok");
    std::fs::write(here.dir().join(".env"), format!("PORT={port}\n")).unwrap();
    assert_healthcheck(&run(&here, "healthcheck"), 0, "/healthz: ok");
    assert!(!gateway.printed().contains("/healthz"), "{}", gateway.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_looks_at_no_setting_but_the_address() {
    let gateway = Gateway::demo();
    let port = gateway.address().port().to_string();
    let settings = GatewayCommand::bare()
        .env("ADMIN_TOKEN", "short")
        .env("ADMIN_TOKEN_FILE", "/not/there")
        .env("UPSTREAM_BASE_URL", "\"quoted\"")
        .env("DATABASE_URL", "postgres://elsewhere")
        .env("DAILY_REQ_LIMIT", "many");
    let dir = settings.dir().to_owned();
    let dot_env = format!("PORT={port}\nAMDIN_TOKEN=x\nADMIN_TOKEN_FILE=${{X}}\n= no line\n");
    std::fs::write(dir.join(".env"), dot_env).unwrap();
    assert_healthcheck(&run(&settings, "healthcheck"), 0, "ok");
    let left: Vec<_> = dir.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, [".env"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_says_what_is_wrong() {
    let settings = GatewayCommand::bare();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let output = run(&settings, &format!("healthcheck --port {free}"));
    assert_healthcheck(&output, 1, &format!("nothing listens on 127.0.0.1:{free}"));

    let check = |url: &str| run(&settings, &format!("healthcheck --timeout 1 --url {url}"));
    let dead = r#"{"ok":false,"reason":"a thread of the store has ended: restart the gateway"}"#;
    let (_upstream, url) = answers(503, dead).await;
    assert_healthcheck(&check(&url), 1, "a thread of the store has ended: restart the gateway");
    for (status, body) in [(200, "<html>"), (404, "{}"), (200, "{}"), (302, "")] {
        let (_upstream, url) = answers(status, body).await;
        assert_healthcheck(&check(&url), 1, &format!("answers {status}: that is no gateway"));
    }

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    assert_healthcheck(&check(&url), 1, "does not answer within 1 s");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_healthcheck(&check("ftp://x"), 1, "--url: expected an address such as");
    assert_healthcheck(&run(&settings, "healthcheck --port 0"), 1, "PORT is 0");
    assert_healthcheck(&run(&settings, "healthcheck --host x.example"), 1, "HOST: expected an IP");
}
