//! The admin API does what it says, and says what is wrong.

use crate::common::admin::{Admin, text};
use serde_json::{Value, json};
use tower_quota::{key::SecretKey, store::KeyStore};

async fn works(admin: &Admin, key: &str) -> bool {
    let key = SecretKey::parse(key).unwrap();
    admin.store.find(&key).await.unwrap().is_some()
}

#[tokio::test]
async fn a_secret_is_shown_only_at_creation() {
    let admin = Admin::new();
    let body = r#"{"label":"用户A的试用密钥","daily_limit":200}"#;
    let made = admin.call("POST", "/admin/keys", body).await;
    assert_eq!(made.status(), 201);
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.json();
    let key = text(&made["key"]);
    assert!(key.starts_with("trial-A-"), "{key}");
    assert_eq!(made["label"], "用户A的试用密钥");
    assert_eq!(made["daily_limit"], 200);
    assert_eq!(made["disabled"], false);
    assert_eq!(made["expires_at"], Value::Null);
    let created_at = text(&made["created_at"]);
    assert!(created_at.len() == 20 && created_at.ends_with('Z'), "{created_at}");
    assert!(works(&admin, &key).await);

    let list = admin.get("/admin/keys").await;
    assert!(!list.text.contains(&key));
    let list = list.json();
    assert_eq!((&list["count"], &list["next"]), (&json!(1), &Value::Null));
    let listed = &list["keys"][0];
    assert_eq!(listed["id"], made["id"]);
    assert!(text(&listed["key"]).contains('…'));
    for field in ["used_today", "total_used"] {
        assert_eq!(listed[field], 0);
    }
    assert_eq!(listed["remaining"], 200);
    assert_eq!(listed["last_used_at"], Value::Null);
}

#[tokio::test]
async fn a_missing_body_means_all_defaults() {
    let admin = Admin::new();
    let made = admin.call("POST", "/admin/keys", "").await.json();
    assert_eq!((&made["label"], &made["daily_limit"]), (&json!(""), &json!(200)));
    assert!(text(&made["key"]).starts_with("trial-key-"));
    let made = admin.call("POST", "/admin/keys", r#"{"daily_limit":0,"user":"bob"}"#).await;
    assert_eq!(made.json()["daily_limit"], 0);
    assert!(text(&made.json()["key"]).starts_with("trial-bob-"));
}

#[tokio::test]
async fn every_bad_field_is_400_and_named() {
    let admin = Admin::new();
    let (id, _) = admin.create("").await;
    let long = "x".repeat(201);
    let label = format!(r#"{{"label":"{long}"}}"#);
    let pattern = format!(r#"{{"label":"{}{{n}}","count":1000}}"#, "x".repeat(197));
    let key = format!("/admin/keys/{id}");
    let rotate = format!("{key}/rotate");
    for (method, path, body, name) in [
        ("POST", "/admin/keys", r#"{"daily_limit":1.5}"#, "daily_limit"),
        ("POST", "/admin/keys", r#"{"daily_limit":"200"}"#, "daily_limit"),
        ("POST", "/admin/keys", r#"{"daily_limit":-1}"#, "daily_limit"),
        ("POST", "/admin/keys", r#"{"daily_limit":1e3}"#, "daily_limit"),
        ("POST", "/admin/keys", r#"{"daily_limit":1000000001}"#, "daily_limit"),
        ("POST", "/admin/keys", r#"{"label":5}"#, "label"),
        ("POST", "/admin/keys", r#"{"label":"a\u0000b"}"#, "label"),
        ("POST", "/admin/keys", &label, "label"),
        ("POST", "/admin/keys", r#"{"user":"a b"}"#, "user"),
        ("POST", "/admin/keys", r#"{"user":1}"#, "user"),
        ("POST", "/admin/keys", r#"{"expires_at":"soon"}"#, "expires_at"),
        ("POST", "/admin/keys", r#"{"expires_at":"2020-01-01"}"#, "expires_at"),
        ("POST", "/admin/keys", r#"{"count":0}"#, "count"),
        ("POST", "/admin/keys", r#"{"count":1001}"#, "count"),
        ("POST", "/admin/keys", r#"{"limit":200}"#, "limit"),
        ("POST", "/admin/keys", r#"{"label":"a","label":"b"}"#, "label"),
        ("POST", "/admin/keys?x=1", "", "x"),
        ("POST", "/admin/keys", r#"{"expires_at":"9999-12-31T00:00:00Z"}"#, "expires_at"),
        ("POST", "/admin/keys", &pattern, "label"),
        ("PATCH", &key, r#"{"disabled":"yes"}"#, "disabled"),
        ("PATCH", &key, r#"{"daily_limit":true}"#, "daily_limit"),
        ("PATCH", &key, r#"{"daily_limit":null}"#, "daily_limit"),
        ("PATCH", &key, r#"{"key":"x"}"#, "key"),
        ("PATCH", &key, "", "label"),
        ("POST", &rotate, r#"{"grace_seconds":-1}"#, "grace_seconds"),
        ("POST", "/admin/reset-usage", "", "key"),
        ("POST", "/admin/reset-usage", r#"{"key":""}"#, "key"),
        ("POST", "/admin/reset-usage", r#"{"key":1}"#, "key"),
        ("GET", "/admin/keys?limit=0", "", "limit"),
        ("GET", "/admin/keys?limit=1001", "", "limit"),
        ("GET", "/admin/keys?after=x", "", "after"),
        ("GET", "/admin/keys?after=9223372036854775808", "", "after"),
        ("GET", "/admin/keys?limit=", "", "limit"),
        ("GET", "/admin/keys?limit=1&limit=1", "", "limit"),
        ("GET", "/admin/keys?lmit=1", "", "lmit"),
        ("GET", "/admin/keys?search=%ff", "", "search"),
        ("GET", "/admin/usage?day=today", "", "day"),
        ("GET", "/admin/usage?from=2026-01-02&to=2026-01-01", "", "from"),
        ("GET", "/admin/usage?group_by=colour", "", "group_by"),
        ("GET", "/admin/usage?format=xml", "", "format"),
        ("GET", "/admin/audit?before=-1", "", "before"),
    ] {
        let response = admin.call(method, path, body).await;
        assert_eq!(response.status(), 400, "{method} {path} {body}");
        let detail = text(&response.json()["detail"]);
        assert!(detail.contains(&format!("`{name}`")), "{path} {body}: {detail}");
    }
    for body in ["{", "[]", "5", "not json"] {
        let response = admin.call("POST", "/admin/keys", body).await;
        assert_eq!(
            (response.status().as_u16(), &response.json()["code"]),
            (400, &json!("invalid_json"))
        );
    }
    let huge = format!(r#"{{"label":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(admin.call("POST", "/admin/keys", &huge).await.status(), 413);
    assert_eq!(admin.get("/admin/keys").await.json()["count"], 1);
}

#[tokio::test]
async fn many_keys_are_listed_at_once_and_in_pages() {
    let admin = Admin::new();
    let made = admin.call("POST", "/admin/keys", r#"{"count":250,"label":"workshop"}"#).await;
    let made = made.json();
    assert_eq!(made["count"], 250);
    assert_eq!(made["keys"].as_array().unwrap().len(), 250);
    admin.create(r#"{"label":"Ünïcode 密"}"#).await;

    let mut seen = 0;
    let mut path = "/admin/keys?limit=100".to_owned();
    loop {
        let page = admin.get(&path).await.json();
        seen += page["count"].as_u64().unwrap();
        if page["next"].is_null() {
            break;
        }
        path = format!("/admin/keys?limit=100&after={}", page["next"]);
    }
    assert_eq!(seen, 251);
    let found = admin.get("/admin/keys?search=%E5%AF%86").await.json();
    assert_eq!(found["count"], 1);
}

#[tokio::test]
async fn a_label_pattern_numbers_keys_so_that_they_sort() {
    let admin = Admin::new();
    let labels = async |body: &str| {
        let made = admin.call("POST", "/admin/keys", body).await.json();
        let keys = made["keys"].as_array().cloned().unwrap_or_else(|| vec![made]);
        keys.iter().map(|key| text(&key["label"])).collect::<Vec<_>>()
    };
    let many = labels(r#"{"label":"workshop-{n}","count":30}"#).await;
    assert_eq!((&*many[0], &*many[9], &*many[29]), ("workshop-01", "workshop-10", "workshop-30"));
    assert!(many.is_sorted());
    assert_eq!(labels(r#"{"label":"a{n}-{n}","count":3}"#).await, ["a1-1", "a2-2", "a3-3"]);
    assert_eq!(labels(r#"{"label":"solo-{n}"}"#).await, ["solo-1"]);
    let longest = format!(r#"{{"label":"{}{{n}}","count":99}}"#, "x".repeat(198));
    assert_eq!(labels(&longest).await[98].chars().count(), 200);
}

#[tokio::test]
async fn a_key_is_named_by_id_or_by_its_whole_text() {
    let admin = Admin::new();
    let (id, key) = admin.create("").await;
    for name in [&id, &key, &key.replace('-', "%2D")] {
        assert_eq!(admin.get(&format!("/admin/keys/{name}")).await.json()["id"], *id);
    }
    let changes = r#"{"label":"<img src=x onerror=alert(1)>","daily_limit":5,"disabled":true,
        "expires_at":"2999-01-01"}"#;
    let changed = admin.call("PATCH", &format!("/admin/keys/{key}"), changes).await.json();
    assert_eq!(changed["label"], "<img src=x onerror=alert(1)>");
    assert_eq!(changed["remaining"], 5);
    assert_eq!(changed["disabled"], true);
    assert_eq!(changed["expires_at"], "2999-01-01T00:00:00Z");
    let changed = admin.call("PATCH", &format!("/admin/keys/{id}"), r#"{"expires_at":null}"#).await;
    assert_eq!(changed.json()["expires_at"], Value::Null);

    let body = json!({ "key": key }).to_string();
    let reset = admin.call("POST", "/admin/reset-usage", &body).await;
    assert_eq!(reset.status(), 200);
    assert!(!reset.text.contains(&key));
    let reset = reset.json();
    assert_eq!((&reset["success"], &reset["used"]), (&json!(true), &json!(0)));

    let deleted = admin.call("DELETE", &format!("/admin/keys/{key}"), "").await;
    assert_eq!((deleted.status().as_u16(), &deleted.json()["deleted"]), (200, &json!(true)));
    assert!(!works(&admin, &key).await);
    for (method, path, body) in [
        ("DELETE", format!("/admin/keys/{key}"), ""),
        ("GET", format!("/admin/keys/{id}"), ""),
        ("PATCH", format!("/admin/keys/{id}"), r#"{"label":"x"}"#),
        ("POST", format!("/admin/keys/{id}/rotate"), ""),
        ("POST", "/admin/reset-usage".to_owned(), &body),
    ] {
        let response = admin.call(method, &path, body).await;
        assert_eq!(response.status(), 404, "{method} {path}");
        assert!(!response.text.contains(&key));
    }
}

#[tokio::test]
async fn a_rotated_key_keeps_its_record_and_its_user() {
    let admin = Admin::new();
    let (id, old) = admin.create(r#"{"user":"alice"}"#).await;
    let rotated = admin.call("POST", &format!("/admin/keys/{old}/rotate"), "").await.json();
    assert_eq!((&rotated["id"], &rotated["old_key_valid_until"]), (&json!(id), &Value::Null));
    let new = text(&rotated["key"]);
    assert!(new.starts_with("trial-alice-"));
    assert!(works(&admin, &new).await && !works(&admin, &old).await);
    let grace = r#"{"grace_seconds":60}"#;
    let rotated = admin.call("POST", &format!("/admin/keys/{id}/rotate"), grace).await.json();
    assert!(rotated["old_key_valid_until"].is_string());
    assert!(works(&admin, &new).await);
}

#[tokio::test]
async fn a_change_to_an_outdated_version_is_rejected() {
    let admin = Admin::new();
    let (id, _) = admin.create(r#"{"label":"shared"}"#).await;
    let path = format!("/admin/keys/{id}");
    let read = admin.get(&path).await;
    let first = read.header("etag").to_owned();
    assert_eq!(first, format!("\"{}\"", text(&read.json()["version"])));
    let (method, patch) = ("PATCH", r#"{"daily_limit":5}"#);
    let mine = admin.call_with(("if-match", &first), method, &path, patch).await;
    assert_eq!((mine.status().as_u16(), &mine.json()["daily_limit"]), (200, &json!(5)));
    let second = mine.header("etag").to_owned();
    assert_ne!(first, second);

    let reset = json!({ "key": id }).to_string();
    let rotate = format!("{path}/rotate");
    let late = [
        ("PATCH", &*path, r#"{"daily_limit":6}"#),
        ("POST", &*rotate, ""),
        ("POST", "/admin/reset-usage", &*reset),
        ("DELETE", &*path, ""),
    ];
    for (method, path, body) in late {
        let rejected = admin.call_with(("if-match", &first), method, path, body).await;
        assert_eq!(rejected.status(), 412, "{method} {path}");
        assert_eq!(rejected.json()["code"], "version_changed");
    }
    assert_eq!(admin.get(&path).await.header("etag"), second, "nothing has changed");
    let bad = admin.call_with(("if-match", "first"), method, &path, patch).await;
    assert_eq!((bad.status().as_u16(), &bad.json()["code"]), (400, &json!("invalid_field")));
    assert!(bad.text.contains("`If-Match`"), "{}", bad.text);
    for right in ["*", &format!("{first}, {second}")] {
        let reset =
            admin.call_with(("if-match", right), "POST", "/admin/reset-usage", &reset).await;
        assert_eq!(reset.status(), 200, "{right}");
    }
}

#[tokio::test]
async fn a_repeated_creation_gets_the_same_response() {
    let admin = Admin::new();
    let body = r#"{"label":"workshop-{n}","count":3}"#;
    let post = async |name: &str, body: &str| {
        admin.call_with(("idempotency-key", name), "POST", "/admin/keys", body).await
    };
    let first = post("mint-1", body).await;
    assert_eq!(first.status(), 201);
    for again in ["mint-1", "\"mint-1\""] {
        let again = post(again, body).await;
        assert_eq!((again.status().as_u16(), &again.text), (201, &first.text));
        assert_eq!(again.header("idempotency-replayed"), "true");
    }
    assert_eq!(admin.get("/admin/keys").await.json()["count"], 3);

    let other = post("mint-1", r#"{"count":4}"#).await;
    assert_eq!(
        (other.status().as_u16(), &other.json()["code"]),
        (422, &json!("idempotency_key_reused"))
    );
    assert_eq!(post("mint-2", body).await.status(), 201);
    assert_eq!(admin.get("/admin/keys").await.json()["count"], 6);
    for bad in ["", "\"\"", &"x".repeat(201), "密"] {
        let rejected = post(bad, body).await;
        assert_eq!(rejected.status(), 400, "{bad}");
        assert!(rejected.text.contains("`Idempotency-Key`"), "{}", rejected.text);
    }
}

#[tokio::test]
async fn audit_filters_by_action_token_and_day() {
    let admin = Admin::new();
    let (id, _) = admin.create(r#"{"label":"one"}"#).await;
    let path = format!("/admin/keys/{id}");
    admin.call("PATCH", &path, r#"{"daily_limit":7}"#).await;
    admin.call("DELETE", &path, "").await;
    admin.call_with(("x-admin-token", "a-wrong-token-0123"), "GET", "/admin/keys", "").await;
    let actions = async |query: &str| {
        let trail = admin.get(&format!("/admin/audit?{query}")).await.json();
        let entries = trail["entries"].as_array().unwrap().clone();
        entries.iter().map(|entry| text(&entry["action"])).collect::<Vec<_>>()
    };
    assert_eq!(actions("action=key.").await, ["key.delete", "key.update", "key.create"]);
    assert_eq!(actions("action=key.update").await, ["key.update"]);
    assert_eq!(actions("action=admin").await, ["admin.refused"]);
    let update = admin.get("/admin/audit?action=key.update").await.json()["entries"][0].clone();
    assert_eq!(update["detail"], json!({"daily_limit": {"before": 200, "after": 7}}));
    let token = text(&update["token_id"]);
    assert_eq!(actions(&format!("token_id={token}")).await.len(), 3);
    assert_eq!(actions("token_id=0123456789").await.len(), 0);
    let all = admin.get("/admin/audit").await.json()["entries"].clone();
    let day = |entry: &Value| text(&entry["at"])[..10].to_owned();
    let (from, to) = (day(&all[3]), day(&all[0]));
    assert_eq!(actions(&format!("from={from}&to={to}")).await.len(), 4);
    assert_eq!(actions("to=2020-01-01").await.len(), 0);
    assert_eq!(actions("from=2999-01-01").await.len(), 0);
}
