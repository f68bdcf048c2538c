//! Every command of `docs/trial-key-process.zh.md` works as it is written there; only host, token
//! and key are filled in. Section 3.1, the page, is `admin_page.rs`.

use std::{collections::HashMap, process::Command};

use crate::common::{ADMIN_TOKEN, Client, Gateway};
use http::Method;
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../docs/trial-key-process.zh.md");

/// The code blocks of each section, by its number.
fn blocks() -> HashMap<&'static str, Vec<&'static str>> {
    let mut blocks: HashMap<&str, Vec<&str>> = HashMap::new();
    for section in DOCUMENT.split("\n##").skip(1) {
        let heading = section.trim_start_matches('#').trim_start();
        let number = heading.split([' ', '\n']).next().unwrap().trim_end_matches('.');
        let code = section.split("```").skip(1).step_by(2);
        let code = code.map(|block| block.split_once('\n').unwrap().1);
        blocks.entry(number).or_default().extend(code);
    }
    blocks
}

/// The first block of a section.
fn block(section: &str) -> &'static str {
    blocks()[section][0]
}

struct Shell<'a> {
    gateway: &'a Gateway,
}

impl Shell<'_> {
    /// Fills in host, token and key, runs the commands with bash, and returns what they print.
    fn run(&self, commands: &str, key: &str) -> String {
        let mut commands = fill_in_host(commands, &self.gateway.url(""));
        for (blank, value) in [
            ("你的管理员令牌", ADMIN_TOKEN),
            ("管理员令牌", ADMIN_TOKEN),
            ("你的TRIAL_KEY", key),
            ("要重置的密钥", key),
            ("要删除的密钥", key),
        ] {
            commands = commands.replace(blank, value);
        }
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &commands])
            .env("ADMIN_TOKEN", ADMIN_TOKEN)
            .current_dir(self.gateway.dir())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}\n{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON objects that the commands print.
    fn json(&self, commands: &str, key: &str) -> Vec<Value> {
        let printed = self.run(commands, key);
        let values = serde_json::Deserializer::from_str(&printed).into_iter();
        values.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {printed}"))
    }
}

fn fill_in_host(commands: &str, base: &str) -> String {
    let mut filled = String::new();
    let mut rest = commands;
    while let Some(at) = rest.find("http://").into_iter().chain(rest.find("https://")).min() {
        let host = rest[at..].find("://").unwrap() + at + 3;
        let end = rest[host..].find(['/', '"', '\n', ' ']).map_or(rest.len(), |end| host + end);
        filled.push_str(&rest[..at]);
        filled.push_str(base);
        rest = &rest[end..];
    }
    filled + rest
}

/// The values of a field in the JSON bodies that a block sends.
fn sent(block: &str, field: &str) -> Vec<String> {
    let name = format!("\"{field}\": ");
    block
        .split(&name)
        .skip(1)
        .map(|rest| rest.split(['\n', ',']).next().unwrap().trim_matches('"').to_owned())
        .collect()
}

async fn chat(gateway: &Gateway, key: &str, path: &str) -> crate::common::CollectedResponse {
    let body = json!({"model": "deepseek-chat", "messages": [{"role": "user", "content": "你好"}]});
    Client::http1().post_as(key, &gateway.url(path), &body).await
}

async fn used(gateway: &Gateway, key: &str) -> Value {
    Client::http1().get_as(key, &gateway.url("/usage")).await.json()["used"].clone()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bash, curl and jq"]
async fn section_3_2_issues_keys_by_curl_in_every_environment() {
    let gateway = Gateway::demo();
    let shell = Shell { gateway: &gateway };
    for section in ["3.2.1", "3.2.2", "3.2.3", "3.2.4", "3.2.5"] {
        let commands = block(section).split("# 响应示例").next().unwrap();
        let created = shell.json(commands, "");
        let (labels, limits) = (sent(commands, "label"), sent(commands, "daily_limit"));
        assert!(!created.is_empty(), "section {section}");
        assert_eq!(created.len(), labels.len(), "section {section}");
        for ((created, label), limit) in created.iter().zip(labels).zip(limits) {
            assert_eq!(created["label"], label.as_str());
            assert_eq!(created["daily_limit"].to_string(), limit);
            let key = created["key"].as_str().unwrap();
            assert!(key.starts_with("trial-"), "{key}");
            let created_at = created["created_at"].as_str().unwrap();
            assert!(created_at.len() == 20 && created_at.ends_with('Z'), "{created_at}");
            let response = chat(&gateway, key, "/v1/chat/completions").await;
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(response.header("x-ratelimit-limit-requests"), limit);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bash and curl"]
async fn a_daily_limit_of_0_is_unlimited() {
    let gateway = Gateway::demo();
    let shell = Shell { gateway: &gateway };
    let commands = block("3.2.1").split("# 响应示例").next().unwrap();
    let created =
        &shell.json(&commands.replace("\"daily_limit\": 200", "\"daily_limit\": 0"), "")[0];
    assert_eq!(created["daily_limit"], 0);
    let key = created["key"].as_str().unwrap();
    for _ in 0..5 {
        let response = chat(&gateway, key, "/v1/chat/completions").await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x-ratelimit-limit-requests"), "");
    }
    let usage = Client::http1().get_as(key, &gateway.url("/usage")).await.json();
    assert_eq!(usage["unlimited"], true);
    assert_eq!((&usage["daily_limit"], &usage["remaining"]), (&json!(0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs sqlite3"]
async fn section_3_3_inserts_a_key_into_the_live_file_and_it_works_at_once() {
    let gateway = Gateway::demo();
    let shell = Shell { gateway: &gateway };
    gateway.create_key(json!({"label": "已有密钥"})).await;
    let (program, session) = block("3.3").split_once("sqlite3 quota.db\n").unwrap();
    let printed = shell.run(&format!("{program}sqlite3 quota.db <<'SQL'\n{session}SQL\n"), "");
    assert!(printed.contains("已有密钥"), "{printed}");
    let response = chat(&gateway, "trial-key-manual-123", "/v1/chat/completions").await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("x-ratelimit-remaining-requests"), "199");
    let keys = gateway.admin(Method::GET, "/admin/keys", &Value::Null).await;
    assert_eq!(keys["keys"][1]["label"], "手动创建的密钥");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bash and curl"]
async fn sections_5_and_6_serve_the_holder_and_the_operator() {
    let gateway = Gateway::demo();
    let shell = Shell { gateway: &gateway };
    let key = gateway.create_key(json!({"label": "用户A的试用密钥"})).await;

    let responses = shell.json(block("5.1"), &key);
    assert_eq!(responses[0]["ok"], true);
    assert_eq!(responses[1]["data"][0]["id"], "deepseek-chat");
    assert!(responses[2]["choices"][0]["message"]["content"].is_string(), "{responses:?}");

    assert!(block("5.2").contains("baseUrl: \"http://你的服务器IP:8787\""));
    assert_eq!(chat(&gateway, &key, "/chat/completions").await.status, 200);

    let usage = &shell.json(block("5.3"), &key)[0];
    assert_eq!((&usage["used"], &usage["remaining"]), (&json!(2), &json!(198)));

    let keys = &shell.json(block("6.1"), &key)[0];
    assert_eq!(keys["keys"][0]["label"], "用户A的试用密钥");
    assert_eq!(keys["keys"][0]["used_today"], 2);
    assert!(!keys.to_string().contains(&key), "keys are shown masked");

    let report = &shell.json(block("6.2"), &key)[0];
    assert_eq!((&report["total_requests"], &report["total_keys"]), (&json!(2), &json!(1)));

    let reset = &shell.json(block("6.3"), &key)[0];
    assert_eq!((&reset["success"], &reset["used"]), (&json!(true), &json!(0)));
    assert_eq!(used(&gateway, &key).await, 0);

    let deleted = &shell.json(block("6.4"), &key)[0];
    assert_eq!(deleted["deleted"], true);
    assert_eq!(chat(&gateway, &key, "/v1/chat/completions").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bash, curl and jq"]
async fn section_9_issues_keys_in_a_batch_and_watches_their_use() {
    let gateway = Gateway::demo();
    let shell = Shell { gateway: &gateway };
    let printed = shell.run(block("9.1"), "");
    assert_eq!(printed.lines().count(), 3, "{printed}");
    let csv = std::fs::read_to_string(gateway.dir().join("keys.csv")).unwrap();
    let users: Vec<_> = csv.lines().map(|line| line.split_once(',').unwrap()).collect();
    assert_eq!(
        users.iter().map(|(user, _)| *user).collect::<Vec<_>>(),
        ["alice", "bob", "charlie"]
    );
    for (user, key) in users {
        let name: Vec<&str> = key.split('-').collect();
        assert_eq!(name[..2], ["trial", user], "the label's date is not a part of the user's");
        let response = chat(&gateway, key, "/v1/chat/completions").await;
        assert_eq!(response.status, 200, "{user}: {response:?}");
        assert_eq!(response.header("x-ratelimit-limit-requests"), "100");
    }
    // Another gateway takes the script's file as it is.
    let other = Gateway::demo();
    let headers = [("x-admin-token", ADMIN_TOKEN), ("content-type", "text/csv")];
    let url = other.url("/admin/keys/import");
    let report = Client::http1().send(Method::POST, &url, &headers, csv.clone()).await.json();
    assert_eq!(report["new"], 3, "{report}");
    let printed = shell.run(block("9.2"), "");
    let report: Value = serde_json::from_str(printed.split_once('\n').unwrap().1).unwrap();
    assert_eq!((&report["total_requests"], &report["active_keys"]), (&json!(3), &json!(3)));
}
