//! `api_keys` may be edited by another process while the gateway runs, and holds no clear key.

use crate::common::{Client, Gateway, eventually};
use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

const KEY: &str = "trial-key-manual-123";

fn file(gateway: &Gateway) -> Connection {
    let connection = Connection::open(gateway.dir().join("quota.db")).unwrap();
    connection.busy_timeout(crate::common::DEADLINE).unwrap();
    connection
}

fn insert(gateway: &Gateway, limit: u32) {
    let sql = format!(
        "INSERT INTO api_keys (key, label, daily_limit, created_at)
         VALUES ('{KEY}', '手动创建的密钥', {limit}, datetime('now'))"
    );
    file(gateway).execute_batch(&sql).unwrap();
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    let url = gateway.url("/v1/chat/completions");
    let request = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    Client::http1().post_as(key, &url, &request).await.status.as_u16()
}

/// Whether the file or one beside it holds this text.
fn is_on_disk(gateway: &Gateway, text: &str) -> bool {
    std::fs::read_dir(gateway.dir()).unwrap().any(|entry| {
        let content = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_typed_in_clear_works_at_once_and_is_hashed_with_its_count_kept() {
    let mut gateway = Gateway::demo();
    insert(&gateway, 3);
    assert_eq!(status(&gateway, KEY).await, 200);
    assert_eq!(status(&gateway, KEY).await, 200);
    eventually("no clear text on disk", || async { !is_on_disk(&gateway, KEY) }).await;

    let (shown, hash): (String, String) = file(&gateway)
        .query_row("SELECT key, key_hash FROM api_keys", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((shown.as_str(), hash.len()), ("trial-key-…", 64));
    assert_eq!(status(&gateway, &hash).await, 401, "a stored text is no key");

    gateway.restart();
    assert_eq!(status(&gateway, KEY).await, 200);
    assert_eq!(status(&gateway, KEY).await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_typed_in_clear_is_hashed_even_if_unused() {
    let gateway = Gateway::demo();
    insert(&gateway, 3);
    eventually("no clear text on disk", || async { !is_on_disk(&gateway, KEY) }).await;
    assert_eq!(status(&gateway, KEY).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_keys_do_not_stop_the_gateway() {
    let gateway = Gateway::demo();
    let good = gateway.create_key(json!({})).await;
    for odd in ["'chinese-密钥-x1-密钥-密钥'", "x'fffe'", "''", "' spaced key '", "42", "'短'"]
    {
        let sql = format!("INSERT INTO api_keys (key, label) VALUES ({odd}, 'odd')");
        file(&gateway).execute_batch(&sql).unwrap();
    }
    insert(&gateway, 3);
    eventually("every row's hashing", || async {
        let sql = "SELECT count(*) FROM api_keys WHERE key_hash IS NULL";
        file(&gateway).query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() == 0
    })
    .await;
    for key in [KEY, "42", good.as_str()] {
        assert_eq!(status(&gateway, key).await, 200, "{key}");
    }
    eventually("no clear text on disk", || async { !is_on_disk(&gateway, "x1-密钥") }).await;
    assert!(!gateway.printed().contains("x1-密钥"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_and_a_deleted_row_are_honoured() {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    assert_eq!(status(&gateway, &key).await, 200);
    assert_eq!(status(&gateway, &key).await, 429);
    file(&gateway).execute_batch("UPDATE api_keys SET daily_limit = 2").unwrap();
    eventually("the new limit", || async { status(&gateway, &key).await == 200 }).await;
    file(&gateway).execute_batch("DELETE FROM api_keys").unwrap();
    eventually("the key's end", || async { status(&gateway, &key).await == 401 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_rows_get_the_default_limit_and_may_have_any_date_format() {
    let gateway = Gateway::demo();
    for (number, date) in
        ["'2025-02-10T15:20:00Z'", "'2025-02-10 15:20:00'", "1739200800", "1739200800000", "NULL"]
            .into_iter()
            .enumerate()
    {
        let sql = format!(
            "INSERT INTO api_keys (key, created_at) VALUES ('trial-key-typed-in-{number}', {date})"
        );
        file(&gateway).execute_batch(&sql).unwrap();
        assert_eq!(status(&gateway, &format!("trial-key-typed-in-{number}")).await, 200);
    }
    let page = gateway.admin(Method::GET, "/admin/keys", &Value::Null).await;
    let keys = page["keys"].as_array().unwrap();
    for key in &keys[..4] {
        assert_eq!(key["created_at"], "2025-02-10T15:20:00Z");
        assert_eq!(key["daily_limit"], 200);
    }
    assert_eq!(keys[4]["created_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_typed_in_twice_keeps_its_first_row() {
    let gateway = Gateway::demo();
    insert(&gateway, 1);
    assert_eq!(status(&gateway, KEY).await, 200);
    insert(&gateway, 100);
    eventually("the second row's hashing", || async { !is_on_disk(&gateway, KEY) }).await;
    assert_eq!(status(&gateway, KEY).await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_any_bytes_are_listed_once_in_every_order() {
    let gateway = Gateway::demo();
    let labels = [
        "x'b0a1'",
        "x'ff00ff'",
        "cast(x'c4e3' as text)",
        "cast(x'ff' as text)",
        "x'6162'",
        "7",
        "NULL",
        "'ab'",
        "'中文'",
    ];
    for (n, label) in labels.iter().enumerate() {
        let sql = format!(
            "INSERT INTO api_keys (key, label, daily_limit, expires_at)
             VALUES ('trial-key-manual-{n:03}', {label}, 5, '2999-01-01')"
        );
        file(&gateway).execute_batch(&sql).unwrap();
    }
    for sort in ["issued", "newest", "label", "nearest_limit"] {
        for limit in [1, 2, 4] {
            let (mut seen, mut next) = (Vec::new(), String::new());
            while seen.len() <= labels.len() {
                let path = format!("/admin/keys?sort={sort}&limit={limit}{next}");
                let page = gateway.admin(Method::GET, &path, &Value::Null).await;
                let keys = page["keys"].as_array().unwrap().iter();
                seen.extend(keys.map(|key| key["id"].as_str().unwrap().to_owned()));
                match &page["next"] {
                    Value::Null => break,
                    cursor => next = format!("&after={}", cursor.to_string().trim_matches('"')),
                }
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), labels.len(), "{sort}, {limit} at once");
        }
    }
    let none =
        gateway.admin(Method::GET, "/admin/keys?sort=label&state=expired&limit=1", &Value::Null);
    assert_eq!(none.await["count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_in_the_place_of_one_withdraws_its_claim() {
    let gateway = Gateway::demo();
    let made = gateway.admin(Method::POST, "/admin/keys", &json!({"label": "a"})).await;
    let id = made["id"].as_str().unwrap();
    let claim = gateway.admin(Method::POST, &format!("/admin/keys/{id}/claim"), &json!({})).await;
    let token = claim["url"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let sql = format!("UPDATE api_keys SET key = '{KEY}', key_hash = NULL WHERE id = '{id}'");
    file(&gateway).execute_batch(&sql).unwrap();
    assert_eq!(status(&gateway, KEY).await, 200);
    let body = json!({"token": token, "open": true}).to_string();
    let opened = Client::http1().send(Method::POST, &gateway.url("/claim"), &[], body).await;
    assert_eq!((opened.status.as_u16(), &*opened.code()), (410, "claim_withdrawn"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_invalid_ids_and_numbers_do_not_affect_others() {
    let gateway = Gateway::demo();
    gateway.create_key(json!({"label": "a"})).await;
    file(&gateway)
        .execute_batch(
            "INSERT INTO api_keys (seq, key, label, daily_limit) VALUES (-5, 'trial-key-manual-001', 'b', 5);
             INSERT INTO api_keys (id, key, label, daily_limit) VALUES (x'ff00', 'trial-key-manual-002', 'c', 5);
             INSERT INTO audit_log (at, token_id, ip, action, key_id, detail)
             VALUES (x'00', cast(x'ff' as text), x'01', 'odd', x'ff', 'no json');",
        )
        .unwrap();
    for key in ["trial-key-manual-001", "trial-key-manual-002"] {
        assert_eq!(status(&gateway, key).await, 200);
    }
    for sort in ["issued", "newest", "label", "nearest_limit"] {
        let path = format!("/admin/keys?sort={sort}");
        assert_eq!(gateway.admin(Method::GET, &path, &Value::Null).await["count"], 3, "{sort}");
    }
    let usage = gateway.admin(Method::GET, "/admin/usage", &Value::Null).await;
    assert_eq!(usage["items"].as_array().unwrap().len(), 3, "{usage}");
    let trail = gateway.admin(Method::GET, "/admin/audit?action=odd", &Value::Null).await;
    assert_eq!(trail["entries"].as_array().unwrap().len(), 1, "{trail}");
    gateway.create_key(json!({"label": "d"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_counts_of_one_key_do_not_break_lists() {
    let gateway = Gateway::demo();
    let fine = gateway.create_key(json!({"label": "fine"})).await;
    gateway.create_key(json!({"label": "odd"})).await;
    assert_eq!(status(&gateway, &fine).await, 200);
    let usage = gateway.admin(Method::GET, "/admin/usage", &Value::Null).await;
    let today = usage["from"].as_str().unwrap();
    for figure in ["-5", "'many'", "x'ff'", "1.5", "9223372036854775807"] {
        file(&gateway)
            .execute(
                &format!(
                    "INSERT OR REPLACE INTO daily_usage (key_id, day, used, reset_used, last_used_at)
                     SELECT id, ?1, {figure}, {figure}, {figure} FROM api_keys WHERE label = 'odd'"
                ),
                [today],
            )
            .unwrap();
        for path in ["/admin/keys", "/admin/keys?sort=nearest_limit", "/admin/usage"] {
            let list = gateway.admin(Method::GET, path, &Value::Null).await;
            let rows = list["keys"].as_array().or(list["items"].as_array());
            assert_eq!(rows.map(Vec::len), Some(2), "{path} with {figure}: {list}");
        }
    }
}
