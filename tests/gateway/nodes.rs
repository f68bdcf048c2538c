//! Nodes of a PostgreSQL database: gateways that count there, each with its journal.

use http::Method;
use serde_json::{Value, json};

use super::postgres::{chat, gateway_on, in_flight, is_ready, start, within_a_second};
use crate::common::{
    Client, Gateway, GatewayCommand, Upstream, chat_json, eventually, json_response,
    postgres::{Postgres, psql},
};

/// Lets the database forget that it has seen its nodes within the last seconds.
fn pass_a_minute(url: &str) {
    psql(url, "UPDATE nodes SET seen_at = seen_at - interval '1 minute'");
}

/// Runs `gateway release-node`, and returns exit code, output and errors.
fn release_node(command: &GatewayCommand, arguments: &str) -> (Option<i32>, String, String) {
    let command = command.clone().arg("release-node");
    let output = arguments.split(' ').fold(command, |command, word| command.arg(word)).output();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Removes words with digits, as times, numbers and ids differ from run to run.
fn without_numbers(text: &str) -> String {
    let words = text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric());
    let is_number = |word: &&str| word.contains(|letter: char| letter.is_ascii_digit());
    words.filter(|word| !is_number(word)).collect()
}

/// What the guide says that the command prints.
fn guide() -> &'static str {
    let guides = [
        include_str!("../../docs/guides/postgresql.md"),
        include_str!("../../docs/guides/postgresql.zh.md"),
    ];
    let [english, chinese] = guides.map(|guide| {
        let (_, block) = guide.split_once("$ gateway release-node 3\n").unwrap();
        block.split_once("```").unwrap().0
    });
    assert_eq!(english, chinese);
    english
}

async fn nodes(gateway: &Gateway) -> Vec<(Value, Value, Value)> {
    let listed = gateway.admin(Method::GET, "/admin/nodes", &Value::Null).await;
    let nodes = listed["nodes"].as_array().unwrap().iter();
    let facts = |node: &Value| {
        (node["number"].clone(), node["state"].clone(), node["this_process"].clone())
    };
    nodes.map(facts).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn release_node_names_what_may_be_missing_and_gives_a_node_up_when_that_is_accepted() {
    const IN_FLIGHT: usize = 3;
    const LIMIT: u64 = 100;
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let url = Postgres::shared().create_database();
    let command = gateway_on(&url)
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_API_KEY", "sk-sponsor-secret");
    let mut lost = start(&command).await;
    let key = lost.create_key(json!({"daily_limit": LIMIT})).await;
    let clients = in_flight(&lost, &key, IN_FLIGHT);
    upstream.reached_by(IN_FLIGHT).await;
    assert_eq!(lost.used(&key).await, IN_FLIGHT as u64);
    let (code, _, errors) = release_node(&command, "1 --accept-loss");
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.starts_with("node 1 is in use") && errors.lines().count() == 1, "{errors}");
    lost.kill9();
    clients.join_all().await;

    pass_a_minute(&url);
    let is_silent = || async { release_node(&command, "1").0 == Some(1) };
    within_a_second("the server has noticed the end of the process", is_silent).await;
    let before = psql(&url, "SELECT used FROM daily_usage");
    let (_, printed, errors) = release_node(&command, "1");
    assert_eq!(without_numbers(&printed), without_numbers(guide()), "{printed}");
    assert!(printed.contains("\n3 requests had begun and not ended\n"), "{printed}");
    assert_eq!(errors, "");
    assert_eq!(psql(&url, "SELECT used FROM daily_usage"), before, "nothing was changed");

    let (code, printed, errors) = release_node(&command, "1 --accept-loss");
    assert_eq!(code, Some(0), "{errors}");
    assert!(printed.starts_with("node 1 is released; "), "{printed}");
    assert!(printed.contains("lost: 3 requests may have succeeded"), "{printed}");
    for (number, says) in [("1", "was released before"), ("2", "there is no node 2")] {
        for accept in ["", " --accept-loss"] {
            let (code, _, errors) = release_node(&command, &format!("{number}{accept}"));
            assert_eq!(code, Some(2));
            assert!(errors.contains(says) && errors.lines().count() == 1, "{errors}");
        }
    }

    let error = command.try_start().err().expect("its journal is not accepted");
    assert!(error.contains("node 1, which was released") && error.lines().count() == 1, "{error}");
    let mut other = start(&command.clone().env("JOURNAL_PATH", "other")).await;
    let used = other.used(&key).await;
    assert!((IN_FLIGHT as u64..=LIMIT).contains(&used), "{used}");
    let usage = other.usage(&key).await;
    assert_eq!(usage["requests"]["failed"], IN_FLIGHT);
    assert_eq!(
        nodes(&other).await,
        [(json!(1), json!("released"), json!(false)), (json!(2), json!("in_use"), json!(true)),]
    );
    let audit = other.admin(Method::GET, "/admin/audit?action=node.", &Value::Null).await;
    assert_eq!(audit["entries"][0]["token_id"], "command_line");
    assert_eq!(audit["entries"][0]["detail"]["node"], 1);
    other.terminate();
    assert!(other.wait().success(), "{}", other.printed());
    let (code, _, errors) = release_node(&command, "2 --accept-loss");
    assert!(code == Some(2) && errors.contains("its journal is closed"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_gateway_that_was_cut_off_while_its_node_was_released_serves_no_more() {
    let server = Postgres::start(&["fsync=off"]);
    let url = server.create_database();
    psql(&url, "CREATE ROLE gateway LOGIN SUPERUSER");
    let operator = gateway_on(&url).arg("--demo");
    let gateway = start(&gateway_on(&url.replace("quota@", "gateway@")).arg("--demo")).await;
    let key = gateway.create_key(json!({"daily_limit": 100})).await;
    assert_eq!(chat(&gateway, &key).await.status, 200);

    psql(&url, "ALTER ROLE gateway NOLOGIN");
    psql(&url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'");
    let is_released = || async {
        pass_a_minute(&url);
        release_node(&operator, "1 --accept-loss").0 == Some(0)
    };
    eventually("its connection has ended", is_released).await;
    psql(&url, "ALTER ROLE gateway LOGIN");
    let says = || async { gateway.printed().contains("node 1, which was released") };
    eventually("it says why it rejects requests", says).await;
    assert_eq!(chat(&gateway, &key).await.status, 503);
    assert_eq!(Client::http1().get(&gateway.url("/readyz")).await.status, 503);
}

#[test]
fn a_sqlite_database_has_no_nodes() {
    let (code, _, errors) = release_node(&GatewayCommand::new().arg("--demo"), "1");
    assert_eq!(code, Some(2));
    assert!(errors.starts_with("DATABASE_URL: a SQLite database belongs to one"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn release_node_needs_the_tables_of_this_version() {
    let command = gateway_on(&Postgres::shared().create_database()).arg("--demo");
    let (code, _, errors) = release_node(&command, "1");
    assert_eq!(code, Some(2));
    assert!(errors.contains("start the gateway once, which creates them"), "{errors}");
    let gateway = start(&command).await;
    is_ready(&gateway).await;
    assert_eq!(nodes(&gateway).await, [(json!(1), json!("in_use"), json!(true))]);
}
