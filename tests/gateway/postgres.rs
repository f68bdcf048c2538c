//! The gateway with its keys and counts in a PostgreSQL database.

use std::{
    collections::HashSet,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, Upstream, chat_json, eventually,
    gateway_binary, json_response,
    postgres::{Postgres, psql},
};

/// Settings of a gateway with this database, and a journal wherever the tests' files are.
pub(super) fn gateway_on(url: &str) -> GatewayCommand {
    GatewayCommand::new()
        .env("DATABASE_URL", url)
        .env("JOURNAL_ACCEPT_VOLATILE", "true")
        .env("RUST_LOG", "warn")
}

/// A database of its own on the server that the tests share, and a gateway in front of a built-in upstream.
fn demo() -> (String, GatewayCommand) {
    let url = Postgres::shared().create_database();
    let command = gateway_on(&url).arg("--demo");
    (url, command)
}

/// Starts a gateway, and waits until it serves requests.
pub(super) async fn start(command: &GatewayCommand) -> Gateway {
    let gateway = command.start();
    is_ready(&gateway).await;
    gateway
}

pub(super) async fn is_ready(gateway: &Gateway) {
    let url = gateway.url("/readyz");
    let is_ready = || async { Client::http1().get(&url).await.status == 200 };
    within_a_second("the gateway is ready", is_ready).await;
}

pub(super) async fn chat(gateway: &Gateway, key: &str) -> CollectedResponse {
    let body = json!({"model": "deepseek-chat", "messages": [{"role": "user", "content": "hi"}]});
    Client::http1().post_as(key, &gateway.url("/v1/chat/completions"), &body).await
}

/// Sends requests that the end of the gateway leaves without a response.
pub(super) fn in_flight(gateway: &Gateway, key: &str, requests: usize) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..requests {
        let (url, key) = (gateway.url("/v1/chat/completions"), format!("Bearer {key}"));
        clients.spawn(async move {
            let headers = [("authorization", key.as_str())];
            let response = Client::http1().open(Method::POST, &url, &headers, "{}").await;
            assert!(response.is_err(), "{response:?}");
        });
    }
    clients
}

/// Ends the gateway as a service manager does.
fn stop(gateway: &mut Gateway) {
    gateway.terminate();
    assert!(gateway.wait().success(), "{}", gateway.printed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn keys_limits_and_reports_are_those_of_any_store_and_outlive_the_process() {
    for threads in ["1", "4"] {
        let (_, command) = demo();
        let command = command.env("WORKER_THREADS", threads);
        let mut gateway = start(&command).await;
        let key = gateway.create_key(json!({"label": "alice", "daily_limit": 3})).await;
        for remaining in ["2", "1", "0"] {
            let response = chat(&gateway, &key).await;
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(response.header("x-ratelimit-remaining-requests"), remaining);
        }
        let rejected = chat(&gateway, &key).await;
        assert_eq!(
            (rejected.status.as_u16(), rejected.code().as_str()),
            (429, "insufficient_quota")
        );
        let counted = || async {
            let usage = gateway.usage(&key).await;
            usage["requests"]["succeeded"] == 3 && usage["tokens"]["total"].as_u64() > Some(0)
        };
        eventually("the events are recorded", counted).await;
        assert_eq!(gateway.used(&key).await, 3);

        stop(&mut gateway);
        let gateway = start(&command).await;
        assert_eq!(gateway.used(&key).await, 3);
        assert_eq!(chat(&gateway, &key).await.status, 429);
        let copy = Client::http1();
        let token = format!("Bearer {}", crate::common::ADMIN_TOKEN);
        let headers = [("authorization", token.as_str())];
        let copy = copy.send(Method::POST, &gateway.url("/admin/backup"), &headers, "").await;
        assert_eq!(copy.status, 501, "{copy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn requests_in_flight_at_kill_9_stay_counted() {
    const LIMIT: usize = 5;
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let command = gateway_on(&Postgres::shared().create_database())
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_API_KEY", "sk-sponsor-secret");
    let mut gateway = start(&command).await;
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let clients = in_flight(&gateway, &key, LIMIT);
    upstream.reached_by(LIMIT).await;
    gateway.kill9();
    clients.join_all().await;
    gateway.restart();
    is_ready(&gateway).await;
    let usage = gateway.usage(&key).await;
    assert_eq!((&usage["used"], &usage["requests"]["failed"]), (&json!(LIMIT), &json!(LIMIT)));
    assert_eq!(chat(&gateway, &key).await.status, 429);
}

/// As docs/trial-key-process.zh.md has it for the SQLite file.
const TYPED_IN: &str = "INSERT INTO api_keys (key, label, daily_limit, created_at)
VALUES ('trial-key-manual-123', '手动创建的密钥', 200, datetime('now'));";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn rows_that_are_typed_in_with_psql_work_within_a_second() {
    const KEY: &str = "trial-key-manual-123";
    let (url, command) = demo();
    let gateway = start(&command).await;
    assert_eq!(chat(&gateway, KEY).await.status, 401);
    psql(&url, TYPED_IN);
    let in_clear = format!("SELECT count(*) FROM api_keys k WHERE k::text LIKE '%{KEY}%'");
    assert_eq!(psql(&url, &in_clear), "0");
    within_a_second("the key works", || async { chat(&gateway, KEY).await.status == 200 }).await;
    let usage = gateway.usage(KEY).await;
    assert_eq!((&usage["label"], &usage["daily_limit"]), (&json!("手动创建的密钥"), &json!(200)));

    for (edit, status) in [("disabled = 1", 403), ("disabled = 0", 200), ("daily_limit = 1", 429)] {
        psql(&url, &format!("UPDATE api_keys SET {edit}"));
        let applies = || async { chat(&gateway, KEY).await.status == status };
        within_a_second(edit, applies).await;
    }
    psql(&url, "DELETE FROM api_keys");
    within_a_second("deleted", || async { chat(&gateway, KEY).await.status == 401 }).await;
}

/// Waits for a condition that holds within a second, or a few on a busy machine.
pub(super) async fn within_a_second<F: Future<Output = bool>>(
    what: &str,
    condition: impl FnMut() -> F,
) {
    let waited = tokio::time::timeout(Duration::from_secs(5), eventually(what, condition)).await;
    assert!(waited.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn requests_are_rejected_while_the_server_is_down_and_nothing_is_lost() {
    let server = Postgres::start(&["fsync=off"]);
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let url = server.create_database();
    let command = gateway_on(&url)
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_API_KEY", "sk-sponsor-secret");
    let mut gateway = start(&command).await;
    let key = gateway.create_key(json!({"daily_limit": 1000})).await;
    let mut served = 0;
    for _ in 0..3 {
        for _ in 0..20 {
            assert_eq!(chat(&gateway, &key).await.status, 200);
            served += 1;
        }
        server.stop("immediate");
        let mut rejected = chat(&gateway, &key).await;
        // What was leased before may still be spent.
        while rejected.status == 200 {
            served += 1;
            rejected = chat(&gateway, &key).await;
        }
        assert_eq!(rejected.status, 503, "{rejected:?}");
        assert_eq!(rejected.code(), "store_unavailable");
        assert_eq!(Client::http1().get(&gateway.url("/healthz")).await.status, 200);
        let is_not_ready =
            || async { Client::http1().get(&gateway.url("/readyz")).await.status == 503 };
        eventually("it is not ready", is_not_ready).await;
        server.resume();
        is_ready(&gateway).await;
        let serves = || async {
            let response = chat(&gateway, &key).await;
            response.status == 200
        };
        within_a_second("a chat is served", serves).await;
        served += 1;
        assert_eq!(gateway.used(&key).await, served);
    }
    assert_eq!(upstream.count() as u64, served);
    stop(&mut gateway);
    let sum = psql(&url, "SELECT sum(used) FROM daily_usage");
    assert_eq!(sum, served.to_string());

    server.stop("immediate");
    let gateway = command.start();
    assert_eq!(chat(&gateway, &key).await.status, 503);
    server.resume();
    is_ready(&gateway).await;
    assert_eq!(gateway.used(&key).await, served);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn gateways_with_journals_of_their_own_admit_the_limit_together() {
    let (_, command) = demo();
    let mut first = start(&command).await;
    let second = start(&command.clone().env("JOURNAL_PATH", "second")).await;
    let key = first.create_key(json!({"daily_limit": 4})).await;
    for gateway in [&first, &second, &first, &second] {
        assert_eq!(chat(gateway, &key).await.status, 200);
    }
    for gateway in [&first, &second] {
        let rejected = chat(gateway, &key).await;
        assert_eq!((rejected.status.as_u16(), code(&rejected)), (429, "insufficient_quota".into()));
    }
    stop(&mut first);
    assert_eq!(second.used(&key).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn units_of_a_killed_gateway_are_used_once_it_is_back() {
    let (_, command) = demo();
    let mut first = start(&command).await;
    let key = first.create_key(json!({"daily_limit": 5})).await;
    assert_eq!(chat(&first, &key).await.status, 200);
    first.kill9();
    let second = start(&command.clone().env("JOURNAL_PATH", "second")).await;
    // The other four are in the lease of the first one.
    let rejected = chat(&second, &key).await;
    assert_eq!((rejected.status.as_u16(), code(&rejected)), (429, "rate_limit_exceeded".into()));
    assert_eq!(rejected.headers["retry-after"], "1");
    let _first = start(&command).await;
    let (mut admitted, since) = (1, Instant::now());
    loop {
        let response = chat(&second, &key).await;
        admitted += u32::from(response.status == 200);
        if code(&response) == "insufficient_quota" {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "{admitted} admitted");
    }
    assert_eq!(admitted, 5);
}

/// Returns the code of the error in a response.
fn code(response: &CollectedResponse) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    body["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn commands_check_import_and_explain() {
    let (url, command) = demo();
    let run = |arguments: &str| {
        let output = arguments.split(' ').fold(command.clone(), |command, word| command.arg(word));
        let output = output.env("PORT", "8787").output();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let (code, printed, _) = run("check");
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("empty; the first start creates its tables"), "{printed}");
    assert!(printed.contains("quota.journal.* can be written"), "{printed}");
    assert_eq!(psql(&url, tables), "0", "it was only read");
    assert_eq!(fs::read_dir(command.dir()).unwrap().count(), 0);

    let file = command.dir().join("original.db");
    let original = rusqlite::Connection::open(&file).unwrap();
    original
        .execute_batch(
            "CREATE TABLE api_keys (key TEXT PRIMARY KEY, label TEXT, daily_limit INTEGER, created_at TEXT);
             INSERT INTO api_keys VALUES ('trial-key-imported-1', 'alice', 3, '2026-11-01 10:00:00')",
        )
        .unwrap();
    drop(original);
    let (code, printed, errors) = run("import original.db --dry-run");
    assert_eq!(code, Some(0), "{printed}{errors}");
    assert!(printed.ends_with("1 new, 0 unchanged, 0 conflicts; a dry run, nothing was changed\n"));
    assert_eq!(psql(&url, "SELECT count(*) FROM api_keys"), "0");
    for outcome in ["1 new, 0 unchanged, 0 conflicts\n", "0 new, 1 unchanged, 0 conflicts\n"] {
        let (code, printed, errors) = run("import original.db");
        assert_eq!(code, Some(0), "{printed}{errors}");
        assert!(printed.ends_with(outcome), "{printed}");
    }
    assert!(run("check").1.contains("1 key, not in use"), "{}", run("check").1);

    let mut gateway = start(&command).await;
    assert_eq!(chat(&gateway, "trial-key-imported-1").await.status, 200);
    assert!(run("check").1.contains("1 key, in use by a gateway"), "{}", run("check").1);
    // Also beside a gateway, with a journal of its own.
    let (code, _, errors) = run("import original.db");
    assert!(code == Some(2) && errors.contains("is in use by another process"), "{errors}");
    let (code, printed, errors) = run("import original.db --journal-path other");
    assert_eq!(code, Some(0), "{errors}");
    assert!(printed.ends_with("0 new, 1 unchanged, 0 conflicts\n"), "{printed}");
    stop(&mut gateway);

    for (arguments, advice) in [("backup copy.db", "pg_dump"), ("restore copy.db", "pg_restore")] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, Some(2));
        assert!(errors.starts_with("DATABASE_URL: ") && errors.contains(advice), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    assert_eq!(run("restore --accept-loss"), (Some(0), "nothing is lost\n".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn neither_user_nor_password_is_shown() {
    const USER: &str = "role-canary";
    const PASSWORD: &str = "password-canary";
    let server = Postgres::start(&["fsync=off"]);
    let url = server.create_database();
    let create = format!(
        "CREATE ROLE \"{USER}\" LOGIN SUPERUSER PASSWORD '{PASSWORD}'; \
         CREATE ROLE \"{USER}-away\" NOLOGIN PASSWORD '{PASSWORD}'"
    );
    psql(&url, &create);
    let rules = psql(&url, "SHOW hba_file");
    fs::write(rules, "local all quota trust\nlocal all all scram-sha-256\n").unwrap();
    psql(&url, "SELECT pg_reload_conf()");
    let address = url.strip_prefix("postgres://quota@").unwrap();
    let is_shown = |printed: &str| printed.contains(USER) || printed.contains(PASSWORD);
    let password_file = |directory: &Path| {
        let file = directory.join("password");
        fs::write(&file, PASSWORD).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let in_url = gateway_on(&format!("postgres://{USER}:{PASSWORD}@{address}"));
    let in_parameters =
        gateway_on(&format!("postgres://{address}&user={USER}&password={PASSWORD}"));
    let without = gateway_on(&format!("postgres://{USER}@{address}"));
    let in_file = without.clone().env("DATABASE_PASSWORD_FILE", password_file(without.dir()));
    let commands = [
        in_url,
        in_parameters,
        without.clone().env("DATABASE_PASSWORD", PASSWORD),
        without.clone().env("PGPASSWORD", PASSWORD),
        in_file,
    ];
    for command in commands {
        let command = command.env("RUST_LOG", "debug").arg("--demo");
        let config = command.clone().arg("print-config").output();
        let config = String::from_utf8(config.stdout).unwrap();
        assert!(!is_shown(&config) && config.contains("/quota_"), "{config}");
        let mut gateway = start(&command).await;
        let settings = gateway.admin(Method::GET, "/admin/status", &Value::Null).await.to_string();
        assert!(!is_shown(&settings) && settings.contains("DATABASE_URL"), "{settings}");
        let printed = gateway.printed();
        assert!(printed.contains("database      postgres://"), "{printed}");
        let check = command.clone().arg("check").output();
        assert!(!is_shown(&String::from_utf8(check.stdout).unwrap()));
        stop(&mut gateway);
        assert!(!is_shown(&gateway.printed()), "{}", gateway.printed());
    }

    // Errors of the server name the role.
    for (user, password, reason) in [
        (format!("{USER}-away"), PASSWORD, "not permitted to log in"),
        (USER.to_owned(), "password-canary-2", "password authentication failed"),
    ] {
        let command = gateway_on(&format!("postgres://{user}:{password}@{address}")).arg("--demo");
        let output = command.output();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), errors.lines().count()), (Some(2), 1), "{errors}");
        assert!(errors.contains(reason) && !is_shown(&errors), "{errors}");
        let check = String::from_utf8(command.arg("check").output().stdout).unwrap();
        assert!(check.contains(reason) && !is_shown(&check), "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn with_tls_the_servers_certificate_is_verified() {
    // No other server listens there.
    const ADDRESS: &str = "127.83.1.9";
    let server = Postgres::start(&["fsync=off", &format!("listen_addresses={ADDRESS}")]);
    let url = server.create_database();
    let name = url.split(['/', '?']).nth(3).unwrap();
    let certified = rcgen::generate_simple_self_signed([ADDRESS.to_owned()]).unwrap();
    let directory = psql(&url, "SHOW data_directory");
    let files = [
        ("server.crt", certified.cert.pem()),
        ("server.key", certified.signing_key.serialize_pem()),
    ];
    for (file, text) in &files {
        let lines = format!("SELECT unnest(string_to_array('{}', E'\\n'))", text.trim_end());
        psql(&url, &format!("COPY ({lines}) TO '{directory}/{file}'"));
    }
    let key = format!("{directory}/server.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    psql(&url, "ALTER SYSTEM SET ssl = on");
    psql(&url, "SELECT pg_reload_conf()");
    let is_on = || async { psql(&url, "SHOW ssl") == "on" };
    eventually("the server has TLS", is_on).await;

    let command = |parameters: &str| {
        let url = format!("postgres://quota@{ADDRESS}/{name}?{parameters}");
        gateway_on(&url).arg("--demo")
    };
    let check = |command: &GatewayCommand| {
        let output = command.clone().env("PORT", "8787").arg("check").output();
        String::from_utf8(output.stdout).unwrap()
    };
    let unknown = command("sslmode=require");
    let printed = check(&unknown);
    assert!(
        printed.contains("FAILED   database   ") && printed.contains("certificate"),
        "{printed}"
    );
    let trusted = command("sslmode=require&sslrootcert=ca%2Epem&application_name=tls");
    fs::write(trusted.dir().join("ca.pem"), &files[0].1).unwrap();
    let printed = check(&trusted);
    assert!(printed.contains("empty; the first start creates its tables"), "{printed}");

    let mut gateway = start(&trusted).await;
    let key = gateway.create_key(json!({})).await;
    assert_eq!(chat(&gateway, &key).await.status, 200);
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'tls' AND NOT ssl";
    assert_eq!(psql(&url, plain), "0");
    stop(&mut gateway);
    let gateway = unknown.start();
    let says = || async { gateway.printed().contains("certificate") };
    eventually("it says what it waits for", says).await;
    assert_eq!(Client::http1().get(&gateway.url("/readyz")).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn an_outage_of_the_server_is_in_the_log_once_with_its_reason() {
    let server = Postgres::start(&["fsync=off"]);
    let gateway = start(&gateway_on(&server.create_database()).arg("--demo")).await;
    server.stop("fast");
    let says = || async {
        let printed = gateway.printed();
        printed.contains("connection to the database ended: rejecting requests")
            && printed.contains("checkpoint failed: rejecting requests")
            && printed.contains("error connecting to server")
    };
    eventually("it says what happened, without any request", says).await;
    server.resume();
    is_ready(&gateway).await;
    let printed = gateway.printed();
    let reasons: Vec<_> = printed.lines().filter_map(|line| line.split_once("ERROR")).collect();
    let distinct: HashSet<_> = reasons.iter().map(|(_, reason)| reason).collect();
    assert_eq!(distinct.len(), reasons.len(), "{printed}");
}

/// The blocks of the guide that name this test.
fn blocks(guide: &str) -> Vec<&str> {
    let blocks = guide.split("<!-- docs: run by tests/gateway/postgres.rs -->\n```").skip(1);
    blocks.map(|block| block.split_once('\n').unwrap().1.split_once("```").unwrap().0).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_guide_works_as_it_is_written() {
    let guide = blocks(include_str!("../../docs/guides/postgresql.md"));
    assert_eq!(guide, blocks(include_str!("../../docs/guides/postgresql.zh.md")));
    let [create, by_hand, dump, restore] = guide[..] else { panic!("{guide:?}") };
    let server = Postgres::start(&["fsync=off"]);
    for statement in create.split_inclusive(";\n") {
        server.sql("postgres", statement);
    }
    let url = server.url("quota").replace("quota@", "gateway@");
    let command = gateway_on(&url).arg("--demo");
    let run = |commands: &str| {
        let path = gateway_binary().parent().unwrap().to_str().unwrap();
        let path = format!("{path}:{}", std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", commands]).current_dir(command.dir()).env("PATH", path);
        shell.env("DATABASE_URL", &url).env("JOURNAL_ACCEPT_VOLATILE", "true");
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };

    let mut gateway = start(&command).await;
    let key = gateway.create_key(json!({})).await;
    assert_eq!(chat(&gateway, &key).await.status, 200);
    psql(&url, by_hand);
    let is_disabled = || async { chat(&gateway, "trial-key-manual-123").await.status == 403 };
    within_a_second("the key is disabled", is_disabled).await;
    stop(&mut gateway);
    run(dump);

    let mut gateway = start(&command).await;
    assert_eq!(chat(&gateway, &key).await.status, 200);
    assert_eq!(gateway.used(&key).await, 2);
    stop(&mut gateway);
    let printed = run(restore);
    assert!(printed.starts_with("lost: ") && printed.contains("is older than the journal"));
    let gateway = start(&command).await;
    // What is still in the journal counts as well.
    assert!((1..=2).contains(&gateway.used(&key).await));
    assert_eq!(chat(&gateway, &key).await.status, 200);
}

#[test]
#[cfg(target_os = "linux")]
fn a_journal_that_is_lost_with_the_machine_is_not_accepted() {
    // Nothing listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let command = GatewayCommand::new()
        .env("DATABASE_URL", format!("postgres://quota@127.0.0.1:{port}/quota"))
        .env("JOURNAL_PATH", "/dev/shm/quota");
    let output = command.output();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.lines().count()), (Some(2), 1), "{errors}");
    assert!(errors.starts_with("JOURNAL_PATH: /dev/shm is in memory (tmpfs)"), "{errors}");
    assert!(errors.contains("JOURNAL_ACCEPT_VOLATILE=true"), "{errors}");
    let output = command.env("JOURNAL_PATH", "/no/such/directory/quota").output();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("JOURNAL_PATH: /no/such/directory cannot be used"), "{errors}");
}
