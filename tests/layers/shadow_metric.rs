//! The metric of what a shadow quota would reject.

use std::convert::Infallible;

use crate::zone::memory_store;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    clock::Period,
    key::{KeyId, Limit},
    quota::{DailyQuotaLayer, Subject},
    request::RequestContext,
    store::{Quota, QuotaSubject},
};

type Body = Full<Bytes>;

#[tokio::test]
async fn what_a_shadow_would_reject_is_counted_by_quota_and_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let figures = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rejections = |reason: &str| {
        let name = "tower_quota_shadow_rejections_total";
        let series = format!(r#"{name}{{quota="trial",reason="{reason}"}} "#);
        let text = figures.render();
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
    };

    let shadow = DailyQuotaLayer::new(memory_store())
        .quota(Quota::new("trial", Period::Day).unwrap())
        .shadow(true)
        .subject(|request| match request.uri.path() {
            "/unknown" => Subject::Unknown,
            _ => QuotaSubject::new(KeyId::from("acme"), Limit::Units(2)).into(),
        });
    let service = shadow.layer(service_fn(async |request: Request<Body>| {
        let context = request.extensions().get::<RequestContext>();
        if let Some(reservation) = context.and_then(RequestContext::reservation) {
            reservation.take(1).await.unwrap();
        }
        Ok::<_, Infallible>(Response::new(Body::default()))
    }));
    let all = ["insufficient_quota", "quota_subject_missing", "rate_limit_exceeded"];
    assert_eq!(all.map(rejections), [Some(0); 3], "before the first request");
    // At its reservation and at what its handler takes.
    for (path, expected) in [("/", [0, 0, 0]), ("/", [2, 0, 0]), ("/unknown", [2, 1, 0])] {
        let request = Request::get(path).body(Body::default()).unwrap();
        assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 200);
        assert_eq!(all.map(rejections), expected.map(Some), "{path}");
    }
}
