//! The rules, dashboard and pages in docs/operations match the gateway's metrics.

use std::{fs, path::Path, process::Command};

use crate::common::{Client, Figures, Gateway};
use serde_json::{Value, json};
use tower_quota::error::catalog;

fn promtool(arguments: &[&str], input: Option<&Path>) {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations"));
    if let Some(input) = input {
        promtool.stdin(fs::File::open(input).unwrap());
    }
    let output = promtool.output().unwrap();
    let reported = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {reported}");
    println!("promtool {}: {reported}", arguments.join(" "));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs promtool"]
async fn promtool_finds_no_error() {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({})).await;
    for stream in [false, true] {
        let body = json!({"model": "demo", "messages": [], "stream": stream});
        Client::http1().post_as(&key, &gateway.url("/v1/chat/completions"), &body).await;
    }
    Client::http1().get(&gateway.url("/v1/x")).await;
    let text = Figures::of(&gateway).await.text;
    let file = gateway.dir().join("metrics.txt");
    fs::write(&file, text).unwrap();
    promtool(&["check", "metrics"], Some(&file));
    promtool(&["check", "rules", "alerts.yml"], None);
    promtool(&["test", "rules", "alerts_test.yml"], None);
}

#[test]
fn each_page_says_what_to_do_on_every_alert() {
    let alerts = include_str!("../../docs/operations/alerts.yml");
    let alerts: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for page in [
        include_str!("../../docs/operations/README.md"),
        include_str!("../../docs/operations/README.zh.md"),
    ] {
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
        for alert in &alerts {
            let names = |row: &str| row.split('|').nth(1).unwrap().contains(alert);
            assert!(rows.iter().any(|row| names(row)), "{alert}");
        }
    }
}

#[test]
fn each_page_describes_every_metric() {
    describes_every_metric(include_str!("../../docs/operations/metrics.md"));
    describes_every_metric(include_str!("../../docs/operations/metrics.zh.md"));
}

fn describes_every_metric(page: &str) {
    for metric in tower_quota::metrics::ALL {
        assert!(page.contains(&format!("`{}`", metric.name())), "{metric:?}");
    }
    for code in [catalog::LAYERS, catalog::UPSTREAM].into_iter().flatten() {
        assert!(page.contains(&format!("`{}`", code.code())), "{code:?}");
    }
    let dashboard: Value =
        serde_json::from_str(include_str!("../../docs/operations/dashboard.json")).unwrap();
    let alerts = include_str!("../../docs/operations/alerts.yml");
    let reported = |name: &str| page.contains(&format!("`{name}`"));
    for text in [dashboard.to_string(), alerts.to_owned()] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.starts_with("tower_quota_")) {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix).filter(|name| reported(name)))
                .unwrap_or(name);
            assert!(reported(name), "{name}");
        }
    }
}
