//! Errors of the inner service, which pass as they are and cost what the policy says.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response, response::Parts};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    limit::ConcurrencyLimitLayer,
    load_shed::{LoadShedLayer, error::Overloaded},
    service_fn,
    timeout::{TimeoutLayer, error::Elapsed},
};
use tower_quota::{
    body::BodyEnd,
    key::{KeyId, Limit},
    quota::{ChargeDecision, ChargePolicy, DailyQuotaLayer, InnerError, ResponseEnd},
    store::{Demand, QuotaStore, QuotaSubject, Refund, RequestOutcome, memory::MemoryStore},
    usage::UsageRecorderLayer,
};

use super::Events;

const LIMIT: Limit = Limit::Units(3);

/// Counts the requests of one subject.
fn quota(store: &MemoryStore) -> DailyQuotaLayer {
    DailyQuotaLayer::new(store.clone()).subject(|_| QuotaSubject::new(KeyId::from("acme"), LIMIT))
}

fn used(store: &MemoryStore) -> u64 {
    let demand = Demand::new(KeyId::from("acme"), LIMIT, std::time::SystemTime::now());
    store.status(&demand).now_or_never().unwrap().unwrap().used
}

/// Responds once there is a permit.
fn waiting(
    permits: &Arc<Semaphore>,
) -> impl Service<Request<()>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let permits = permits.clone();
    service_fn(move |_: Request<()>| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            Ok(Response::new(Body::from("hello")))
        }
    })
}

#[tokio::test]
async fn a_shed_request_costs_nothing_until_the_refunds_of_the_day_are_used_up() {
    let (store, events, permits) =
        (MemoryStore::new(), Events::default(), Arc::new(Semaphore::new(0)));
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(quota(&store))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(waiting(&permits));
    let first = tokio::spawn(service.clone().oneshot(Request::new(())));
    while used(&store) == 0 {
        tokio::task::yield_now().await;
    }
    for used_after in [1, 1, 1, 2] {
        let Err(error) = service.clone().oneshot(Request::new(())).await else {
            panic!("not shed");
        };
        assert!(error.is::<Overloaded>(), "{error}");
        assert_eq!(used(&store), used_after);
    }
    permits.add_permits(1);
    let response = first.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");

    let events = events.0.lock().unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.outcome, event.units)).collect();
    let failed = RequestOutcome::Failed;
    let expected =
        [(failed, 0), (failed, 0), (failed, 0), (failed, 1), (RequestOutcome::Succeeded, 1)];
    assert_eq!(seen, expected);
}

/// A timeout is charged, as the work was begun; what was shed is not.
struct ChargeTimeouts;

impl ChargePolicy for ChargeTimeouts {
    fn at_head(&self, _: &Parts) -> ChargeDecision {
        ChargeDecision::Keep
    }

    fn at_error(&self, error: InnerError<'_>) -> ChargeDecision {
        match error.is::<Elapsed>() {
            true => ChargeDecision::Keep,
            false => ChargeDecision::Refund(Refund::Always),
        }
    }
}

#[tokio::test]
async fn a_policy_distinguishes_errors() {
    let (store, permits) = (MemoryStore::new(), Arc::new(Semaphore::new(0)));
    let service = ServiceBuilder::new()
        .layer(quota(&store).policy(ChargeTimeouts))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(TimeoutLayer::new(Duration::from_millis(50)))
        .service(waiting(&permits));
    let slow = tokio::spawn(service.clone().oneshot(Request::new(())));
    while used(&store) == 0 {
        tokio::task::yield_now().await;
    }
    let shed: Result<_, BoxError> = service.oneshot(Request::new(())).await;
    assert!(shed.is_err_and(|error| error.is::<Overloaded>()));
    assert!(slow.await.unwrap().is_err_and(|error| error.is::<Elapsed>()));
    assert_eq!(used(&store), 1, "the timeout's");
}

/// Gives back what the client did not stay for.
struct RefundAbandoned;

impl ChargePolicy for RefundAbandoned {
    fn at_head(&self, _: &Parts) -> ChargeDecision {
        ChargeDecision::Keep
    }

    fn at_end(&self, end: &ResponseEnd<'_>) -> ChargeDecision {
        match (end.body, end.bytes) {
            (BodyEnd::Abandoned, 0) => ChargeDecision::Refund(Refund::Always),
            _ => ChargeDecision::Keep,
        }
    }
}

#[tokio::test]
async fn an_event_reports_the_refund_of_a_body_that_was_dropped() {
    let (store, events) = (MemoryStore::new(), Events::default());
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(quota(&store).policy(RefundAbandoned))
        .service(waiting(&Arc::new(Semaphore::new(2))));
    drop(service.clone().oneshot(Request::new(())).await.unwrap());
    let response = service.oneshot(Request::new(())).await.unwrap();
    response.into_body().collect().await.unwrap();
    let events = events.0.lock().unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.outcome, event.refunded)).collect();
    let expected = [(RequestOutcome::ClientGone, true), (RequestOutcome::Succeeded, false)];
    assert_eq!(seen, expected);
    assert_eq!(used(&store), 1);
}
