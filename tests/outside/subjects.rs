//! Requests that count on subjects which are no keys, in events and reports.

use std::time::SystemTime;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::{Calendar, Period},
    key::{KeyId, Limit},
    quota::{DailyQuotaLayer, Subject},
    store::{
        Quota, QuotaSubject, RequestOutcome, UsageEvent,
        memory::MemoryStore,
        report::{UsageQuery, UsageReader},
    },
    usage::UsageRecorderLayer,
};

use super::{Events, hello, request, store};

fn subject(name: &str) -> Subject {
    QuotaSubject::new(KeyId::from(name), Limit::Units(1)).into()
}

/// Returns the ids of the events.
fn ids(events: &Events) -> Vec<Option<String>> {
    let id = |event: &UsageEvent| event.key_id.as_ref().map(KeyId::to_string);
    events.0.lock().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn a_report_shows_the_requests_of_a_subject() {
    let store = MemoryStore::new();
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store.clone()).subject(|_| subject("acme")))
        .service(service_fn(hello));
    for status in [200, 429, 429] {
        let response = service.clone().oneshot(request("/")).await.unwrap();
        assert_eq!(response.status(), status);
        response.into_body().collect().await.unwrap();
    }
    let today = Calendar::utc().window(SystemTime::now()).day;
    let report = store.report(UsageQuery::days(today.minus(1), today)).await.unwrap();
    let [row] = &report.rows[..] else { panic!("{report:?}") };
    assert_eq!((row.key_id.as_ref(), row.used), (Some(&KeyId::from("acme")), Some(1)));
    let figures = &row.figures;
    assert_eq!((figures.requests, figures.succeeded, figures.rejected), (1, 1, 2));
}

#[tokio::test]
async fn the_key_goes_before_the_subject() {
    let (store, events) = (store(5), Events::default());
    let quota = || DailyQuotaLayer::new(store.clone()).subject(|_| subject("acme"));
    let with_key = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(quota())
        .service(service_fn(hello));
    with_key.oneshot(request("/")).await.unwrap();
    assert_eq!(ids(&events), [Some("alice".to_owned())]);
}

#[tokio::test]
async fn of_several_subjects_the_event_has_the_outermost_that_is_counted() {
    let (store, events) = (MemoryStore::new(), Events::default());
    let by_address = Quota::new("by-address", Period::Day).unwrap();
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(DailyQuotaLayer::new(store.clone()).subject(|request| match request.uri.path() {
            "/tenant" => subject("acme"),
            "/unknown" => Subject::Unknown,
            _ => Subject::Exempt,
        }))
        .layer(DailyQuotaLayer::new(store).quota(by_address).subject(|request| {
            match request.uri.path() {
                "/exempt" => Subject::Exempt,
                _ => subject("192.0.2.1"),
            }
        }))
        .service(service_fn(hello));
    for path in ["/tenant", "/anonymous", "/exempt", "/unknown"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let expected = [Some("acme"), Some("192.0.2.1"), None, None];
    // The quota by address is exhausted by the first.
    assert_eq!(ids(&events), expected.map(|id| id.map(str::to_owned)));
    let events = events.0.lock().unwrap();
    let units: Vec<_> = events.iter().map(|event| (event.outcome, event.units)).collect();
    assert_eq!(units[0], (RequestOutcome::Succeeded, 1));
    assert_eq!(units[1], (RequestOutcome::Rejected, 0));
    assert_eq!(units[3], (RequestOutcome::Rejected, 0));
}
