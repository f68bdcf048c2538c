//! Every call responses what `openapi.json` says, and everything that it says can be provoked.

use std::{collections::BTreeSet, net::IpAddr};

use crate::common::{
    admin::{Admin, CollectedResponse, TOKEN},
    failing_store::FailingStore,
};
use http::{Request, request::Builder};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;
use tower_quota::{
    admin::{AdminService, AdminTokens, admin_service},
    error::StoreErrorKind,
    request::RequestContext,
};

/// A call that succeeds, with `{ref}` for a key and `{number}` for a node, and the statuses that it can be made to response.
struct Row {
    id: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    statuses: &'static [u16],
}

const fn row(
    id: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    statuses: &'static [u16],
) -> Row {
    Row { id, method, path, body, statuses }
}

const TABLE: [Row; 18] = [
    row("listKeys", "GET", "/keys", "", &[200, 400, 401, 403, 429, 503]),
    row("createKeys", "POST", "/keys", "{}", &[201, 400, 401, 403, 409, 413, 422, 429, 503]),
    row("exportKeys", "GET", "/keys/export", "", &[200, 400, 401, 403, 429]),
    row(
        "importKeys",
        "POST",
        "/keys/import?dry_run=true",
        "key,daily_limit\ntrial-key-manual-123,5\n",
        &[200, 400, 401, 403, 413, 429, 503],
    ),
    row("getKey", "GET", "/keys/{ref}", "", &[200, 400, 401, 403, 404, 429, 503]),
    row(
        "updateKey",
        "PATCH",
        "/keys/{ref}",
        r#"{"label":"a"}"#,
        &[200, 400, 401, 403, 404, 412, 413, 429, 503],
    ),
    row("deleteKey", "DELETE", "/keys/{ref}", "", &[200, 400, 401, 403, 404, 412, 429, 503]),
    row(
        "rotateKey",
        "POST",
        "/keys/{ref}/rotate",
        "",
        &[200, 400, 401, 403, 404, 409, 412, 413, 429, 503],
    ),
    row(
        "claimKey",
        "POST",
        "/keys/{ref}/claim",
        "{}",
        &[201, 400, 401, 403, 404, 409, 413, 429, 503],
    ),
    row("getUsage", "GET", "/usage?key={ref}", "", &[200, 400, 401, 403, 404, 429, 503]),
    row(
        "resetUsage",
        "POST",
        "/reset-usage",
        r#"{"key":"{ref}"}"#,
        &[200, 400, 401, 403, 404, 412, 413, 429, 503],
    ),
    row("getAudit", "GET", "/audit", "", &[200, 400, 401, 403, 429, 503]),
    row("getRequests", "GET", "/requests", "", &[200, 400, 401, 403, 429, 503]),
    row("getStatus", "GET", "/status", "", &[200, 400, 401, 403, 429]),
    row("listNodes", "GET", "/nodes", "", &[200, 400, 401, 403, 429, 503]),
    row(
        "releaseNode",
        "POST",
        "/nodes/{number}/release",
        r#"{"accept_loss":true}"#,
        &[200, 400, 401, 403, 404, 409, 413, 429, 503],
    ),
    row("backUp", "POST", "/backup", "", &[200, 400, 401, 403, 409, 429, 501, 503]),
    row("getDescription", "GET", "/openapi.json", "", &[200, 400, 403]),
];

const LET_IN: [u8; 4] = [192, 0, 2, 1];
const KEPT_OUT: [u8; 4] = [203, 0, 113, 1];

/// A service over a store that fails so, and the id of a key in it.
async fn service(fails: Option<StoreErrorKind>) -> (AdminService<FailingStore>, String) {
    let admin = Admin::new();
    let (id, _) = admin.create("").await;
    let store = FailingStore { store: admin.store, fails };
    let service = admin_service(store, AdminTokens::parse(TOKEN).unwrap());
    (service.allow(|ip| ip == IpAddr::from(LET_IN)), id)
}

async fn send(
    service: &AdminService<FailingStore>,
    request: Builder,
    body: String,
    from: [u8; 4],
) -> CollectedResponse {
    let mut request = request.body(Full::<bytes::Bytes>::from(body)).unwrap();
    RequestContext::of(request.extensions_mut()).set_client_addr(IpAddr::from(from));
    let (head, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    CollectedResponse { head, text: String::from_utf8(body.to_vec()).unwrap() }
}

/// Makes a call response this status.
async fn provoke(row: &Row, status: u16) -> CollectedResponse {
    let (is_claim, is_release) = (row.id == "claimKey", row.id == "releaseNode");
    let fails = match status {
        409 if row.id == "backUp" => Some(StoreErrorKind::Busy),
        409 if !is_claim && !is_release => Some(StoreErrorKind::Conflict),
        501 => Some(StoreErrorKind::NotSupported),
        503 => Some(StoreErrorKind::Unavailable),
        _ => None,
    };
    let (service, id) = service(fails).await;
    let id = if status == 404 { "key_that_nobody_has" } else { &id };
    let node = match status {
        404 => "4",
        409 => "2",
        _ => "1",
    };
    let (path, mut body) = (row.path.replace("{ref}", id), row.body.replace("{ref}", id));
    let mut path = path.replace("{number}", node);
    let mut token = Some(TOKEN);
    let mut from = LET_IN;
    match status {
        400 => path += if path.contains('?') { "&unknown=1" } else { "?unknown=1" },
        401 => token = None,
        403 => from = KEPT_OUT,
        409 if is_claim => {
            let off = Request::patch(format!("/admin/keys/{id}")).header("x-admin-token", TOKEN);
            let off = send(&service, off, r#"{"disabled":true}"#.into(), LET_IN).await;
            assert_eq!(off.status(), 200);
        }
        413 => body = format!(r#"{{"label":"{}"}}"#, "x".repeat(8 * 1024 * 1024)),
        429 => {
            token = Some("a-wrong-admin-token");
            for _ in 0..10 {
                let wrong = Request::get("/admin/keys").header("x-admin-token", "wrong");
                assert_eq!(send(&service, wrong, String::new(), LET_IN).await.status(), 401);
            }
        }
        _ => {}
    }
    let mut request = Request::builder().method(row.method).uri(format!("/admin{path}"));
    if status == 422 {
        let first = Request::post("/admin/keys").header("idempotency-key", "one");
        let first = first.header("x-admin-token", TOKEN);
        assert_eq!(
            send(&service, first, r#"{"label":"other"}"#.into(), LET_IN).await.status(),
            201
        );
        request = request.header("idempotency-key", "one");
    }
    if status == 412 {
        request = request.header("if-match", "\"0123456789abcdef0123456789abcdef\"");
    }
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    send(&service, request, body, from).await
}

async fn document() -> Value {
    let (service, _) = service(None).await;
    send(&service, Request::get("/admin/openapi.json"), String::new(), LET_IN).await.json()
}

/// The described calls: id, method, path and responses.
fn described(document: &Value) -> Vec<(&str, &str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let calls = paths.flat_map(|(path, calls)| {
        let calls = calls.as_object().unwrap().iter();
        calls.map(move |(method, call)| (path, method, call))
    });
    calls
        .map(|(path, method, call)| {
            let id = call["operationId"].as_str().unwrap();
            (id, method.as_str(), path.as_str(), &call["responses"])
        })
        .collect()
}

#[tokio::test]
async fn the_table_provokes_exactly_the_documented_statuses() {
    let document = document().await;
    let reported: BTreeSet<(&str, u16)> = described(&document)
        .into_iter()
        .flat_map(|(id, .., responses)| {
            let statuses = responses.as_object().unwrap().keys();
            statuses.map(move |status| (id, status.parse().unwrap()))
        })
        .collect();
    let provoked: BTreeSet<(&str, u16)> =
        TABLE.iter().flat_map(|row| row.statuses.iter().map(|status| (row.id, *status))).collect();
    assert_eq!(reported, provoked);
}

#[tokio::test]
async fn every_documented_status_is_returned_as_documented() {
    let document = document().await;
    let described = described(&document);
    for row in &TABLE {
        let (_, method, path, responses) = described.iter().find(|call| call.0 == row.id).unwrap();
        assert_eq!(*method, row.method.to_lowercase());
        assert_eq!(*path, format!("/admin{}", row.path.split('?').next().unwrap()));
        for status in row.statuses {
            let response = provoke(row, *status).await;
            let call = format!("{} {status}: {}", row.id, response.text);
            assert_eq!(response.status().as_u16(), *status, "{call}");
            let described = &responses[status.to_string()];
            let content = &described["content"][response.header("content-type")];
            assert!(content.is_object(), "{call}");
            if *status >= 400 {
                let code = &response.json()["code"];
                let codes = &content["schema"]["properties"]["code"]["enum"];
                assert!(codes.as_array().unwrap().contains(code), "{call}");
                let example = &content["examples"][code.as_str().unwrap()]["value"];
                assert_eq!(&example["code"], code, "{call}");
            }
            for (name, header) in described["headers"].as_object().unwrap() {
                let common = &document["components"]["headers"][name]["required"];
                if header["required"] == true || (header["$ref"].is_string() && *common == true) {
                    assert!(!response.header(name).is_empty(), "{call} {name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_store_without_backups_responds_501() {
    let admin = Admin::new();
    let response = admin.call("POST", "/admin/backup", "").await;
    assert_eq!(
        (response.status().as_u16(), &response.json()["code"]),
        (501, &"not_supported".into())
    );
}

#[tokio::test]
async fn a_csv_report_is_described() {
    let (service, _) = service(None).await;
    let request = Request::get("/admin/usage?format=csv").header("x-admin-token", TOKEN);
    let response = send(&service, request, String::new(), LET_IN).await;
    let document = document().await;
    let described = &document["paths"]["/admin/usage"]["get"]["responses"]["200"];
    assert!(described["content"][response.header("content-type")].is_object());
    assert!(described["headers"]["Content-Disposition"].is_object());
}

#[tokio::test]
async fn a_node_is_released_only_where_its_loss_is_accepted() {
    let (service, _) = service(None).await;
    let release = async |number: &str, body: &str| {
        let request = Request::post(format!("/admin/nodes/{number}/release"));
        let response = send(&service, request.header("x-admin-token", TOKEN), body.into(), LET_IN);
        let response = response.await;
        (response.status().as_u16(), response.json())
    };
    for (body, code) in [
        ("", "missing_field"),
        ("{}", "missing_field"),
        (r#"{"accept_loss":false}"#, "invalid_field"),
        (r#"{"accept_loss":1}"#, "invalid_field"),
        (r#"{"accept_loss":"true"}"#, "invalid_field"),
    ] {
        let (status, response) = release("1", body).await;
        assert_eq!((status, response["code"].as_str().unwrap()), (400, code), "{body}");
    }
    let accepted = r#"{"accept_loss":true}"#;
    for (number, status, code) in [
        ("2", 409, "node_in_use"),
        ("3", 409, "node_closed"),
        ("4", 404, "node_not_found"),
        ("0", 404, "node_not_found"),
        ("01", 404, "node_not_found"),
        ("+1", 404, "node_not_found"),
        ("2147483648", 404, "node_not_found"),
        ("a", 404, "node_not_found"),
    ] {
        let (found, response) = release(number, accepted).await;
        assert_eq!((found, response["code"].as_str().unwrap()), (status, code), "{number}");
    }
    let (status, response) = release("1", accepted).await;
    assert_eq!(
        (status, &response["released"], &response["node"]["number"]),
        (200, &true.into(), &1.into())
    );
    let audit = Request::get("/admin/audit?action=node.release").header("x-admin-token", TOKEN);
    let audit = send(&service, audit, String::new(), LET_IN).await.json();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1, "{audit}");
}

#[tokio::test]
async fn a_store_of_one_process_has_no_nodes() {
    let admin = Admin::new();
    assert_eq!(
        admin.call("GET", "/admin/nodes", "").await.json(),
        serde_json::json!({"nodes": []})
    );
    let response = admin.call("POST", "/admin/nodes/1/release", r#"{"accept_loss":true}"#).await;
    assert_eq!(response.status(), 404);
}
