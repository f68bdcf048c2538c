//! An invalid value stops the start with one line that names the variable and the accepted values, and a
//! successful start prints what the operator needs.

use crate::common::{ADMIN_TOKEN, Client, Gateway, GatewayCommand};
use serde_json::json;

/// Variables, an invalid value of each, and part of the error.
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
    (
        "UPSTREAM_BASE_URL",
        "https://a.example/v1/chat/completions",
        "themselves: https://a.example/v1",
    ),
    ("UPSTREAM_BASE_URL", "https://a.example/v1/models/", "themselves: https://a.example/v1"),
    ("ADMIN_TOKEN", "\"correct-horse-battery-staple\"", "quotes around it"),
    ("UPSTREAM_API_KEY", "'sk-0123456789'", "quotes around it"),
    ("UPSTREAM_BASE_URL", "“https://a.example/v1”", "quotes around it"),
    ("PORT", "'8787'", "quotes around it"),
    ("UPSTREAM_API_KEY", "${DEEPSEEK_KEY}", "nothing has expanded"),
    ("ADMIN_TOKEN", "prefix-${SECRET:-none}-suffix", "nothing has expanded"),
    ("DATABASE_URL", "${HOME}/quota.db", "nothing has expanded"),
    ("DEEPSEEK_BASE_URL", "nonsense", "http:// or https://"),
    ("UPSTREAM_API_KEY", "sk with spaces", "visible ASCII"),
    ("DEEPSEEK_API_KEY", "sk-密钥", "visible ASCII"),
    ("UPSTREAM_API_KEY_FILE", "/no/such/file", "file"),
    ("DEEPSEEK_API_KEY_FILE", "/no/such/file", "file"),
    ("UPSTREAM_CA_FILE", "/no/such/file", "a PEM file"),
    ("UPSTREAM_CA_FILE", "/dev/null", "there is none"),
    ("UPSTREAM_PROXY", "socks5://proxy:1080", "takes CONNECT"),
    ("HTTPS_PROXY", "https://proxy:3128", "takes CONNECT"),
    ("STREAM_USAGE", "always", "off or ask"),
    ("STREAM_USAGE", "Ask", "off or ask"),
    ("DATABASE_URL", "postgres://", "it names no host"),
    ("DATABASE_URL", "postgresql://user@host:port/db", "postgres://user@host:5432/database"),
    ("DATABASE_URL", "postgres://user:p@ss@host/db", "write an @ in a name or password as %40"),
    ("DATABASE_URL", "postgres://host/db?sslmode=prefer", "sslmode=require"),
    ("DATABASE_URL", "postgres://host/db?sslrootcert=/no/such/ca.pem", "/no/such/ca.pem"),
    ("DATABASE_PASSWORD", "two\nlines", "in one line"),
    ("DATABASE_PASSWORD_FILE", "/no/such/file", "file"),
    ("JOURNAL_PATH", "/var/lib/", "a directory and the beginning of file names"),
    ("JOURNAL_ACCEPT_VOLATILE", "on", "false or true"),
    ("DATABASE_URL", "mysql://host/db", "SQLite"),
    ("DATABASE_URL", "sqlite::memory:", "SQLite"),
    ("DATABASE_URL", "/no/such/directory/quota.db", ""),
    ("SQLITE_PATH", "sqlite:", "SQLite"),
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
    ("UPSTREAM_MAX_IN_FLIGHT", "-1", "a number from 0 (unlimited) to 4294967295"),
    ("UPSTREAM_WAIT_TIMEOUT", "0", "a time"),
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
fn an_invalid_value_stops_the_start_with_one_line_that_names_it() {
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
fn a_rejected_secret_is_not_shown() {
    for (name, value) in [
        ("ADMIN_TOKEN", "s3cr3t"),
        ("UPSTREAM_API_KEY", "sk s3cr3t"),
        ("METRICS_TOKEN", "s3cr3t"),
        ("DATABASE_URL", "postgres://user:s3cr3t@host:port/db"),
        ("DATABASE_PASSWORD", "s3cr3t\nsecond line"),
        ("UPSTREAM_BASE_URL", "https://user:s3cr3t@host/v1"),
    ] {
        let output = GatewayCommand::new().env(name, value).output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("{name}: ")), "{stderr}");
        assert!(!stderr.contains("s3cr3t"), "{stderr}");
    }
}

#[test]
fn an_invalid_flag_is_rejected_like_its_variable() {
    let output = GatewayCommand::new().arg("--port=abc").output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr, "PORT: expected a number from 0 to 65535, got \"abc\"\n");
}

#[test]
fn a_secret_is_in_its_variable_or_in_a_file_but_not_in_both() {
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
fn a_malformed_dot_env_is_rejected_without_showing_it() {
    let command = GatewayCommand::new();
    std::fs::write(command.dir().join(".env"), "UPSTREAM_API_KEY='s3cr3t\n").unwrap();
    let output = command.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with(".env: "), "{stderr}");
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
}

#[test]
fn an_invalid_line_of_dot_env_is_named_by_its_number() {
    for (text, number) in [
        ("GATEWAY_NAME=two words\n", 1),
        ("# first\r\n\r\nPORT=0\r\nGATEWAY_NAME=two words # s3cr3t\r\n", 4),
        ("A=1\nA\n", 2),
        ("PORT=0\nUPSTREAM_API_KEY='s3cr3t\nDOMAIN=a\n", 2),
    ] {
        let command = GatewayCommand::bare();
        std::fs::write(command.dir().join(".env"), text).unwrap();
        let stderr = String::from_utf8(command.output().stderr).unwrap();
        let expected = format!(".env: line {number}: expected NAME=value; ");
        assert!(stderr.starts_with(&expected), "{text:?}: {stderr}");
        assert!(stderr.contains("single quotes") && !stderr.contains("s3cr3t"), "{stderr}");
    }
}

/// As editors on Windows write it.
#[test]
fn a_dot_env_may_begin_with_a_byte_order_mark_and_end_its_lines_with_crlf() {
    let command = GatewayCommand::bare();
    std::fs::write(command.dir().join(".env"), "\u{feff}DURABILITY=eternal\r\nPORT=0\r\n").unwrap();
    let stderr = String::from_utf8(command.output().stderr).unwrap();
    assert!(stderr.starts_with("DURABILITY: "), "{stderr}");
}

#[test]
fn the_error_of_an_unreadable_dot_env_is_not_that_of_a_malformed_one() {
    let command = GatewayCommand::new();
    std::fs::create_dir(command.dir().join(".env")).unwrap();
    let output = command.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with(".env: cannot be read: "), "{stderr}");
}

#[test]
fn a_misspelled_name_in_dot_env_is_rejected_with_the_setting() {
    for (line, setting) in [
        ("ADMIN_TOKENS=s3cr3t-s3cr3t-s3cr3t", "ADMIN_TOKEN"),
        ("DEEPSEEK_APIKEY=s3cr3t", "DEEPSEEK_API_KEY"),
        ("quota_timezone=UTC", "QUOTA_TIMEZONE"),
    ] {
        let command = GatewayCommand::new();
        let lines = format!("COMPOSE_PROJECT_NAME=keys\nOPENAI_API_KEY=sk\n{line}\n");
        std::fs::write(command.dir().join(".env"), lines).unwrap();
        let output = command.output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let name = line.split('=').next().unwrap();
        let expected = format!(".env: {name} is no setting; did you mean {setting}?\n");
        assert_eq!((output.status.code(), stderr), (Some(2), expected));
    }
}

#[test]
fn names_of_other_programs_in_dot_env_are_ignored() {
    let command = GatewayCommand::new().arg("--demo");
    let lines = "COMPOSE_PROJECT_NAME=keys\nOPENAI_API_KEY=sk\nREDIS_URL=redis://x\nPATH_TO=1\n";
    std::fs::write(command.dir().join(".env"), lines).unwrap();
    command.start();
}

#[test]
#[ignore = "needs root, to hide the machine's database of time zones"]
fn time_zones_are_known_on_a_machine_without_a_database_of_them() {
    let hide =
        "mkdir -p /usr/share/zoneinfo && mount -t tmpfs none /usr/share/zoneinfo && exec \"$@\"";
    GatewayCommand::new()
        .arg("--demo")
        .env("QUOTA_TIMEZONE", "America/Argentina/Buenos_Aires")
        .under(&["unshare", "--mount", "sh", "-c", hide, "sh"])
        .start();
}

#[tokio::test]
async fn a_start_warns_of_an_address_that_others_reach_without_tls() {
    let warning = "no TLS";
    let command = || GatewayCommand::new().arg("--demo").env("HOST", "0.0.0.0");
    let exposed = command().start();
    assert!(settled(&exposed, "TRUSTED_PROXIES").await.contains(warning));
    let page = format!("http://127.0.0.1:{}/admin", exposed.address().port());
    assert!(exposed.printed().contains(&page), "{}", exposed.printed());
    let behind = command().env("TRUSTED_PROXIES", "127.0.0.1").start();
    assert!(!settled(&behind, "time zone").await.contains(warning));
    let local = GatewayCommand::new().arg("--demo").start();
    assert!(!settled(&local, "time zone").await.contains(warning));
}

#[tokio::test]
async fn the_defaults_are_those_of_the_contract() {
    let gateway = GatewayCommand::new().arg("--demo").start();
    let status = gateway.admin(http::Method::GET, "/admin/status", &json!(null)).await;
    let shown = |name: &str| {
        let settings = status["settings"].as_array().unwrap();
        let setting = settings.iter().find(|setting| setting["name"] == name);
        setting.unwrap_or_else(|| panic!("{name}: {status}"))["value"].clone()
    };
    for (name, value) in [
        ("MAX_BODY_BYTES", "32MiB"),
        ("UPSTREAM_CONNECT_TIMEOUT", "5s"),
        ("UPSTREAM_HEAD_TIMEOUT", "600s"),
        ("UPSTREAM_IDLE_TIMEOUT", "120s"),
        ("SHUTDOWN_GRACE", "30s"),
        ("SHUTDOWN_DELAY", "0s"),
        ("USAGE_RETENTION_DAYS", "7"),
    ] {
        assert_eq!(shown(name), value, "{name}");
    }
    let key = gateway.create_key(json!({})).await;
    let url = gateway.url("/v1/chat/completions");
    assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
    let kept = || async {
        let kept = gateway.admin(http::Method::GET, "/admin/requests", &json!(null)).await;
        kept["retention_days"] == 7 && kept["requests"].as_array().is_some_and(|all| all.len() == 1)
    };
    crate::common::eventually("the request is kept", kept).await;
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
async fn a_start_without_settings_prints_all_that_is_needed() {
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
    let response = Client::http1().post_as(token, &gateway.url("/admin/keys"), &json!({})).await;
    assert_eq!(response.status, 201, "{response:?}");
    assert_eq!(response.json()["daily_limit"], 200);
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

/// Returns the output once it contains `text`.
async fn settled(gateway: &Gateway, text: &str) -> String {
    crate::common::eventually(text, || async { gateway.printed().contains(text) }).await;
    gateway.printed()
}
