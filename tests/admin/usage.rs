//! The operator's report and the holder's report say what was used.

use std::{convert::Infallible, time::Duration};

use crate::common::{
    admin::{Admin, CollectedResponse, text},
    noon_calendar, noon_zone,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    openai::OpenAiUsage,
    quota::DailyQuotaLayer,
    usage::{UsageRecorderLayer, usage_service},
};

const RESPONSE: &str =
    r#"{"model":"m1","usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}"#;

/// One request through the three layers.
async fn spend(admin: &Admin, key: &str) {
    completed(admin, key, 200, RESPONSE).await;
}

/// Sends one request through the three layers, whose inner service responds with this.
async fn completed(admin: &Admin, key: &str, status: u16, body: &'static str) {
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(admin.store.clone()))
        .layer(UsageRecorderLayer::new(admin.store.clone()).format(OpenAiUsage))
        .layer(DailyQuotaLayer::new(admin.store.clone()))
        .service(service_fn(move |_: Request<Full<Bytes>>| async move {
            let response = Response::builder().status(status).body(Full::<Bytes>::from(body));
            Ok::<_, Infallible>(response.unwrap())
        }));
    let request = Request::post("/v1/x").header("x-api-key", key);
    let response = service.oneshot(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), status);
    response.into_body().collect().await.unwrap();
}

async fn holder(admin: &Admin, method: &str, key: &str) -> CollectedResponse {
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(admin.store.clone()))
        .service(usage_service(admin.store.clone(), noon_calendar()));
    let request = Request::builder().method(method).uri("/usage").header("x-api-key", key);
    let response = service.oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    CollectedResponse { head, text: String::from_utf8(body.to_vec()).unwrap() }
}

#[tokio::test]
async fn todays_report_lists_used_keys_first_and_then_the_others() {
    let admin = Admin::new();
    let (idle, _) = admin.create(r#"{"label":"idle","daily_limit":7}"#).await;
    let (used, key) = admin.create(r#"{"label":"=busy","daily_limit":10}"#).await;
    for _ in 0..3 {
        spend(&admin, &key).await;
    }
    let report = admin.get("/admin/usage").await.json();
    assert_eq!(report["total_requests"], 3);
    assert_eq!((&report["active_keys"], &report["total_keys"]), (&json!(1), &json!(2)));
    let item = &report["items"][0];
    assert_eq!((&item["id"], &item["label"]), (&json!(used), &json!("=busy")));
    assert_eq!(item["day"], report["day"]);
    for (field, value) in [
        ("requests", 3),
        ("used_today", 3),
        ("daily_limit", 10),
        ("remaining", 7),
        ("succeeded", 3),
        ("failed", 0),
        ("refunded", 0),
    ] {
        assert_eq!(item[field], value, "{field}");
    }
    assert_eq!(item["tokens"], json!({"prompt":6,"completion":9,"total":15}));
    let item = &report["items"][1];
    assert_eq!(
        (&item["id"], &item["used_today"], &item["remaining"]),
        (&json!(idle), &json!(0), &json!(7))
    );

    let one = admin.get(&format!("/admin/usage?key={key}")).await;
    assert!(!one.text.contains(&key));
    assert_eq!(one.json()["items"].as_array().unwrap().len(), 1);
    let one = admin.get(&format!("/admin/usage?key={idle}")).await.json();
    assert_eq!(one["items"][0]["used_today"], 0);
    assert_eq!(admin.get("/admin/usage?key=unknown").await.status(), 404);

    let models = admin.get("/admin/usage?group_by=model").await.json();
    assert_eq!(models["active_keys"], 1);
    assert_eq!(models["items"][0]["model"], "m1");
    assert_eq!(models["items"][0].get("id"), None);
    assert_eq!(models["items"][0].get("used_today"), None);
    let past = admin.get("/admin/usage?day=2020-01-01").await.json();
    assert_eq!((&past["day"], &past["items"]), (&json!("2020-01-01"), &json!([])));
    let month = admin.get("/admin/usage?from=2020-01-01&to=2020-02-01").await.json();
    assert_eq!((&month["day"], &month["to"]), (&Value::Null, &json!("2020-02-01")));

    let csv = admin.get("/admin/usage?format=csv").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let rows: Vec<&str> = csv.text.split("\r\n").collect();
    assert!(
        rows[0].starts_with("\u{feff}day,id,key,label,model,requests,used,daily_limit,remaining,")
    );
    assert!(rows[1].contains(",\"'=busy\",,3,3,10,7,6,9,15,3,0,0,0"), "{}", rows[1]);
    assert_eq!((rows.len(), rows[2]), (3, ""));
}

#[tokio::test]
async fn a_deleted_keys_history_stays() {
    let admin = Admin::new();
    let (id, key) = admin.create(r#"{"label":"gone"}"#).await;
    spend(&admin, &key).await;
    admin.call("DELETE", &format!("/admin/keys/{id}"), "").await;
    let report = admin.get(&format!("/admin/usage?key={id}")).await.json();
    assert_eq!(report["items"][0]["requests"], 1);
    assert_eq!((&report["items"][0]["label"], &report["total_keys"]), (&json!("gone"), &json!(0)));
    assert!(!report["items"][0]["key"].as_str().unwrap().contains(&key[key.len() - 8..]));
}

#[tokio::test]
async fn used_and_remaining_always_add_up_for_the_holder() {
    let admin = Admin::new();
    let (id, key) = admin.create(r#"{"label":"alice","daily_limit":10}"#).await;
    for _ in 0..4 {
        spend(&admin, &key).await;
    }
    let response = holder(&admin, "GET", &key).await;
    assert!(!response.text.contains(&key));
    assert_eq!(response.header("cache-control"), "no-store");
    let usage = response.json();
    for (field, value) in [
        ("object", json!("usage")),
        ("id", json!(id)),
        ("label", json!("alice")),
        ("timezone", json!(noon_zone())),
        ("daily_limit", json!(10)),
        ("used", json!(4)),
        ("remaining", json!(6)),
        ("unlimited", json!(false)),
        ("expires_at", Value::Null),
        ("requests", json!({"succeeded":4,"failed":0,"refunded":0,"tokens_unknown":0})),
        ("tokens", json!({"prompt":8,"completion":12,"total":20})),
        ("history", json!([])),
    ] {
        assert_eq!(usage[field], value, "{field}");
    }
    assert!(text(&usage["resets_at"]).ends_with(":00:00Z"));

    let path = format!("/admin/keys/{id}");
    admin.call("PATCH", &path, r#"{"daily_limit":3}"#).await;
    let usage = holder(&admin, "GET", &key).await.json();
    assert_eq!(
        (&usage["daily_limit"], &usage["used"], &usage["remaining"]),
        (&json!(3), &json!(3), &json!(0))
    );
    admin.call("PATCH", &path, r#"{"daily_limit":0}"#).await;
    let usage = holder(&admin, "GET", &key).await.json();
    assert_eq!(
        (&usage["daily_limit"], &usage["used"], &usage["remaining"]),
        (&json!(0), &json!(4), &Value::Null)
    );
    assert_eq!(usage["unlimited"], true);

    admin.call("POST", "/admin/reset-usage", &json!({ "key": key }).to_string()).await;
    assert_eq!(holder(&admin, "GET", &key).await.json()["used"], 0);
}

/// The holder's report, this number of days from now.
async fn holder_after(admin: &Admin, key: &str, days: u64) -> Value {
    let then = std::time::SystemTime::now() + Duration::from_secs(days * 86_400);
    let mut request =
        Request::get("/usage").header("x-api-key", key).body(Full::<Bytes>::default()).unwrap();
    tower_quota::request::RequestContext::of(request.extensions_mut()).set_received_at(then);
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(admin.store.clone()))
        .service(usage_service(admin.store.clone(), noon_calendar()));
    let response = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    serde_json::from_slice(&response.to_bytes()).unwrap()
}

#[tokio::test]
async fn the_holders_history_is_of_the_days_before() {
    let admin = Admin::new();
    let (_, key) = admin.create("").await;
    spend(&admin, &key).await;
    completed(&admin, &key, 404, "no").await;
    for days in [1, 30] {
        let usage = holder_after(&admin, &key, days).await;
        assert_eq!(usage["used"], 0);
        let mut past = usage["history"][0].clone();
        past.as_object_mut().unwrap().remove("day");
        let expected = json!({"requests":2,"succeeded":1,"failed":1,"tokens":5,"tokens_unknown":0});
        assert_eq!(past, expected, "{days}");
    }
    assert_eq!(holder_after(&admin, &key, 31).await["history"], json!([]));
}

#[tokio::test]
async fn the_holders_report_names_the_busiest_models_of_30_days_with_today() {
    let admin = Admin::new();
    let (_, key) = admin.create("").await;
    let (_, other) = admin.create("").await;
    assert_eq!(holder(&admin, "GET", &key).await.json()["models"], json!([]));
    completed(&admin, &key, 200, r#"{"model":"<b>"}"#).await;
    spend(&admin, &key).await;
    spend(&admin, &key).await;
    for _ in 0..3 {
        completed(&admin, &key, 404, "no").await;
    }
    spend(&admin, &other).await;
    let models = json!([
        {"model":null,"requests":3,"tokens":0,"tokens_unknown":0},
        {"model":"m1","requests":2,"tokens":10,"tokens_unknown":0},
        {"model":"<b>","requests":1,"tokens":0,"tokens_unknown":1},
    ]);
    assert_eq!(holder(&admin, "GET", &key).await.json()["models"], models);
    assert_eq!(holder_after(&admin, &key, 29).await["models"], models);
    assert_eq!(holder_after(&admin, &key, 30).await["models"], json!([]));
}

#[tokio::test]
async fn the_holders_report_is_read_only_and_needs_a_key() {
    let admin = Admin::new();
    let (_, key) = admin.create("").await;
    let response = holder(&admin, "POST", &key).await;
    assert_eq!((response.status().as_u16(), response.header("allow")), (405, "GET, HEAD"));
    assert_eq!(holder(&admin, "HEAD", &key).await.text, "");
    let alone = usage_service(admin.store.clone(), noon_calendar());
    let response = alone.oneshot(Request::new(Full::<Bytes>::default())).await.unwrap();
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn pages_of_today_hold_every_key_once_used_ones_first() {
    let admin = Admin::new();
    let mut expected = Vec::new();
    for used in [0, 3, 0, 1, 2, 0, 0] {
        let (id, key) = admin.create(r#"{"daily_limit":10}"#).await;
        for _ in 0..used {
            spend(&admin, &key).await;
        }
        expected.push((id, used));
    }
    expected.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
    for limit in [1, 2, 3, 7, 100] {
        let (mut seen, mut after) = (Vec::new(), json!(0));
        while !after.is_null() {
            let path = format!("/admin/usage?limit={limit}&after={after}");
            let page = admin.get(&path).await.json();
            for item in page["items"].as_array().unwrap() {
                let used = item["used_today"].as_u64().unwrap();
                assert_eq!(item["remaining"], 10 - used);
                seen.push((text(&item["id"]), used));
            }
            after = page["next"].clone();
        }
        assert_eq!(seen, expected, "{limit}");
    }
    let beyond = admin.get("/admin/usage?after=999").await.json();
    assert_eq!(beyond["items"], json!([]));
    let (used, idle) = (&expected[0].0, &expected[6].0);
    for (key, after, items) in [(used, 0, 1), (used, 1, 0), (idle, 0, 1), (idle, 1, 0)] {
        let path = format!("/admin/usage?key={key}&after={after}");
        let page = admin.get(&path).await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), items, "{path}");
    }
    let csv = admin.get(&format!("/admin/usage?key={idle}&format=csv")).await;
    assert_eq!(csv.text.lines().count(), 1, "{}", csv.text);
    for page in ["limit=5", "after=5"] {
        let rejected = admin.get(&format!("/admin/usage?format=csv&{page}")).await;
        assert_eq!(rejected.status(), 400, "{page}");
    }
}
