//! The holder's page in Chromium, before a real gateway: it shows what it should, and gives nothing
//! away. With `SHOTS` set to a directory, pictures of every state are put there.

use crate::common::{Gateway, GatewayCommand, Upstream, chat_json, full, json_response};
use http::{Method, Request, Response};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

const HOSTILE: &str = r#"<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"#;

/// A gateway with keys in every state.
struct House {
    gateway: Gateway,
    _upstream: Upstream,
    keys: Value,
}

impl House {
    async fn build() -> Self {
        let upstream = Upstream::start(respond).await;
        let gateway = GatewayCommand::before(upstream.base_url()).start();
        let mut house = Self { gateway, _upstream: upstream, keys: json!({}) };
        let busy = house.key("busy", json!({"label": HOSTILE, "daily_limit": 200})).await;
        house.key("full", json!({"label": "用户A", "daily_limit": 2})).await;
        house.key("free", json!({"label": "Unlimited", "daily_limit": 0})).await;
        house.key("idle", json!({"daily_limit": 50, "expires_at": "2999-01-01T00:00:00Z"})).await;
        let off = house.key("off", json!({"label": "off"})).await;
        let over = house.key("over", json!({"label": "over"})).await;
        house.change(&off, json!({"disabled": true})).await;
        house.change(&over, json!({"expires_at": "2020-01-01T00:00:00Z"})).await;

        for (key, model, status) in [
            ("busy", HOSTILE, 200),
            ("busy", HOSTILE, 200),
            ("busy", "deepseek-chat", 200),
            ("busy", "deepseek-chat", 404),
            ("busy", "deepseek-chat", 500),
            ("full", "deepseek-chat", 200),
            ("full", "deepseek-chat", 200),
            ("free", "deepseek-reasoner", 200),
        ] {
            house.ask(key, model, status).await;
        }
        house.remember(&busy).await;
        house
    }

    /// Issues a key and returns its id.
    async fn key(&mut self, name: &str, request: Value) -> String {
        let response = self.gateway.admin(Method::POST, "/admin/keys", &request).await;
        self.keys[name] = response["key"].clone();
        response["id"].as_str().unwrap().to_owned()
    }

    async fn change(&self, id: &str, change: Value) {
        self.gateway.admin(Method::PATCH, &format!("/admin/keys/{id}"), &change).await;
    }

    async fn ask(&self, key: &str, model: &str, status: u16) {
        let key = self.keys[key].as_str().unwrap();
        let url = self.gateway.url("/v1/chat/completions");
        let question = json!({"model": model, "status": status, "messages": []});
        let response = crate::common::Client::http1().post_as(key, &url, &question).await;
        assert_eq!(response.status, status);
    }

    /// Gives a key a past: three days, one of them the oldest that the chart shows.
    async fn remember(&self, id: &str) {
        let usage = self.gateway.usage(self.keys["busy"].as_str().unwrap()).await;
        let today: jiff::civil::Date = usage["day"].as_str().unwrap().parse().unwrap();
        let database = Connection::open(self.gateway.dir().join("quota.db")).unwrap();
        for (ago, model, succeeded, failed) in
            [(1, "deepseek-chat", 120, 8), (2, "deepseek-reasoner", 40, 0), (29, "", 7, 7)]
        {
            let day = today.checked_sub(jiff::Span::new().days(ago)).unwrap().to_string();
            database
                .execute(
                    "INSERT INTO usage_totals (day, key_id, model, requests, succeeded, failed,
                         prompt_tokens, completion_tokens, total_tokens)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1000, 500, 1500)",
                    params![day, id, model, succeeded + failed, succeeded, failed],
                )
                .unwrap();
        }
    }

    fn browse(&self, scene: &str) {
        let output = crate::common::node("usage_page.cjs")
            .arg(scene)
            .env("BASE_URL", self.gateway.url(""))
            .env("KEYS", self.keys.to_string())
            .env("HOSTILE", HOSTILE)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let printed = self.gateway.printed();
        assert!(output.status.success(), "{errors}\n{printed}");
        for (name, key) in self.keys.as_object().unwrap() {
            assert!(!printed.contains(key.as_str().unwrap()), "the key {name} was logged");
        }
    }
}

/// Responds with the status and the model that the request names.
fn respond(request: Request<bytes::Bytes>) -> Response<crate::common::StubBody> {
    let question: Value = serde_json::from_slice(request.body()).unwrap();
    let status = u16::try_from(question["status"].as_u64().unwrap()).unwrap();
    if status != 200 {
        return Response::builder().status(status).body(full(r#"{"error":{}}"#)).unwrap();
    }
    let mut chat = chat_json();
    chat["model"] = question["model"].clone();
    json_response(chat.to_string())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
async fn every_state_is_readable_in_each_language_scheme_and_size() {
    House::build().await.browse("looks");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
async fn usage_page_shows_figures_and_never_exposes_the_key() {
    House::build().await.browse("works");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
async fn usage_page_refreshes_itself() {
    House::build().await.browse("time");
}
