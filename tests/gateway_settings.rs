//! Every bad value stops the start with one line that names the variable and what it takes, and a
//! good start prints what the operator needs.

mod common;

use common::{ADMIN_TOKEN, Client, Gateway, GatewayCommand};
use serde_json::json;

/// Variables, a value each that is refused, and what the line says.
const BAD: &[(&str, &str, &str)] = &[
    ("HOST", "example.com", "an IP address or localhost"),
    ("HOST", "999.1.1.1", "an IP address or localhost"),
    ("PORT", "abc", "a number from 0 to 65535, got \"abc\""),
    ("PORT", "65536", "a number from 0 to 65535, got \"65536\""),
    ("PORT", "-1", "a number from 0 to 65535"),
    ("ADMIN_TOKEN", "", "at least 16 visible"),
    ("ADMIN_TOKEN", "  ", "at least 16 visible"),
    ("ADMIN_TOKEN", "short-token-123", "at least 16 visible"),
    ("ADMIN_TOKEN", "long-enough-token-1,short", "at least 16 visible"),
    ("ADMIN_TOKEN", "long-enough-token-1,", "at least 16 visible"),
    ("ADMIN_TOKEN", "long enough but with spaces", "at least 16 visible"),
    ("ADMIN_TOKEN", "your-strong-admin-token-here", "placeholder"),
    ("ADMIN_TOKEN", "changeme-changeme-changeme", "placeholder"),
    ("ADMIN_TOKEN_FILE", "/no/such/file", "file"),
    ("UPSTREAM_BASE_URL", "api.deepseek.com/v1", "http:// or https://"),
    ("UPSTREAM_BASE_URL", "ftp://api.deepseek.com/v1", "http:// or https://"),
    ("UPSTREAM_BASE_URL", "https://", "http:// or https://"),
    ("DEEPSEEK_BASE_URL", "nonsense", "http:// or https://"),
    ("UPSTREAM_API_KEY", "sk with spaces", "visible ASCII"),
    ("DEEPSEEK_API_KEY", "sk-密钥", "visible ASCII"),
    ("UPSTREAM_API_KEY_FILE", "/no/such/file", "file"),
    ("DEEPSEEK_API_KEY_FILE", "/no/such/file", "file"),
    ("STREAM_USAGE", "always", "off or ask"),
    ("STREAM_USAGE", "Ask", "off or ask"),
    ("DATABASE_URL", "postgres://user:pw@host/db", "not built yet"),
    ("DATABASE_URL", "mysql://host/db", "SQLite"),
    ("DATABASE_URL", "sqlite::memory:", "SQLite"),
    ("DATABASE_URL", "/no/such/directory/quota.db", ""),
    ("SQLITE_PATH", "sqlite:", "SQLite"),
    ("REDIS_URL", "redis://127.0.0.1", "not built yet"),
    ("DAILY_REQ_LIMIT", "many", "from 0 (unlimited) to 1000000000"),
    ("DAILY_REQ_LIMIT", "-1", "from 0 (unlimited) to 1000000000"),
    ("DAILY_REQ_LIMIT", "1000000001", "from 0 (unlimited) to 1000000000"),
    ("DAILY_REQ_LIMIT", "1.5", "from 0 (unlimited) to 1000000000"),
    ("QUOTA_TIMEZONE", "Mars/Olympus", "IANA"),
    ("DURABILITY", "eternal", "process or power"),
    ("USAGE_RETENTION_DAYS", "-1", "a number from 0 to 3650"),
    ("ON_CLIENT_GONE", "wait", "abort or drain"),
    ("ADMIN_ALLOW", "10.0.0.0/99", "networks"),
    ("TRUSTED_PROXIES", "10.0.0.1,proxy", "networks"),
    ("AUDIT_READS", "yes", "off or on"),
    ("PUBLIC_URL", "https://keys.example.com:99999", "a host"),
    ("PUBLIC_URL", "https://keys.example.com/#x", "a host"),
    ("PUBLIC_URL", "wss://keys.example.com", "a host"),
    ("GATEWAY_NAME", "two\nlines", "no line break"),
    ("CONTACT", "a\tb", "no line break"),
    ("NOTICE", "\u{7f}", "no line break"),
    ("CORS_ALLOW_ORIGINS", "app.example.com", "origins such as https://"),
    ("CORS_ALLOW_ORIGINS", "https://app.example.com/path", "with no path"),
    ("CORS_ALLOW_ORIGINS", "https://a.example,*", "expected *"),
    ("CORS_ALLOW_ORIGINS", "https://*.example.com", "expected *"),
    ("CORS_ALLOW_ORIGINS", "null", "origins such as https://"),
    ("MAX_IN_FLIGHT_PER_KEY", "few", "a number"),
    ("QUOTA_EXHAUSTED_STATUS", "503", "429 or 402"),
    ("MAX_BODY_BYTES", "big", "a size"),
    ("MAX_BODY_BYTES", "0", "a size"),
    ("MAX_BODY_BYTES", "10 furlongs", "a size"),
    ("UPSTREAM_CONNECT_TIMEOUT", "soon", "a time"),
    ("UPSTREAM_CONNECT_TIMEOUT", "0", "a time"),
    ("UPSTREAM_HEAD_TIMEOUT", "5 weeks", "a time"),
    ("UPSTREAM_IDLE_TIMEOUT", "-5s", "a time"),
    ("CLIENT_TIMEOUT", "0", "a time"),
    ("CLIENT_IDLE_TIMEOUT", "0", "a time"),
    ("MAX_CONNECTIONS", "-1", "a number from 0"),
    ("WORKER_THREADS", "1025", "a number from 0"),
    ("SHUTDOWN_GRACE", "99999999999999999999s", "a time"),
    ("METRICS_TOKEN", "short", "at least 16 visible"),
    ("RUST_LOG", "tower_quota=loud", "tracing directives"),
    ("LOG_FORMAT", "xml", "text or json"),
];

#[test]
fn a_bad_value_stops_the_start_with_one_line_that_names_it() {
    for (name, value, says) in BAD {
        let mut command = GatewayCommand::bare().env("PORT", "0");
        if !name.starts_with("ADMIN_TOKEN") {
            command = command.env("ADMIN_TOKEN", ADMIN_TOKEN);
        }
        let output = command.env(name, *value).output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{name}={value}: {stderr}");
        assert!(stderr.starts_with(&format!("{name}: ")), "{name}={value}: {stderr}");
        assert!(stderr.contains(says), "{name}={value}: {stderr}");
        assert!(output.stdout.is_empty(), "{name}={value} printed something");
    }
}

#[test]
fn a_refused_secret_is_not_shown() {
    for (name, value) in [
        ("ADMIN_TOKEN", "s3cr3t"),
        ("UPSTREAM_API_KEY", "sk s3cr3t"),
        ("METRICS_TOKEN", "s3cr3t"),
        ("DATABASE_URL", "postgres://user:s3cr3t@host/db"),
        ("UPSTREAM_BASE_URL", "https://user:s3cr3t@host/v1"),
    ] {
        let output = GatewayCommand::new().env(name, value).output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("{name}: ")), "{stderr}");
        assert!(!stderr.contains("s3cr3t"), "{stderr}");
    }
}

#[test]
fn a_bad_flag_is_refused_like_its_variable() {
    let output = GatewayCommand::new().arg("--port=abc").output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr, "PORT: expected a number from 0 to 65535, got \"abc\"\n");
}

#[test]
fn a_secret_stands_in_its_variable_or_in_a_file_not_in_both() {
    let command = GatewayCommand::new();
    let file = command.dir().join("token");
    std::fs::write(&file, "another-long-token-123\n").unwrap();
    let file = file.to_str().unwrap();
    let output = command.env("ADMIN_TOKEN_FILE", file).output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("ADMIN_TOKEN_FILE: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[tokio::test]
async fn a_token_file_opens_the_admin_api() {
    let command = GatewayCommand::bare().env("PORT", "0").arg("--demo");
    let file = command.dir().join("token");
    std::fs::write(&file, format!("another-long-token-123,{ADMIN_TOKEN}\n")).unwrap();
    let gateway = command.env("ADMIN_TOKEN_FILE", file.to_str().unwrap()).start();
    gateway.create_key(json!({})).await;
    assert!(!gateway.printed().contains(ADMIN_TOKEN));
}

#[test]
fn a_line_of_dot_env_sets_what_the_environment_does_not() {
    let command = GatewayCommand::bare().env("PORT", "0");
    std::fs::write(command.dir().join(".env"), "PORT=abc\nDURABILITY=eternal\n").unwrap();
    let stderr = String::from_utf8(command.output().stderr).unwrap();
    assert!(stderr.starts_with("DURABILITY: "), "{stderr}");
}

#[test]
fn a_broken_dot_env_is_refused_without_showing_it() {
    let command = GatewayCommand::new();
    std::fs::write(command.dir().join(".env"), "UPSTREAM_API_KEY='s3cr3t\n").unwrap();
    let output = command.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with(".env: "), "{stderr}");
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
}

#[test]
fn help_lists_every_variable_and_shows_no_secret() {
    let command = GatewayCommand::new().env("UPSTREAM_API_KEY", "sk-s3cr3t").arg("--help");
    let output = command.output();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for (name, ..) in BAD {
        assert!(help.contains(name), "{name} is missing:\n{help}");
    }
    assert!(!help.contains("s3cr3t") && !help.contains(ADMIN_TOKEN));
}

#[tokio::test]
async fn a_start_with_no_setting_prints_all_that_is_needed() {
    let gateway = GatewayCommand::bare().env("PORT", "0").start();
    let address = gateway.url("");
    let printed = settled(&gateway, "daily_limit").await;
    for needed in [
        address.as_str(),
        "https://api.deepseek.com/v1",
        "quota.db",
        "UTC",
        "UPSTREAM_API_KEY",
        "/admin/keys",
    ] {
        assert!(printed.contains(needed), "{needed} is missing:\n{printed}");
    }
    let token = printed.split("Bearer ").nth(1).and_then(|rest| rest.split('\'').next());
    let token = token.unwrap();
    let answer = Client::http1().post_as(token, &gateway.url("/admin/keys"), &json!({})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["daily_limit"], 200);
}

#[tokio::test]
async fn a_start_with_settings_prints_them_and_no_secret() {
    let gateway = GatewayCommand::new()
        .env("HOST", "localhost")
        .env("UPSTREAM_BASE_URL", "")
        .env("DEEPSEEK_BASE_URL", "http://127.0.0.1:9/v1/")
        .env("DEEPSEEK_API_KEY", "sk-s3cr3t")
        .env("STREAM_USAGE", "ask")
        .env("SQLITE_PATH", "sqlite://other.db")
        .env("DAILY_REQ_LIMIT", "7")
        .env("QUOTA_TIMEZONE", "Asia/Shanghai")
        .env("DURABILITY", "power")
        .env("ADMIN_ALLOW", "127.0.0.1, 10.0.0.0/8, ::1/128")
        .env("TRUSTED_PROXIES", "127.0.0.1")
        .env("MAX_BODY_BYTES", "1 MiB")
        .env("UPSTREAM_CONNECT_TIMEOUT", "500ms")
        .env("UPSTREAM_HEAD_TIMEOUT", "2m")
        .env("SHUTDOWN_GRACE", "0")
        .env("METRICS_TOKEN", "metrics-token-0123456789")
        .env("LOG_FORMAT", "json")
        .start();
    let printed = settled(&gateway, "Asia/Shanghai").await;
    for needed in ["http://127.0.0.1:9/v1", "other.db", "Asia/Shanghai"] {
        assert!(printed.contains(needed), "{needed} is missing:\n{printed}");
    }
    for secret in [ADMIN_TOKEN, "s3cr3t", "metrics-token", "curl"] {
        assert!(!printed.contains(secret), "{secret} is shown:\n{printed}");
    }
    assert!(gateway.dir().join("other.db").exists());
    let created = gateway.admin(http::Method::POST, "/admin/keys", &json!(null)).await;
    assert_eq!(created["daily_limit"], 7);
}

/// What is printed once it holds `text`.
async fn settled(gateway: &Gateway, text: &str) -> String {
    common::eventually(text, || async { gateway.printed().contains(text) }).await;
    gateway.printed()
}
