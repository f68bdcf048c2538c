//! Importing keys of one-api, new-api and LiteLLM: they continue to work, and no limit is lost silently.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::common::{Client, CollectedResponse, Gateway, GatewayCommand};
use http::Method;
use rusqlite::{Connection, params};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The tables of one-api.
const ONE_API: &str = "
    CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT, `username` text UNIQUE,
        `password` text NOT NULL, `display_name` text, `role` int DEFAULT 1, `status` int DEFAULT 1,
        `email` text, `access_token` char(32), `quota` bigint DEFAULT 0, `used_quota` bigint DEFAULT 0,
        `request_count` int DEFAULT 0, `group` varchar(32) DEFAULT 'default');
    CREATE TABLE `tokens` (`id` integer PRIMARY KEY AUTOINCREMENT, `user_id` integer, `key` char(48),
        `status` integer DEFAULT 1, `name` text, `created_time` bigint, `accessed_time` bigint,
        `expired_time` bigint DEFAULT -1, `remain_quota` bigint DEFAULT 0,
        `unlimited_quota` numeric DEFAULT false, `used_quota` bigint DEFAULT 0, `models` text,
        `subnet` text DEFAULT '');
    CREATE UNIQUE INDEX `idx_tokens_key` ON `tokens`(`key`);
    CREATE TABLE `channels` (`id` integer PRIMARY KEY AUTOINCREMENT, `key` text, `status` integer);
    INSERT INTO users (id, username, password, role, status, quota) VALUES
        (1, 'root', 'x', 100, 1, 500000000), (2, 'bob', 'x', 1, 1, 500000),
        (3, 'eve', 'x', 1, 2, 500000), (4, 'poor', 'x', 1, 1, 0);
    INSERT INTO channels (key, status) VALUES ('sk-sponsor-secret', 1);";

/// The tables of new-api.
const NEW_API: &str = "
    CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT, `username` text UNIQUE,
        `password` text NOT NULL, `role` int DEFAULT 1, `status` int DEFAULT 1, `quota` int DEFAULT 0,
        `group` varchar(64) DEFAULT 'default', `deleted_at` datetime, `setting` text);
    CREATE TABLE `tokens` (`id` integer PRIMARY KEY AUTOINCREMENT, `user_id` integer,
        `key` varchar(128), `status` integer DEFAULT 1, `name` text, `created_time` bigint,
        `accessed_time` bigint, `expired_time` bigint DEFAULT -1, `remain_quota` integer DEFAULT 0,
        `unlimited_quota` numeric, `model_limits_enabled` numeric, `model_limits` text,
        `allow_ips` text DEFAULT '', `used_quota` integer DEFAULT 0, `group` text DEFAULT '',
        `cross_group_retry` numeric, `deleted_at` datetime);
    INSERT INTO users (id, username, password, role, status, quota, deleted_at) VALUES
        (1, 'root', 'x', 100, 1, 500000000, NULL),
        (2, 'left', 'x', 1, 1, 500000, '2025-02-10 15:20:00.5+08:00');";

/// The columns of LiteLLM_VerificationToken that a row of the tests fills; others are empty.
const LITELLM: &str = "token,key_name,key_alias,soft_budget_cooldown,spend,expires,models,aliases,config,\
    user_id,team_id,permissions,max_parallel_requests,metadata,blocked,tpm_limit,rpm_limit,max_budget,\
    budget_duration,budget_reset_at,allowed_cache_controls,allowed_routes,model_spend,\
    model_max_budget,budget_id,organization_id,created_at,created_by";

/// A gateway before the demo upstream, and other programs' files beside it.
struct Scene {
    gateway: GatewayCommand,
}

/// One key of a LiteLLM table, by columns.
type Fields<'a> = BTreeMap<&'a str, String>;

impl Scene {
    fn new() -> Self {
        let gateway = GatewayCommand::new().env("RUST_LOG", "warn");
        Self { gateway }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.gateway.dir().join(name)
    }

    /// Makes an SQLite file by these statements.
    fn sqlite(&self, name: &str, sql: &str) -> Connection {
        let connection = Connection::open(self.path(name)).unwrap();
        connection.pragma_update(None, "synchronous", "off").unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    fn text(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Runs `gateway import`; returns its exit code and what it printed.
    fn import(&self, name: &str, more: &[&str]) -> (i32, String) {
        let mut command = self.gateway.clone().arg("import").arg(name);
        for arg in more {
            command = command.arg(arg);
        }
        // A file, as a long report fills a pipe.
        let report = tempfile::NamedTempFile::new().unwrap();
        let output = || report.reopen().unwrap();
        let status = command.stdout(output()).stderr(output()).output().status;
        (status.code().unwrap(), fs::read_to_string(report.path()).unwrap())
    }

    fn start(&self) -> Gateway {
        self.gateway.clone().arg("--demo").start()
    }

    /// All files beside the gateway's own, with the hashes of what they hold.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.gateway.dir()).unwrap().map(Result::unwrap);
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
        named
            .filter(|(name, _)| !name.starts_with("quota.db"))
            .map(|(name, path)| (name, hash(fs::read(path).unwrap())))
            .collect()
    }
}

/// Returns a key of 48 characters with this beginning.
fn key48(begins: &str) -> String {
    format!("{begins:a<48}")
}

fn add_token(connection: &Connection, user: u32, begins: &str, name: &str, rest: &str) {
    let sql =
        "INSERT INTO tokens (user_id, key, name, created_time) VALUES (?1, ?2, ?3, 1739200800)";
    connection.execute(sql, params![user, key48(begins), name]).unwrap();
    let sql = format!("UPDATE tokens SET {rest} WHERE id = last_insert_rowid()");
    connection.execute(&sql, []).unwrap();
}

async fn chat(gateway: &Gateway, key: &str) -> CollectedResponse {
    let bearer = format!("Bearer {key}");
    let url = gateway.url("/v1/chat/completions");
    let body = r#"{"model":"deepseek-chat","messages":[]}"#;
    Client::http1().send(Method::POST, &url, &[("authorization", &bearer)], body).await
}

/// The status of a chat with this key, and the code of its rejection.
async fn outcome(gateway: &Gateway, key: &str) -> (u16, String) {
    let response = chat(gateway, key).await;
    let code = response.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
    (response.status.as_u16(), code)
}

async fn keys(gateway: &Gateway) -> Vec<Value> {
    let listed = gateway.admin(Method::GET, "/admin/keys?limit=1000", &Value::Null).await;
    listed["keys"].as_array().unwrap().clone()
}

fn last(printed: &str) -> &str {
    printed.lines().last().unwrap_or_default()
}

/// Returns the line of the report that contains `part`.
fn line<'a>(printed: &'a str, part: &str) -> &'a str {
    let mut lines = printed.lines().filter(|line| line.contains(part));
    let line = lines.next().unwrap_or_else(|| panic!("no line with {part}:\n{printed}"));
    assert_eq!(lines.next(), None, "{part} is in one line");
    line
}

#[tokio::test]
async fn keys_of_one_api_continue_to_work() {
    let scene = Scene::new();
    let tokens = scene.sqlite("one-api.db", ONE_API);
    add_token(&tokens, 1, "Works", "小明", "remain_quota = 500000");
    add_token(&tokens, 2, "Bobs", "laptop", "unlimited_quota = 1, expired_time = 4102444800");
    add_token(&tokens, 1, "Late", "late", "unlimited_quota = true, expired_time = 1739200900");
    add_token(&tokens, 1, "Marked", "marked", "status = 3, expired_time = 1739200900");
    add_token(&tokens, 1, "Off", "off", "unlimited_quota = 1, status = 2");
    add_token(&tokens, 1, "Spent", "spent", "status = 4");
    add_token(&tokens, 1, "Empty", "empty", "remain_quota = 0");
    add_token(&tokens, 3, "Eves", "barred", "unlimited_quota = 1");
    add_token(&tokens, 4, "Poor", "poor", "unlimited_quota = 1");
    add_token(&tokens, 9, "Orphan", "orphan", "unlimited_quota = 1");
    // Seconds of the year 9999 are no milliseconds of 1978.
    add_token(&tokens, 1, "Far", "", "unlimited_quota = 1, expired_time = 253402207199");

    let before = scene.files();
    let (code, tried) = scene.import("one-api.db", &["--dry-run"]);
    let summary = "11 new, 0 unchanged, 0 conflicts";
    assert_eq!(code, 0, "{tried}");
    assert_eq!(last(&tried), format!("{summary}; a dry run, nothing was changed"));
    assert!(!scene.path("quota.db").exists());
    let (code, done) = scene.import("one-api.db", &[]);
    assert_eq!((code, last(&done)), (0, summary), "{done}");
    assert_eq!(tried.lines().count(), done.lines().count());
    assert_eq!(before, scene.files(), "the source is as it was");
    assert!(!done.contains(&key48("Works")[..8]), "no key is printed: {done}");
    for (part, said) in [
        ("id 1 ", "\"小明\"  200 a day  not kept: remain_quota 500000"),
        ("id 2 ", "\"laptop (bob)\"  200 a day  expires 2100-01-01T00:00:00Z"),
        ("id 3 ", "expired 2025-02-10T15:21:40Z"),
        ("id 4 ", "expired 2025-02-10T15:21:40Z"),
        ("id 5 ", "disabled: it was disabled there"),
        ("id 6 ", "disabled: its quota was used up there"),
        ("id 7 ", "disabled: its quota was used up there"),
        ("id 8 ", "disabled: its owner is disabled there"),
        ("id 9 ", "disabled: its owner's quota was used up there"),
        ("id 10 ", "disabled: its owner does not exist there"),
    ] {
        let line = line(&done, part);
        assert!(line.contains(said), "{line}");
    }
    let (code, again) = scene.import("one-api.db", &["--from", "new-api"]);
    assert_eq!((code, last(&again)), (0, "0 new, 11 unchanged, 0 conflicts"), "{again}");

    let gateway = scene.start();
    for (begins, status, rejection) in [
        ("Works", 200, ""),
        ("Bobs", 200, ""),
        ("Far", 200, ""),
        ("Late", 403, "key_expired"),
        ("Marked", 403, "key_expired"),
        ("Off", 403, "key_disabled"),
        ("Spent", 403, "key_disabled"),
        ("Empty", 403, "key_disabled"),
        ("Eves", 403, "key_disabled"),
        ("Poor", 403, "key_disabled"),
        ("Orphan", 403, "key_disabled"),
    ] {
        let key = format!("sk-{}", key48(begins));
        assert_eq!(outcome(&gateway, &key).await, (status, rejection.to_owned()), "{begins}");
    }
    // There are no channels here: a request for one must not be served by another.
    let key = format!("sk-{}-3", key48("Works"));
    assert_eq!(outcome(&gateway, &key).await.0, 401);
    assert_eq!(outcome(&gateway, &key48("Works")).await.0, 401, "holders have it with sk-");
    assert_eq!(outcome(&gateway, "sk-sponsor-secret").await.0, 401, "a channel's key is none");

    let listed = keys(&gateway).await;
    let first = listed.iter().find(|key| key["label"] == "小明").unwrap();
    assert_eq!(first["key"], "sk-…aaaa");
    assert_eq!((&first["daily_limit"], &first["used_today"]), (&json!(200), &json!(1)));
    assert_eq!(first["created_at"], "2025-02-10T15:20:00Z");
    let trail = gateway.admin(Method::GET, "/admin/audit?action=key.import", &Value::Null).await;
    assert_eq!(trail["entries"].as_array().unwrap().len(), 11);
}

#[tokio::test]
async fn access_lists_of_new_api_are_dropped_only_with_the_flag() {
    let scene = Scene::new();
    let tokens = scene.sqlite("new-api.db", NEW_API);
    let unlimited = |more: &str| format!("unlimited_quota = 1{more}");
    add_token(
        &tokens,
        1,
        "Free",
        "free",
        &unlimited(", model_limits = 'gpt-4o', \"group\" = 'vip'"),
    );
    add_token(
        &tokens,
        1,
        "Models",
        "models",
        &unlimited(", model_limits_enabled = 1, model_limits = 'gpt-4o'"),
    );
    add_token(&tokens, 1, "None", "none", &unlimited(", model_limits_enabled = 1"));
    add_token(
        &tokens,
        1,
        "Ips",
        "ips",
        &unlimited(", allow_ips = '10.0.0.1' || char(10) || '::1'"),
    );
    add_token(&tokens, 1, "Deleted", "deleted", &unlimited(", deleted_at = '2025-02-10 15:20:00'"));
    add_token(&tokens, 2, "Left", "left", &unlimited(""));

    let (code, done) = scene.import("new-api.db", &["--daily-limit", "2"]);
    let summary = "2 new, 0 unchanged, 3 conflicts, 1 skipped";
    assert_eq!((code, last(&done)), (1, summary), "{done}");
    assert!(line(&done, "id 1 ").ends_with("2 a day  not kept: group vip"), "{done}");
    let hint = "which is not kept here; --drop-access-lists imports it without";
    for (part, said) in [
        ("id 2 ", "is restricted to model_limits gpt-4o, "),
        ("id 3 ", "is restricted to model_limits (none), "),
        ("id 4 ", "is restricted to allow_ips 10.0.0.1\\n::1, "),
    ] {
        let line = line(&done, part);
        assert!(line.contains(said) && line.ends_with(hint), "{line}");
    }
    assert!(line(&done, "id 5 ").ends_with("was deleted there"), "{done}");
    assert!(line(&done, "id 6 ").contains("disabled: its owner was deleted there"), "{done}");

    let (code, done) = scene.import("new-api.db", &["--daily-limit", "2", "--drop-access-lists"]);
    let summary = "3 new, 2 unchanged, 0 conflicts, 1 skipped";
    assert_eq!((code, last(&done)), (0, summary), "{done}");
    assert!(line(&done, "id 4 ").ends_with("not kept: allow_ips 10.0.0.1\\n::1"), "{done}");

    let gateway = scene.start();
    let key = format!("sk-{}", key48("Ips"));
    for status in [200, 200, 429] {
        assert_eq!(outcome(&gateway, &key).await.0, status);
    }
    assert_eq!(outcome(&gateway, &format!("sk-{}", key48("Deleted"))).await.0, 401);
    assert_eq!(outcome(&gateway, &format!("sk-{}", key48("Left"))).await.0, 403);
}

fn litellm_key(number: usize) -> String {
    format!("sk-{number:022}")
}

fn hash(key: impl AsRef<[u8]>) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A row of LiteLLM for this key.
fn litellm_row<'a>(number: usize, fields: &[(&'a str, &str)]) -> Fields<'a> {
    let key = litellm_key(number);
    let mut row = Fields::from([
        ("token", hash(&key)),
        ("key_name", format!("sk-...{}", &key[key.len() - 4..])),
        ("key_alias", format!("key {number}")),
        ("soft_budget_cooldown", "f".to_owned()),
        ("spend", "0.25".to_owned()),
        ("models", "{}".to_owned()),
        ("aliases", "{}".to_owned()),
        ("metadata", "{}".to_owned()),
        ("created_at", "2025-02-10 15:20:00.123".to_owned()),
    ]);
    row.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
    row
}

/// A file of these rows, in the order of these columns.
fn csv_of(columns: &[&str], separator: u8, null: &str, rows: &[Fields<'_>]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
    writer.write_record(columns).unwrap();
    for row in rows {
        let value = |name: &&str| row.get(*name).map_or(null, String::as_str);
        let values: Vec<&str> = columns.iter().map(value).collect();
        writer.write_record(values).unwrap();
    }
    writer.into_inner().unwrap()
}

fn psql(rows: &[Fields<'_>]) -> Vec<u8> {
    csv_of(&LITELLM.split(',').collect::<Vec<_>>(), b',', "", rows)
}

#[tokio::test]
async fn keys_of_litellm_continue_to_work_by_their_hashes() {
    let rows = [
        litellm_row(1, &[("key_alias", "用户A"), ("metadata", r#"{"tags": ["a", "b"]}"#)]),
        litellm_row(2, &[("expires", "2025-02-10 15:20:00"), ("rpm_limit", "60")]),
        litellm_row(3, &[("expires", "2100-01-01 00:00:00+00"), ("team_id", "team-1")]),
        litellm_row(4, &[("blocked", "t")]),
        litellm_row(5, &[("max_budget", "0.25"), ("budget_reset_at", "2100-01-01 00:00:00")]),
        litellm_row(6, &[("max_budget", "10"), ("models", "{all-proxy-models}")]),
        litellm_row(7, &[("models", r#"{gpt-4o,"claude 3"}"#)]),
        litellm_row(8, &[("allowed_routes", "{management_routes}")]),
        litellm_row(9, &[("allowed_routes", "{llm_api_routes}"), ("expires", "infinity")]),
        litellm_row(10, &[("team_id", "litellm-dashboard")]),
        litellm_row(11, &[("expires", "next Tuesday")]),
        litellm_row(12, &[("blocked", "perhaps")]),
        litellm_row(13, &[("token", "no hash"), ("key_alias", "raw")]),
        litellm_row(14, &[("spend", "NaN"), ("max_budget", "1")]),
        // It was named with the whole key, and is not to be shown.
        litellm_row(15, &[("key_name", &litellm_key(15)), ("user_id", "ann@example.com")]),
    ];
    let psql_file = psql(&rows);
    // Another tool: other columns in another order, a mark at the beginning, its own form of nothing,
    // of truth and of times.
    let mut columns: Vec<&str> = LITELLM.split(',').rev().collect();
    columns.insert(3, "of a later version");
    let mut distinguished = rows.clone();
    for row in &mut distinguished {
        let reformed = row.iter().map(|(name, value)| match &**value {
            "t" => (*name, "true".to_owned()),
            "f" => (*name, "false".to_owned()),
            "{}" if *name == "models" => (*name, "[NULL]".to_owned()),
            text if text.ends_with("+00") => (*name, text.replace("+00", ".000 +0000")),
            text => (*name, text.to_owned()),
        });
        *row = reformed.collect();
        row.insert("of a later version", "line\nbreak; and \"more\"".to_owned());
    }
    let other_file =
        ["\u{feff}".as_bytes(), &csv_of(&columns, b';', "[NULL]", &distinguished)].concat();
    let other_file = String::from_utf8(other_file).unwrap().replace("\"\n", "\"\r\n");

    let mut reports = Vec::new();
    for file in [psql_file.as_slice(), other_file.as_bytes()] {
        let scene = Scene::new();
        scene.text("keys.csv", file);
        let (code, done) = scene.import("keys.csv", &[]);
        let summary = "8 new, 0 unchanged, 6 conflicts, 1 skipped";
        assert_eq!((code, last(&done)), (1, summary), "{done}");
        assert!(!done.contains("00000000"), "no key is printed: {done}");
        for (part, said) in [
            ("row 1 ", "sk-…0001  \"用户A\"  200 a day  not kept: metadata"),
            ("row 2 ", "expired 2025-02-10T15:20:00Z  not kept: rpm_limit 60"),
            ("row 3 ", "expires 2100-01-01T00:00:00Z  not kept: team_id team-1"),
            ("row 4 ", "disabled: it was blocked there"),
            ("row 5 ", "disabled: its budget was used up there until 2100-01-01 00:00:00"),
            ("row 6 ", "200 a day  not kept: max_budget 10"),
            ("row 7 ", "is restricted to models {gpt-4o,\"claude 3\"}, which is not kept here"),
            ("row 8 ", "is restricted to allowed_routes {management_routes}"),
            ("row 9 ", "200 a day"),
            ("row 10 ", "opens LiteLLM's own pages"),
            ("row 11 ", "`expires` must be a time such as"),
            ("row 12 ", "`blocked` must be true or false"),
            ("row 13 ", "`token` must be 64 hexadecimal digits"),
            ("row 14 ", "`spend` must be a number"),
            ("row 15 ", "  …  \"key 15\"  200 a day"),
            ("belong to teams", "note: keys that belong to teams: 1; "),
        ] {
            let line = line(&done, part);
            assert!(line.contains(said), "{line}");
        }
        let (code, done) = scene.import("keys.csv", &["--drop-access-lists", "--from", "litellm"]);
        let summary = "2 new, 8 unchanged, 4 conflicts, 1 skipped";
        assert_eq!((code, last(&done)), (1, summary), "{done}");
        reports.push(done);

        let gateway = scene.start();
        for (number, status) in [
            (1, 200),
            (2, 403),
            (3, 200),
            (4, 403),
            (5, 403),
            (6, 200),
            (7, 200),
            (8, 200),
            (9, 200),
            (10, 401),
            (11, 401),
            (12, 401),
            (13, 401),
            (14, 401),
            (15, 200),
        ] {
            let (found, _) = outcome(&gateway, &litellm_key(number)).await;
            assert_eq!(found, status, "{number}");
        }
        let listed = keys(&gateway).await;
        let first = listed.iter().find(|key| key["label"] == "用户A").unwrap();
        assert_eq!((&first["key"], &first["used_today"]), (&json!("sk-…0001"), &json!(1)));
        assert_eq!(first["created_at"], "2025-02-10T15:20:00Z");
        assert_eq!(outcome(&gateway, &hash(litellm_key(1))).await.0, 401, "a hash is no key");
    }
    assert_eq!(reports[0], reports[1], "both files say the same");
}

#[tokio::test]
async fn a_file_of_another_format_is_rejected_with_what_was_found() {
    let scene = Scene::new();
    let rejected = |name: &str, args: &[&str], parts: &[&str]| {
        let (code, printed) = scene.import(name, args);
        assert_eq!((code, printed.lines().count()), (2, 1), "{name}: {printed}");
        for part in parts {
            assert!(printed.contains(part), "{name}: {part} is not in {printed}");
        }
        assert!(!printed.contains("sk-"), "{printed}");
    };
    rejected("missing.db", &[], &["missing.db cannot be read"]);
    rejected(".", &[], &["not a regular file"]);
    scene.text("empty.db", "");
    rejected("empty.db", &[], &["empty.db is empty"]);

    scene.sqlite("tokens.db", "CREATE TABLE tokens (id, token, user); CREATE TABLE sessions (id)");
    let lacks = "it has no key, status, expired_time, remain_quota, unlimited_quota";
    rejected("tokens.db", &[], &["neither trial_keys nor api_keys", lacks, "tokens, sessions"]);
    rejected("tokens.db", &["--from", "one-api"], &[lacks, "found: tokens, sessions"]);
    rejected("tokens.db", &["--from", "litellm"], &["--from litellm requires CSV"]);
    let both = format!("{ONE_API} CREATE TABLE trial_keys (key TEXT, label TEXT);");
    scene.sqlite("both.db", &both);
    rejected("both.db", &[], &["trial_keys and tokens", "--from trial-keys or --from one-api"]);
    assert_eq!(scene.import("both.db", &["--from", "one-api", "--dry-run"]).0, 0);
    rejected("both.db", &["--from", "litellm"], &["CSV"]);

    let whole = scene.sqlite("whole.db", ONE_API);
    for at in 0..400 {
        add_token(&whole, 1, &format!("K{at}x"), "k", "unlimited_quota = 1");
    }
    drop(whole);
    let bytes = fs::read(scene.path("whole.db")).unwrap();
    for length in [20, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        scene.text("cut.db", &bytes[..length]);
        rejected("cut.db", &[], &["cut.db cannot be read", "damaged or truncated"]);
    }
    let mut damaged = bytes.clone();
    damaged[4096..].fill(0xa5);
    scene.text("damaged.db", damaged);
    rejected("damaged.db", &[], &["damaged or truncated"]);

    scene.text("keys.txt", "sk-0123456789abcdef\nsk-fedcba9876543210\n");
    rejected("keys.txt", &[], &["no LiteLLM header", "LiteLLM_VerificationToken as CSV"]);
    rejected("keys.txt", &["--from", "one-api"], &["not an SQLite database"]);
    scene.text("own.csv", "key,label,daily_limit\ntrial-a-b-c,Alice,5\n");
    rejected("own.csv", &[], &["operator's page"]);
    scene.text("some.csv", "token,key_alias,models,blocked\n");
    rejected("some.csv", &[], &["lacks the columns expires, spend, max_budget", "key_alias"]);
    scene.text("twice.csv", format!("{LITELLM},token\n"));
    rejected("twice.csv", &[], &["the column token twice"]);
    let wide: Vec<u8> = LITELLM.encode_utf16().flat_map(u16::to_le_bytes).collect();
    scene.text("wide.csv", [&[0xff, 0xfe], &*wide].concat());
    rejected("wide.csv", &[], &["UTF-16"]);
    scene.text("noise.bin", (0..=255).cycle().take(5000).collect::<Vec<u8>>());
    rejected("noise.bin", &[], &["neither an SQLite database nor text"]);
    assert!(!scene.path("quota.db").exists(), "nothing was begun");

    scene.text("long.csv", "x".repeat(200_000));
    rejected("long.csv", &[], &["first line is too long"]);

    // A CSV file that is truncated within a row: complete rows are imported.
    let rows: Vec<_> = (1..=3).map(|number| litellm_row(number, &[])).collect();
    let whole = psql(&rows);
    scene.text("cut.csv", &whole[..whole.len() - 60]);
    let (code, printed) = scene.import("cut.csv", &[]);
    assert_eq!((code, last(&printed)), (1, "2 new, 0 unchanged, 1 conflicts"), "{printed}");
    assert!(line(&printed, "row 3").contains("the file may be truncated"), "{printed}");
}

#[test]
fn the_source_is_read_while_its_program_runs_and_stays_as_it_is() {
    let scene = Scene::new();
    // With a write-ahead log, of which nothing is in the database yet.
    let running = scene.sqlite("new-api.db", &format!("PRAGMA journal_mode = wal; {NEW_API}"));
    add_token(&running, 1, "Works", "works", "unlimited_quota = 1");
    running.execute_batch("BEGIN; DELETE FROM tokens;").unwrap();
    let before = scene.files();
    assert!(before.contains_key("new-api.db-wal"));
    let (code, done) = scene.import("new-api.db", &[]);
    assert_eq!((code, last(&done)), (0, "1 new, 0 unchanged, 0 conflicts"), "{done}");
    let after = scene.files();
    for name in ["new-api.db", "new-api.db-wal"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    running.execute_batch("COMMIT").unwrap();
    // Closed: no log beside it, and none after.
    drop(running);
    let before = scene.files();
    assert!(!before.contains_key("new-api.db-wal"));
    let (code, done) = scene.import("new-api.db", &[]);
    assert_eq!((code, last(&done)), (0, "0 new, 0 unchanged, 0 conflicts"), "{done}");
    assert_eq!(scene.files(), before);

    // A rollback journal, in the middle of a change.
    let running = scene.sqlite("one-api.db", ONE_API);
    add_token(&running, 1, "Works", "works", "unlimited_quota = 1");
    running.execute_batch("BEGIN IMMEDIATE; DELETE FROM tokens;").unwrap();
    let (code, done) = scene.import("one-api.db", &["--dry-run"]);
    assert_eq!(code, 0, "{done}");
    // As a killed program leaves it: pages that are to be rolled back are in the file already.
    for at in 0..2000 {
        add_token(&running, 1, &format!("N{at}x"), "new", "unlimited_quota = 1");
    }
    running.execute_batch("PRAGMA cache_size = 1; UPDATE tokens SET name = 'other'").unwrap();
    for beside in ["", "-journal"] {
        let copy = scene.path(&format!("killed.db{beside}"));
        fs::copy(scene.path(&format!("one-api.db{beside}")), copy).unwrap();
    }
    drop(running);
    let before = scene.files();
    let (code, done) = scene.import("killed.db", &[]);
    assert_eq!((code, done.lines().count()), (2, 1), "{done}");
    assert!(done.contains("start that program once, stop it, and try again"), "{done}");
    assert_eq!(scene.files(), before);
}

#[test]
fn views_unusual_names_and_links_are_read_like_tables_and_files() {
    let scene = Scene::new();
    // A view of its own tables; a name that URIs have other meanings for; a closed log.
    let name = "a %41?b#c.db";
    let other = scene.sqlite(name, &format!("PRAGMA journal_mode = wal; {ONE_API}"));
    add_token(&other, 1, "Works", "works", "unlimited_quota = 1");
    other
        .execute_batch(
            "ALTER TABLE tokens RENAME TO inner; CREATE VIEW Tokens AS SELECT * FROM inner",
        )
        .unwrap();
    drop(other);
    let before = scene.files();
    for path in [name.to_owned(), format!("/{}", scene.path(name).display())] {
        let (code, done) = scene.import(&path, &["--dry-run"]);
        assert_eq!(code, 0, "{path}: {done}");
        assert!(last(&done).starts_with("1 new, 0 unchanged"), "{done}");
    }
    assert_eq!(scene.files(), before);
    // A link to a file whose log is in use, elsewhere.
    fs::create_dir(scene.path("data")).unwrap();
    let running = scene.sqlite("data/one-api.db", "PRAGMA journal_mode = wal");
    running.execute_batch(ONE_API).unwrap();
    add_token(&running, 1, "Works", "works", "unlimited_quota = 1");
    std::os::unix::fs::symlink("data/one-api.db", scene.path("link.db")).unwrap();
    let (code, done) = scene.import("link.db", &["--dry-run"]);
    assert_eq!(code, 0, "{done}");
    assert!(last(&done).starts_with("1 new"), "{done}");
    drop(running);
    fs::remove_dir_all(scene.path("data")).unwrap();

    // A comma within the name of a model does not make a list of everything.
    scene.text("models.csv", psql(&[litellm_row(1, &[("models", r#"{"x, *"}"#)])]));
    let (code, done) = scene.import("models.csv", &["--dry-run"]);
    assert_eq!(code, 1, "{done}");
    assert!(done.contains("is restricted to models"), "{done}");
    // LiteLLM keeps what was deleted in a table with the same columns.
    let columns: Vec<&str> = LITELLM.split(',').chain(["deleted_at", "deleted_by"]).collect();
    let rows = [litellm_row(1, &[("deleted_at", "2025-02-10 15:20:00.123")])];
    scene.text("deleted.csv", csv_of(&columns, b',', "", &rows));
    let (code, done) = scene.import("deleted.csv", &["--dry-run"]);
    assert_eq!(code, 0, "{done}");
    assert!(last(&done).starts_with("0 new, 0 unchanged, 0 conflicts, 1 skipped"), "{done}");
}

#[test]
fn reading_an_endless_view_can_be_stopped() {
    let scene = Scene::new();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let columns =
        "i AS key, i AS status, i AS expired_time, i AS remain_quota, i AS unlimited_quota";
    let view = format!("CREATE VIEW tokens AS SELECT {columns} FROM ({endless}) WHERE i < 0");
    scene.sqlite("endless.db", &view);
    let report = tempfile::NamedTempFile::new().unwrap();
    let command = scene.gateway.clone().arg("import").arg("endless.db");
    let mut child = command.stderr(report.reopen().unwrap()).spawn();
    let printed = || fs::read_to_string(report.path()).unwrap();
    let until = Instant::now() + crate::common::DEADLINE;
    // The first line of progress comes after the signals are caught.
    while !printed().contains("reading the file") {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until, "{}", printed());
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    while child.try_wait().unwrap().is_none() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    // The process has ended.
    let _ = child.kill();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(printed().ends_with("stopped: nothing was changed\n"), "{}", printed());
    assert!(!scene.path("quota.db").exists());
}

#[tokio::test]
async fn a_repeated_key_is_imported_once() {
    let scene = Scene::new();
    // The same key in one-api and LiteLLM, and twice in a file.
    let key = format!("sk-{}", key48("Both"));
    let tokens = scene.sqlite("one-api.db", ONE_API);
    add_token(&tokens, 1, "Both", "from one-api", "unlimited_quota = 1");
    assert_eq!(scene.import("one-api.db", &["--daily-limit", "1"]).0, 0);
    let mut rows: Vec<_> = (1..=300).map(|number| litellm_row(number, &[])).collect();
    let both = hash(&key).to_uppercase();
    rows.push(litellm_row(301, &[("token", &both), ("key_alias", "from LiteLLM")]));
    rows.push(litellm_row(1, &[("key_alias", "the first once more"), ("blocked", "t")]));
    scene.text("keys.csv", psql(&rows));
    for (args, end) in [(&["--dry-run"][..], "; a dry run, nothing was changed"), (&[], "")] {
        let (code, done) = scene.import("keys.csv", args);
        let summary = format!("300 new, 2 unchanged, 0 conflicts{end}");
        assert_eq!((code, last(&done)), (0, &*summary));
        assert!(line(&done, "row 302 ").ends_with("\"the first once more\": the key of row 1"));
    }
    let mut gateway = scene.start();
    for (key, status) in
        [(&key, 200), (&key, 429), (&litellm_key(1), 200), (&litellm_key(300), 200)]
    {
        assert_eq!(outcome(&gateway, key).await.0, status);
    }
    // Another import does not undo changes made here.
    for (number, method, path) in [(5, Method::DELETE, ""), (6, Method::POST, "/rotate")] {
        let path = format!("/admin/keys/{}{path}", litellm_key(number));
        gateway.admin(method, &path, &Value::Null).await;
    }
    let path = format!("/admin/keys/{}", litellm_key(7));
    gateway.admin(Method::PATCH, &path, &json!({"disabled": true})).await;
    gateway.kill9();
    let (code, done) = scene.import("keys.csv", &[]);
    assert_eq!((code, last(&done)), (1, "0 new, 300 unchanged, 2 conflicts"));
    assert_eq!(done.matches("was rotated or deleted here").count(), 2);
    let gateway = scene.start();
    for (number, status) in [(5, 401), (6, 401), (7, 403), (8, 200)] {
        assert_eq!(outcome(&gateway, &litellm_key(number)).await.0, status, "{number}");
    }
}

#[test]
fn hostile_values_are_conflicts_of_one_short_line() {
    let scene = Scene::new();
    let tokens = scene.sqlite("one-api.db", ONE_API);
    let huge = "x".repeat(1_000_000);
    for (at, name) in
        ["a\u{1b}[2Jb", "two\nlines", &"长".repeat(201), &huge].into_iter().enumerate()
    {
        add_token(&tokens, 1, &format!("L{at}"), name, "unlimited_quota = 1");
    }
    for (key, rest) in [
        ("'with space'", ""),
        ("'clé'", ""),
        ("''", ""),
        ("NULL", ""),
        ("hex(zeroblob(200000))", ""),
        ("x'00ff00'", ""),
        ("'expires'", ", expired_time = 'soon'"),
        ("'expires2'", ", expired_time = NULL"),
        ("'quota'", ", remain_quota = 'much'"),
        ("'switch'", ", unlimited_quota = 'maybe'"),
    ] {
        add_token(&tokens, 1, "Bad", "bad", "unlimited_quota = 1");
        let sql = format!("UPDATE tokens SET key = {key}{rest} WHERE id = last_insert_rowid()");
        tokens.execute(&sql, []).unwrap();
    }
    // Not a conflict: texts in the report are only shortened.
    add_token(&tokens, 1, "Wide", "wide", &format!("unlimited_quota = 1, models = '{huge}'"));
    let (code, done) = scene.import("one-api.db", &["--drop-access-lists"]);
    assert_eq!((code, last(&done)), (1, "1 new, 0 unchanged, 14 conflicts"), "{done:.3000}");
    for line in done.lines() {
        assert!(line.chars().count() < 300 && !line.contains(char::is_control), "{line:.300}");
    }
    assert_eq!(done.lines().count(), 17, "{done}");

    let mut rows = vec![litellm_row(1, &[("key_alias", "a\u{202e}\u{7}"), ("metadata", &huge)])];
    rows.push(litellm_row(2, &[("metadata", &huge), ("team_id", "a\r\nb")]));
    let mut file = psql(&rows);
    file.extend(b"\xff\xfe,");
    scene.text("keys.csv", file);
    let (code, done) = scene.import("keys.csv", &[]);
    assert_eq!((code, last(&done)), (1, "1 new, 0 unchanged, 2 conflicts"), "{done:.3000}");
    for line in done.lines() {
        assert!(line.chars().count() < 300 && !line.contains(char::is_control), "{line:.300}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_not_disturbed() {
    let scene = Scene::new();
    let tokens = scene.sqlite("one-api.db", ONE_API);
    add_token(&tokens, 1, "Works", "works", "unlimited_quota = 1");
    let gateway = scene.start();
    let key = gateway.create_key(json!({"label": "here", "daily_limit": 0})).await;
    let known = format!("sk-{}", key48("Known"));
    let rows = format!("key,label,daily_limit\n{known},known,5\n");
    let token = format!("Bearer {}", crate::common::ADMIN_TOKEN);
    let headers = [("authorization", &*token), ("content-type", "text/csv")];
    let url = gateway.url("/admin/keys/import");
    let response = Client::http1().send(Method::POST, &url, &headers, rows).await;
    assert_eq!(response.json()["new"], 1, "{response:?}");
    add_token(&tokens, 1, "Known", "known", "unlimited_quota = 1");
    let before = scene.files();
    let load = async {
        for _ in 0..50 {
            assert_eq!(outcome(&gateway, &key).await.0, 200);
        }
    };
    let import = async {
        let (code, printed) = tokio::task::block_in_place(|| scene.import("one-api.db", &[]));
        assert_eq!((code, printed.lines().count()), (2, 1), "{printed}");
        assert!(printed.contains("DATABASE_URL") && printed.contains("in use"), "{printed}");
        // A dry run only looks.
        let (code, printed) =
            tokio::task::block_in_place(|| scene.import("one-api.db", &["--dry-run"]));
        let summary = "1 new, 1 unchanged, 0 conflicts; a dry run, nothing was changed";
        assert_eq!((code, last(&printed)), (0, summary), "{printed}");
    };
    tokio::join!(load, import);
    assert_eq!(gateway.used(&key).await, 50);
    assert_eq!(scene.files(), before, "nothing is left of the copy");
}

/// The blocks of a document that are run here.
fn blocks(document: &str) -> Vec<&str> {
    let mark = "<!-- docs: run by tests/store/import_others.rs -->";
    document
        .split(mark)
        .skip(1)
        .map(|rest| rest.split("```").nth(1).unwrap().strip_prefix("sh").unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bash, curl and sqlite3"]
async fn the_commands_of_the_documents_move_the_keys() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["docs/import.md", "docs/import.zh.md"] {
        let document = fs::read_to_string(root.join(name)).unwrap();
        let scene = Scene::new();
        let blocks = blocks(&document);
        assert!(blocks.len() >= 12, "{name} has {}", blocks.len());
        prepare(&scene);
        for block in blocks {
            let needs_gateway = block.contains("curl");
            let gateway = needs_gateway.then(|| scene.start());
            let address = gateway.as_ref().map_or(String::new(), |it| it.address().to_string());
            let script = block
                .replace("127.0.0.1:8787", &address)
                .replace("/var/lib/quota-proxy", "service")
                .replace("/etc/quota-proxy", "service")
                .replace("/usr/local/bin/", "");
            let path = format!("{}:{}", scene.path("bin").display(), env!("PATH"));
            let output = Command::new("bash")
                .args(["-euo", "pipefail", "-c", &script])
                .current_dir(scene.gateway.dir())
                .env("PATH", path)
                .env("RUST_LOG", "warn")
                .env("ADMIN_TOKEN", crate::common::ADMIN_TOKEN)
                .output()
                .unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{name}: {block}\n{output:?}");
            assert!(!block.contains("compose run") || printed.contains("1 new"), "{printed}");
            let chats = block.contains("/v1/chat/completions");
            assert!(!chats || printed.contains("chat.completion"), "{name}: {block}\n{printed}");
        }
        let limit: i64 = Connection::open(scene.path("service/quota.db"))
            .unwrap()
            .query_row("SELECT daily_limit FROM api_keys", [], |row| row.get(0))
            .unwrap();
        assert_eq!(limit, 70, "{name}: the service's own");
    }
}

/// Creates what the documents assume: the other programs' files, and stand-ins for their tools.
fn prepare(scene: &Scene) {
    let bin = scene.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = |name: &str, script: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(bin.join(name), format!("#!/bin/bash\nset -eu\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let gateway = crate::common::gateway_binary();
    program("gateway", &format!("exec {:?} \"$@\"", gateway.display()));
    // `docker stop NAME`, `docker cp NAME:/data/one-api.db .`, and `docker compose run` with a file
    // that is mounted.
    program(
        "docker",
        r#"case "$1 ${2:-}" in
        "stop one-api" | "compose stop" | "compose start") ;;
        "cp one-api:/data/one-api.db") cp there/one-api.db "$3" ;;
        "compose run")
            [[ "$*" =~ --volume\ ([^:]*):([^:]*):ro\ quota-proxy\ import\ ([^ ]*)(.*) ]]
            [[ ${BASH_REMATCH[2]} = "${BASH_REMATCH[3]}" ]]
            SQLITE_PATH=container.db gateway import "${BASH_REMATCH[1]}" ${BASH_REMATCH[4]}
            ;;
        *) exit 1 ;;
        esac"#,
    );
    program("sudo", "exec \"$@\"");
    program("systemctl", "[[ $* =~ ^(stop|start)\\ quota-proxy.socket\\ quota-proxy.service$ ]]");
    fs::create_dir_all(scene.path("service")).unwrap();
    scene.text("service/quota-proxy.env", "GATEWAY_NAME=two words\nDAILY_REQ_LIMIT=70\n");
    program(
        "systemd-run",
        r#"[[ "$1 $2 $3 $4 $5 $7" = "--quiet --pipe --wait --same-dir -p -E" ]]
        mapfile -t settings < "${6#EnvironmentFile=}"
        exec env "${settings[@]}" "$8" "${@:9}""#,
    );
    program("psql", "[[ ${!#} == *LiteLLM_VerificationToken* ]]; cp there/litellm-keys.csv .");
    program(
        "mysql",
        "for table in tokens users; do [[ $* == *\"FROM $table\"* ]] && cat there/$table.tsv; done; true",
    );
    fs::create_dir_all(scene.path("there")).unwrap();

    let tokens = scene.sqlite("there/one-api.db", ONE_API);
    let key = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123";
    add_token(&tokens, 1, key, "小明", "remain_quota = 500000");
    scene.sqlite("old.db", "CREATE TABLE trial_keys (key TEXT PRIMARY KEY, label TEXT, created_at INTEGER);
        INSERT INTO trial_keys VALUES ('trial_0123456789abcdef0123456789abcdef0123', 'A', 1739200800000)");
    let row = litellm_row(1, &[("token", &hash("sk-old-key-of-litellm"))]);
    scene.text("there/litellm-keys.csv", psql(&[row]));
    for table in ["tokens", "users"] {
        let mut statement = tokens.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let mut lines = vec![statement.column_names().join("\t")];
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let text = |at| match row.get::<_, rusqlite::types::Value>(at).unwrap() {
                rusqlite::types::Value::Null => "NULL".to_owned(),
                rusqlite::types::Value::Text(text) => text,
                rusqlite::types::Value::Integer(number) => number.to_string(),
                other => panic!("{other:?}"),
            };
            lines.push((0..columns).map(text).collect::<Vec<_>>().join("\t"));
        }
        scene.text(&format!("there/{table}.tsv"), lines.join("\n") + "\n");
    }
}
