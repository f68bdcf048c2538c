//! What operators can see of the process: its settings without their secrets, its health, and single
//! requests.

use crate::common::{
    ADMIN_TOKEN, Gateway, GatewayCommand, Upstream, Wire, chat_json, json_response,
};
use http::Method;
use serde_json::{Value, json};

async fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin(Method::GET, path, &Value::Null).await
}

#[tokio::test]
async fn settings_are_shown_without_secrets() {
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", "http://127.0.0.1:9/v1")
        .env("UPSTREAM_API_KEY", "sk-canary-0123456789")
        .env("METRICS_TOKEN", "canary-metrics-token")
        .env("QUOTA_TIMEZONE", "Asia/Shanghai")
        .start();
    let status = get(&gateway, "/admin/status").await;
    assert_eq!(
        (&status["timezone"], &status["store"]["ok"]),
        (&json!("Asia/Shanghai"), &json!(true))
    );
    assert!(status["resets_at"].as_str().unwrap().ends_with("T16:00:00Z"), "{status}");
    let setting = |name: &str| {
        let settings = status["settings"].as_array().unwrap();
        let found = settings.iter().find(|setting| setting["name"] == name);
        found.unwrap_or_else(|| panic!("{name}"))["value"].clone()
    };
    for (name, value) in [
        ("QUOTA_TIMEZONE", json!("Asia/Shanghai")),
        ("UPSTREAM_BASE_URL", json!("http://127.0.0.1:9/v1")),
        ("DAILY_REQ_LIMIT", json!("200")),
        ("ON_CLIENT_GONE", json!("abort")),
        ("UPSTREAM_API_KEY", json!("••••")),
        ("METRICS_TOKEN", json!("••••")),
        ("PUBLIC_URL", Value::Null),
    ] {
        assert_eq!(setting(name), value, "{name}");
    }
    let reported = status.to_string();
    for secret in ["canary", ADMIN_TOKEN] {
        assert!(!reported.contains(secret), "{reported}");
    }
}

#[tokio::test]
async fn single_requests_are_reported_where_they_are_kept() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    for (days, kept) in [("0", 0), ("7", 3)] {
        let gateway =
            GatewayCommand::before(upstream.base_url()).env("USAGE_RETENTION_DAYS", days).start();
        let key = gateway.create_key(json!({"daily_limit": 2})).await;
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        for status in [200, 200, 429] {
            assert_eq!(wire.post(&key, "{\"model\":\"m\"}").await.unwrap().0, status);
        }
        let all = get(&gateway, &format!("/admin/requests?key={key}")).await;
        assert_eq!(all["retention_days"].to_string(), days);
        let requests = all["requests"].as_array().unwrap();
        assert_eq!((requests.len(), &all["next"]), (kept, &Value::Null));
        if let [rejected, completed, _] = &requests[..] {
            assert_eq!(
                (&rejected["outcome"], &rejected["code"]),
                (&json!("rejected"), &json!("insufficient_quota"))
            );
            assert_eq!(
                (&completed["outcome"], &completed["model_asked"]),
                (&json!("succeeded"), &json!("m"))
            );
            assert_eq!(completed["tokens"]["total"], 5);
            assert!(completed["duration_ms"].as_f64().unwrap() > 0.0);
            let failed = get(&gateway, "/admin/requests?failed=true").await;
            assert_eq!(failed["requests"], json!([rejected]));
            let first = get(&gateway, "/admin/requests?limit=1").await;
            assert_eq!(first["requests"], json!([rejected]));
            let rest = get(&gateway, &format!("/admin/requests?before={}", first["next"])).await;
            assert_eq!(rest["requests"].as_array().unwrap().len(), 2);
        }
    }
}
