//! Importing keys and days from the files of other trial-key proxies.

use std::path::{Path, PathBuf};

use crate::common::{Client, Gateway, GatewayCommand, noon_calendar};
use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_quota::clock::Day;

/// A gateway before the demo upstream, and other proxies' files beside it.
struct Scene {
    gateway: GatewayCommand,
    today: Day,
}

impl Scene {
    fn new() -> Self {
        let today = noon_calendar().window(std::time::SystemTime::now()).day;
        let gateway = GatewayCommand::new().env("RUST_LOG", "warn");
        Self { gateway, today }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.gateway.dir().join(name)
    }

    /// Makes a file by these statements.
    fn file(&self, name: &str, sql: &str) -> PathBuf {
        let path = self.path(name);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        path
    }

    /// Runs `gateway import`; returns its exit code and what it printed.
    fn import(&self, file: &Path, more: &[&str]) -> (i32, String) {
        let mut command = self.gateway.clone().arg("import").arg(file.to_str().unwrap());
        for arg in more {
            command = command.arg(arg);
        }
        let output = command.output();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
    }

    fn start(&self) -> Gateway {
        self.gateway.clone().arg("--demo").start()
    }
}

async fn chat(gateway: &Gateway, key: &str) -> u16 {
    let bearer = format!("Bearer {key}");
    let url = gateway.url("/v1/chat/completions");
    let body = r#"{"model":"deepseek-chat","messages":[]}"#;
    let response =
        Client::http1().send(Method::POST, &url, &[("authorization", &bearer)], body).await;
    response.status.as_u16()
}

async fn keys(gateway: &Gateway) -> Vec<Value> {
    let listed = gateway.admin(Method::GET, "/admin/keys", &Value::Null).await;
    listed["keys"].as_array().unwrap().clone()
}

fn last(printed: &str) -> &str {
    printed.lines().last().unwrap_or_default()
}

#[tokio::test]
async fn counts_of_trial_keys_are_continued() {
    let scene = Scene::new();
    let (today, before) = (scene.today, scene.today.minus(1));
    let old = scene.file(
        "old.db",
        &format!(
            "CREATE TABLE trial_keys (key TEXT PRIMARY KEY, label TEXT, created_at INTEGER NOT NULL);
             CREATE TABLE daily_usage (day TEXT NOT NULL, trial_key TEXT NOT NULL,
                 requests INTEGER DEFAULT 0, updated_at INTEGER NOT NULL, PRIMARY KEY (day, trial_key));
             INSERT INTO trial_keys VALUES ('trial_0123456789abcdef0123456789abcdef0123', '用户A', 1739200800000);
             INSERT INTO trial_keys VALUES ('trial_fedcba9876543210fedcba9876543210fedc', NULL, 1739200800000);
             INSERT INTO daily_usage VALUES ('{today}', 'trial_0123456789abcdef0123456789abcdef0123', 199, 0);
             INSERT INTO daily_usage VALUES ('{before}', 'trial_0123456789abcdef0123456789abcdef0123', 57, 0);
             INSERT INTO daily_usage VALUES ('2999-01-01', 'trial_0123456789abcdef0123456789abcdef0123', 5, 0);
             INSERT INTO daily_usage VALUES ('{before}', 'trial_deleted', 3, 0);
             INSERT INTO daily_usage VALUES ('yesterday', 'trial_0123456789abcdef0123456789abcdef0123', 3, 0);"
        ),
    );
    let (code, tried) = scene.import(&old, &["--dry-run"]);
    assert_eq!(
        (code, last(&tried)),
        (0, "2 new, 0 unchanged, 0 conflicts; a dry run, nothing was changed")
    );
    assert!(!scene.path("quota.db").exists());
    for left_out in ["1 days of unknown keys", "1 rows of future days", "1 invalid rows of usage"] {
        assert!(tried.contains(left_out), "{tried}");
    }
    let (code, done) = scene.import(&old, &[]);
    assert_eq!((code, last(&done)), (0, "2 new, 0 unchanged, 0 conflicts"), "{done}");
    assert!(!done.contains("0123456789abcdef"), "no key is printed: {done}");
    for dry_run in [&["--dry-run"][..], &[]] {
        let (code, again) = scene.import(&old, dry_run);
        assert_eq!((code, again.contains("0 new, 2 unchanged, 0 conflicts")), (0, true), "{again}");
    }

    let gateway = scene.start();
    let listed = keys(&gateway).await;
    let first = &listed[0];
    assert_eq!((&first["label"], &first["daily_limit"]), (&json!("用户A"), &json!(200)));
    assert_eq!((&first["used_today"], &first["total_used"]), (&json!(199), &json!(256)));
    assert_eq!(first["created_at"], "2025-02-10T15:20:00Z");
    let key = "trial_0123456789abcdef0123456789abcdef0123";
    assert_eq!([chat(&gateway, key).await, chat(&gateway, key).await], [200, 429]);
    assert_eq!(chat(&gateway, "trial_fedcba9876543210fedcba9876543210fedc").await, 200);
    let usage =
        gateway.admin(Method::GET, &format!("/admin/usage?day={before}"), &Value::Null).await;
    assert_eq!(
        (&usage["total_requests"], &usage["items"][0]["used_today"]),
        (&json!(57), &json!(57))
    );
    let trail = gateway.admin(Method::GET, "/admin/audit?action=key.import", &Value::Null).await;
    assert_eq!(trail["entries"].as_array().unwrap().len(), 2);
    assert_eq!(trail["entries"][0]["token_id"], "command_line");
}

#[tokio::test]
async fn limits_switches_and_sums_of_several_rows_are_imported() {
    let scene = Scene::new();
    let today = scene.today;
    let old = scene.file(
        "old.db",
        &format!(
            "CREATE TABLE trial_keys (key TEXT PRIMARY KEY, label TEXT, created_at INTEGER NOT NULL,
                 expires_at INTEGER, daily_limit INTEGER DEFAULT 200, is_active INTEGER DEFAULT 1);
             CREATE TABLE usage_stats (id INTEGER PRIMARY KEY AUTOINCREMENT, trial_key TEXT NOT NULL,
                 day TEXT NOT NULL, requests INTEGER DEFAULT 0, updated_at INTEGER NOT NULL);
             CREATE TABLE request_logs (id INTEGER PRIMARY KEY AUTOINCREMENT, trial_key TEXT NOT NULL,
                 timestamp INTEGER NOT NULL, endpoint TEXT, status_code INTEGER);
             INSERT INTO trial_keys VALUES ('trial_five_a_day_0001', 'five', 1739200800000, NULL, 5, 1);
             INSERT INTO trial_keys VALUES ('trial_switched_off_01', 'off', 1739200800000, NULL, 5, 0);
             INSERT INTO trial_keys VALUES ('trial_unlimited_00001', 'any', 1739200800000, NULL, 0, 1);
             INSERT INTO trial_keys VALUES ('trial_expired_0000001', 'late', 1739200800000, 1739200900000, 5, 1);
             INSERT INTO trial_keys VALUES ('trial_wrong_limit_001', 'bad', 1739200800000, NULL, -5, 1);
             INSERT INTO trial_keys VALUES ('no key at all', 'two words', 1739200800000, NULL, 5, 1);
             INSERT INTO usage_stats (trial_key, day, requests, updated_at) VALUES
                 ('trial_five_a_day_0001', '{today}', 1, 0), ('trial_five_a_day_0001', '{today}', 3, 0);
             INSERT INTO request_logs (trial_key, timestamp) VALUES ('trial_five_a_day_0001', 1739200800000);"
        ),
    );
    let (code, done) = scene.import(&old, &[]);
    assert_eq!((code, last(&done)), (1, "4 new, 0 unchanged, 2 conflicts"), "{done}");
    for why in ["trial_keys row 5: `daily_limit` must be", "trial_keys row 6: `key` is not a key"] {
        assert!(done.contains(why), "{done}");
    }

    let gateway = scene.start();
    let five = "trial_five_a_day_0001";
    assert_eq!([chat(&gateway, five).await, chat(&gateway, five).await], [200, 429]);
    assert_eq!(chat(&gateway, "trial_switched_off_01").await, 403);
    assert_eq!(chat(&gateway, "trial_unlimited_00001").await, 200);
    assert_eq!(chat(&gateway, "trial_expired_0000001").await, 403);
    assert_eq!(chat(&gateway, "trial_wrong_limit_001").await, 401);
}

#[tokio::test]
async fn keys_with_a_total_quota_get_the_default_daily_limit() {
    let scene = Scene::new();
    let old = scene.file(
        "old.db",
        "CREATE TABLE api_keys (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL,
             label TEXT, total_quota INTEGER DEFAULT 1000, used_quota INTEGER DEFAULT 0,
             created_at DATETIME DEFAULT CURRENT_TIMESTAMP, expires_at DATETIME);
         CREATE TABLE usage_log (id INTEGER PRIMARY KEY AUTOINCREMENT, api_key TEXT, endpoint TEXT,
             timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, response_time INTEGER, status_code INTEGER);
         INSERT INTO api_keys (key, label, used_quota) VALUES ('trial_has_some_left_1', 'some', 2);
         INSERT INTO api_keys (key, label, used_quota) VALUES ('trial_has_none_left_1', 'none', 1000);
         INSERT INTO usage_log (api_key) VALUES ('trial_has_some_left_1'), ('trial_has_some_left_1');",
    );
    let (code, done) = scene.import(&old, &["--daily-req-limit", "3"]);
    assert_eq!((code, last(&done)), (0, "2 new, 0 unchanged, 0 conflicts"), "{done}");
    assert!(done.contains("2 keys had a total quota") && done.contains("3 a day"), "{done}");
    let gateway = scene.start();
    let some = "trial_has_some_left_1";
    assert_eq!([chat(&gateway, some).await, chat(&gateway, some).await], [200, 429]);
    assert_eq!(chat(&gateway, "trial_has_none_left_1").await, 403);
}

#[tokio::test]
async fn keys_stored_as_hashes_work() {
    let scene = Scene::new();
    let key = "trial_kept_as_a_hash_1";
    let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    let old = scene.file(
        "old.db",
        &format!(
            "CREATE TABLE api_keys (id INTEGER PRIMARY KEY AUTOINCREMENT, key_hash TEXT NOT NULL UNIQUE,
                 key_type TEXT NOT NULL DEFAULT 'trial', name TEXT,
                 created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP,
                 total_quota INTEGER DEFAULT 1000, used_quota INTEGER DEFAULT 0,
                 is_active BOOLEAN DEFAULT 1, metadata TEXT);
             CREATE TABLE request_logs (id INTEGER PRIMARY KEY AUTOINCREMENT, key_hash TEXT NOT NULL,
                 endpoint TEXT NOT NULL, method TEXT NOT NULL, request_time TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
             INSERT INTO api_keys (key_hash, name) VALUES ('{hash}', 'hashed'), ('$2b$10$bcrypt', 'no SHA-256');
             INSERT INTO request_logs (key_hash, endpoint, method) VALUES ('{hash}', '/v1', 'POST');"
        ),
    );
    let (code, done) = scene.import(&old, &[]);
    assert_eq!((code, last(&done)), (1, "1 new, 0 unchanged, 1 conflicts"), "{done}");
    assert!(done.contains("row 2: `key_sha256` must be 64"), "{done}");
    let gateway = scene.start();
    assert_eq!(chat(&gateway, key).await, 200);
    let listed = keys(&gateway).await;
    assert_eq!((&listed[0]["label"], &listed[0]["used_today"]), (&json!("hashed"), &json!(2)));
}

#[tokio::test]
async fn a_file_without_such_keys_is_rejected_and_left_as_it_is() {
    let scene = Scene::new();
    let rejected = |file: &Path, word: &str| {
        let (code, printed) = scene.import(file, &[]);
        assert_eq!((code, printed.lines().count()), (2, 1), "{printed}");
        assert!(printed.contains(word), "{printed}");
    };
    rejected(&scene.path("missing.db"), "missing.db cannot be read");
    rejected(
        &scene.file("empty.db", "CREATE TABLE licenses (key TEXT)"),
        "neither trial_keys nor api_keys",
    );
    let text = scene.path("text.db");
    std::fs::write(&text, "no database, but longer than a header of one has to be; ".repeat(9))
        .unwrap();
    rejected(&text, "text.db cannot be read");

    let gateway = scene.start();
    let own = scene.path("quota.db");
    rejected(&own, "this gateway's own");
    let old = scene.file(
        "old.db",
        "CREATE TABLE trial_keys (key TEXT PRIMARY KEY, label TEXT, created_at INTEGER)",
    );
    rejected(&old, "DATABASE_URL");
    drop(gateway);

    // The old file is used as the gateway's database.
    let command = scene.gateway.clone().env("SQLITE_PATH", old.to_str().unwrap());
    let error = command.try_start().err().unwrap();
    assert!(error.contains("import keys from this one"), "{error}");
    let tables = "SELECT group_concat(name) FROM sqlite_master";
    let tables: String =
        Connection::open(&old).unwrap().query_row(tables, [], |row| row.get(0)).unwrap();
    assert!(!tables.contains("api_keys"), "{tables}");
}

#[tokio::test]
async fn revoked_keys_are_not_imported_again() {
    let scene = Scene::new();
    let old = scene.file(
        "old.db",
        &format!(
            "CREATE TABLE trial_keys (key TEXT PRIMARY KEY, label TEXT, created_at INTEGER NOT NULL);
             CREATE TABLE daily_usage (day TEXT NOT NULL, trial_key TEXT NOT NULL, requests INTEGER,
                 PRIMARY KEY (day, trial_key));
             INSERT INTO trial_keys VALUES ('trial_is_rotated_0001', 'rotated', 0);
             INSERT INTO trial_keys VALUES ('trial_is_deleted_0001', 'deleted', 0);
             INSERT INTO trial_keys VALUES ('trial_stays_as_it_is1', 'stays', 0);
             INSERT INTO daily_usage SELECT '{}', key, 9 FROM trial_keys;",
            scene.today.minus(1)
        ),
    );
    assert_eq!(scene.import(&old, &[]).0, 0);
    let mut gateway = scene.start();
    let path = "/admin/keys/trial_is_rotated_0001/rotate";
    gateway.admin(Method::POST, path, &json!({})).await;
    gateway.admin(Method::DELETE, "/admin/keys/trial_is_deleted_0001", &Value::Null).await;
    gateway.kill9();

    for args in [&["--dry-run"][..], &[]] {
        let (code, again) = scene.import(&old, args);
        assert_eq!(code, 1, "{again}");
        assert!(last(&again).starts_with("0 new, 1 unchanged, 2 conflicts"), "{again}");
        assert_eq!(again.matches("was rotated or deleted here").count(), 2, "{again}");
    }
    let gateway = scene.start();
    for (key, status) in [
        ("trial_is_rotated_0001", 401),
        ("trial_is_deleted_0001", 401),
        ("trial_stays_as_it_is1", 200),
    ] {
        assert_eq!(chat(&gateway, key).await, status, "{key}");
    }
    let path = format!("/admin/usage?day={}", scene.today.minus(1));
    let usage = gateway.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(usage["total_requests"], 27, "counted once");
}

#[tokio::test]
async fn columns_in_any_case_and_times_in_any_format_are_accepted() {
    let scene = Scene::new();
    let old = scene.file(
        "old.db",
        "CREATE TABLE Trial_Keys (Key TEXT PRIMARY KEY, Label TEXT, Created_At REAL, Daily_Limit INTEGER,
             Is_Active INTEGER, Expires_At TEXT);
         CREATE TABLE daily_usage (day TEXT, trial_key TEXT, requests INTEGER);
         CREATE TABLE usage_logs (key_id INTEGER, timestamp INTEGER);
         CREATE TABLE request_logs (Trial_Key TEXT, Timestamp REAL);
         INSERT INTO Trial_Keys VALUES ('trial_is_switched_off', 'off', 1739200800.25, 5, 0, NULL);
         INSERT INTO Trial_Keys VALUES ('trial_is_past_its_end', 'late', 'junk', 5, 1, '2020/02/10');
         INSERT INTO Trial_Keys VALUES ('trial_works_as_before', 'works', NULL, 5, 1, NULL);
         INSERT INTO request_logs SELECT 'trial_works_as_before', unixepoch('now') + 0.25;",
    );
    let (code, done) = scene.import(&old, &[]);
    assert_eq!((code, last(&done)), (0, "3 new, 0 unchanged, 0 conflicts"), "{done}");
    assert!(done.contains("usage_logs has no column for keys"), "{done}");
    let gateway = scene.start();
    let listed = keys(&gateway).await;
    assert_eq!(listed[0]["created_at"], "2025-02-10T15:20:00Z");
    assert_eq!(listed[2]["used_today"], 1, "an empty table of sums has none");
    for (key, status) in [
        ("trial_is_switched_off", 403),
        ("trial_is_past_its_end", 403),
        ("trial_works_as_before", 200),
    ] {
        assert_eq!(chat(&gateway, key).await, status, "{key}");
    }
}
