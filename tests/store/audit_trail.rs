//! The audit trail of the SQLite store: nobody rewrites it by mistake, and it survives `kill -9`.

use crate::common::GatewayCommand;
use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

#[tokio::test]
async fn entries_are_neither_changed_nor_deleted_and_survive_kill_9() {
    let mut gateway = GatewayCommand::new().arg("--demo").start();
    let made = gateway.admin(Method::POST, "/admin/keys", &json!({"label": "one"})).await;
    let path = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    gateway.admin(Method::PATCH, &path, &json!({"daily_limit": 7})).await;
    gateway.admin(Method::DELETE, &path, &Value::Null).await;
    gateway.kill9();

    let file = Connection::open(gateway.dir().join("quota.db")).unwrap();
    for sql in [
        "DELETE FROM audit_log",
        "UPDATE audit_log SET token_id = 'somebody'",
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log",
        "REPLACE INTO audit_log (number, at, token_id, action, detail) VALUES (1, '', '', '', '{}')",
    ] {
        let rejected = file.execute(sql, []).unwrap_err().to_string();
        assert!(rejected.contains("append-only"), "{sql}: {rejected}");
    }
    drop(file);
    gateway.restart();
    let trail = gateway.admin(Method::GET, "/admin/audit", &Value::Null).await;
    let entries = trail["entries"].as_array().unwrap().iter();
    let actions: Vec<_> = entries.map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["key.delete", "key.update", "key.create"]);
    assert_eq!(trail["entries"][1]["detail"]["daily_limit"], json!({"before": 200, "after": 7}));
}
