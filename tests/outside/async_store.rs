//! A quota store over the network: its refunds take time, and none is lost.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, response::Parts};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::yield_now,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    body::BodyEnd,
    clock::Calendar,
    error::StoreError,
    key::{KeyId, Limit},
    quota::{ChargeDecision, ChargePolicy, DailyQuotaLayer, ResponseEnd},
    store::{
        Demand, QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation, ReserveOutcome,
        StoreFuture,
    },
    usage::UsageRecorderLayer,
};

use super::Events;

const LIMIT: u64 = 5;

/// A store behind a connection with a queue of commands.
#[derive(Clone)]
struct Remote {
    commands: mpsc::UnboundedSender<(i64, oneshot::Sender<bool>)>,
    /// The units in the store, as they are known there.
    used: Arc<AtomicU64>,
    /// Number of commands that the store still responds to.
    permits: Arc<Semaphore>,
    /// Number of commands that were queued.
    queued: Arc<AtomicU64>,
}

impl Remote {
    fn start() -> Self {
        let (commands, mut queue) = mpsc::unbounded_channel::<(i64, oneshot::Sender<bool>)>();
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let remote = Self { commands, used: Arc::default(), permits, queued: Arc::default() };
        let (used, permits) = (remote.used.clone(), remote.permits.clone());
        tokio::spawn(async move {
            while let Some((change, respond)) = queue.recv().await {
                permits.acquire().await.unwrap().forget();
                for _ in 0..3 {
                    yield_now().await;
                }
                let changed = used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                    used.checked_add_signed(change).filter(|used| *used <= LIMIT)
                });
                // The caller may have left.
                let _ = respond.send(changed.is_ok());
            }
        });
        remote
    }

    /// Lets the store respond to this number of commands from now on.
    fn respond(&self, commands: usize) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
        self.permits.add_permits(commands);
    }

    /// Queues a command. The future is only its result.
    fn change(&self, change: i64) -> StoreFuture<bool> {
        let (respond, response) = oneshot::channel();
        self.commands.send((change, respond)).unwrap();
        self.queued.fetch_add(1, Ordering::SeqCst);
        StoreFuture::pending(async { response.await.map_err(StoreError::unavailable) })
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    async fn has_used(&self, used: u64) {
        for _ in 0..1000 {
            if self.used() == used {
                return;
            }
            yield_now().await;
        }
        panic!("{} used instead of {used}", self.used());
    }

    fn status(&self, demand: &Demand) -> QuotaStatus {
        let today = demand.window(&Calendar::utc());
        QuotaStatus::new(today.day, demand.limit, self.used(), today.end)
    }
}

impl QuotaStore for Remote {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (remote, demand) = (self.clone(), demand.clone());
        self.change(1).map(move |is_taken| {
            let status = remote.status(&demand);
            match is_taken {
                true => ReserveOutcome::Admitted { reservation: Box::new(Unit(remote)), status },
                false => ReserveOutcome::Exhausted(status),
            }
        })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        StoreFuture::ready(Ok(self.status(demand)))
    }
}

struct Unit(Remote);

impl Reservation for Unit {
    fn poll_committed(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Ok(()))
    }

    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        self.0.change(actual as i64 - 1).map(drop)
    }

    fn refund(&mut self, _: Refund) -> StoreFuture<bool> {
        self.0.change(-1)
    }
}

/// Refunds at this point only.
struct RefundAt(Option<BodyEnd>);

impl ChargePolicy for RefundAt {
    fn at_head(&self, _: &Parts) -> ChargeDecision {
        self.at(None)
    }

    fn at_end(&self, end: &ResponseEnd<'_>) -> ChargeDecision {
        self.at(Some(end.body))
    }
}

impl RefundAt {
    fn at(&self, point: Option<BodyEnd>) -> ChargeDecision {
        match self.0 == point {
            true => ChargeDecision::Refund(Refund::Always),
            false => ChargeDecision::Keep,
        }
    }
}

/// A body of these frames.
#[derive(Clone, Default)]
struct Frames(VecDeque<Result<&'static str, &'static str>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.0.pop_front().map(|frame| frame.map(|data| Frame::data(data.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

const WHOLE: [Result<&str, &str>; 2] = [Ok("one"), Ok("two")];
const BROKEN: [Result<&str, &str>; 2] = [Ok("one"), Err("broken")];

/// A service with a policy that refunds at this point, and its events.
fn service(
    remote: &Remote,
    refund: RefundAt,
    frames: impl Into<VecDeque<Result<&'static str, &'static str>>>,
) -> (
    impl Service<
        Request<()>,
        Response = Response<impl Body<Data = Bytes, Error = &'static str> + Unpin>,
        Error = Infallible,
    >,
    Events,
) {
    let (events, frames) = (Events::default(), Frames(frames.into()));
    let quota = DailyQuotaLayer::new(remote.clone())
        .subject(|_| QuotaSubject::new(KeyId::from("acme"), Limit::Units(LIMIT)))
        .policy(refund);
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(quota)
        .service(service_fn(move |_: Request<()>| {
            ready(Ok::<_, Infallible>(Response::new(frames.clone())))
        }));
    (service, events)
}

fn is_refunded(events: &Events) -> bool {
    events.0.lock().unwrap()[0].refunded
}

#[tokio::test]
async fn a_response_waits_for_its_refund() {
    for (point, frames) in [(None, &WHOLE[..]), (Some(BodyEnd::Complete), &[])] {
        let remote = Remote::start();
        let (service, events) = service(&remote, RefundAt(point), frames.to_vec());
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(remote.used(), 0);
        assert!(response.headers()["ratelimit"].to_str().unwrap().contains("r=5"));
        assert!(response.into_body().collect().await.is_ok());
        assert!(is_refunded(&events));
    }
}

#[tokio::test]
async fn an_error_waits_for_its_refund() {
    let remote = Remote::start();
    let service = DailyQuotaLayer::new(remote.clone())
        .subject(|_| QuotaSubject::new(KeyId::from("acme"), Limit::Units(LIMIT)))
        .layer(service_fn(async |_: Request<()>| Err::<Response<Frames>, _>("failed")));
    assert_eq!(service.oneshot(Request::new(())).await.err(), Some("failed"));
    assert_eq!((remote.used(), remote.queued.load(Ordering::SeqCst)), (0, 2));
}

#[tokio::test]
async fn the_last_frame_waits_for_the_refund() {
    for (end, frames) in [(BodyEnd::Complete, WHOLE), (BodyEnd::Failed, BROKEN)] {
        let remote = Remote::start();
        let (service, events) = service(&remote, RefundAt(Some(end)), frames.to_vec());
        let mut body = pin!(service.oneshot(Request::new(())).await.unwrap().into_body());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert_eq!(remote.used(), 1);

        remote.respond(0);
        assert!(body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(!body.is_end_stream(), "a frame is held back");
        assert!(events.0.lock().unwrap().is_empty());
        remote.respond(1);

        let last = body.frame().await.unwrap().map(|frame| frame.into_data().unwrap());
        assert_eq!(last, frames[1].map(Bytes::from));
        assert_eq!(remote.used(), 0);
        assert!(body.frame().await.is_none());
        assert!(is_refunded(&events));
    }
}

#[tokio::test]
async fn a_client_that_leaves_gets_its_refund() {
    let remote = Remote::start();
    let (service, _) = service(&remote, RefundAt(Some(BodyEnd::Abandoned)), WHOLE);
    let mut body = service.oneshot(Request::new(())).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    remote.has_used(0).await;
}

#[tokio::test]
async fn a_refund_under_way_survives_the_response() {
    // At the head, and at the end of the body.
    for point in [None, Some(BodyEnd::Complete)] {
        let remote = Remote::start();
        remote.respond(1);
        let (service, _) = service(&remote, RefundAt(point), WHOLE);
        let mut call = Box::pin(async move {
            service.oneshot(Request::new(())).await.unwrap().into_body().collect().await
        });
        while remote.queued.load(Ordering::SeqCst) < 2 {
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            yield_now().await;
        }
        assert_eq!(remote.used(), 1);
        drop(call);
        remote.respond(1);
        remote.has_used(0).await;
    }
}
