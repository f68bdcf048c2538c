use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    CommitPoint, DailyQuotaLayer, QuotaRejection, Subject,
    reservation::{HeldReservation, Need, PendingReservation, SettleAtEnd},
};
use crate::{
    body::{self, ObservedBody, expected_length, opaque_body},
    error::StoreError,
    store::StoreFuture,
};

pin_project! {
    /// Response future of [`DailyQuota`](super::DailyQuota).
    pub struct ResponseFuture<S, F, ReqBody, ResBody> {
        layer: Arc<DailyQuotaLayer>,
        method: Method,
        reservation: Option<HeldReservation>,
        #[pin]
        state: State<S, F, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody, ResBody> {
        // Nothing is reserved.
        Rejected { rejection: QuotaRejection },
        // The subject is looked up.
        Identifying {
            subject: StoreFuture<Subject>,
            need: Option<Need>,
            call: Option<Box<Call<S, ReqBody>>>,
        },
        // The store decides on the reservation.
        Reserving { pending: PendingReservation, call: Option<Box<Call<S, ReqBody>>> },
        // The reservation becomes durable before the inner service is called.
        Committing { call: Option<Box<Call<S, ReqBody>>> },
        // The inner service was called; the reservation, unless the request is exempt, becomes durable
        // meanwhile.
        Forwarding { #[pin] future: F },
        // The response waits until the reservation is durable.
        Holding { response: Option<InnerResponse<ResBody>> },
    }
}

/// The readied inner service and its request. Boxed, as it is rarely kept and larger than all else.
struct Call<S, ReqBody> {
    inner: S,
    request: Request<ReqBody>,
}

/// The inner service's response.
struct InnerResponse<B> {
    head: Parts,
    body: B,
    expected: Option<u64>,
}

impl<S, F, ReqBody, ResBody> ResponseFuture<S, F, ReqBody, ResBody> {
    pub(super) fn rejected(
        layer: Arc<DailyQuotaLayer>,
        method: Method,
        rejection: QuotaRejection,
    ) -> Self {
        Self { layer, method, reservation: None, state: State::Rejected { rejection } }
    }

    pub(super) fn identifying(
        layer: Arc<DailyQuotaLayer>,
        subject: StoreFuture<Subject>,
        need: Need,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let (need, call) = (Some(need), Some(Box::new(Call { inner, request })));
        Self { layer, method, reservation: None, state: State::Identifying { subject, need, call } }
    }

    pub(super) fn reserving(
        layer: Arc<DailyQuotaLayer>,
        pending: PendingReservation,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let call = Some(Box::new(Call { inner, request }));
        Self { layer, method, reservation: None, state: State::Reserving { pending, call } }
    }

    pub(super) fn committing(
        layer: Arc<DailyQuotaLayer>,
        reservation: HeldReservation,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let call = Some(Box::new(Call { inner, request }));
        Self { layer, method, reservation: Some(reservation), state: State::Committing { call } }
    }

    pub(super) fn forwarding(
        layer: Arc<DailyQuotaLayer>,
        method: Method,
        reservation: Option<HeldReservation>,
        future: F,
    ) -> Self {
        Self { layer, method, reservation, state: State::Forwarding { future } }
    }
}

const COMPLETED: &str = "`ResponseFuture` polled after completion";

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, S::Future, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Rejected { rejection } => {
                    return Poll::Ready(Ok(this.layer.respond(this.method, rejection)));
                }
                StateProj::Identifying { subject, need, call } => {
                    let subject = ready!(Pin::new(subject).poll(cx)).map_err(QuotaRejection::Store);
                    let need = need.take().expect(COMPLETED);
                    match subject.and_then(|subject| this.layer.reserve(subject, need)) {
                        Ok(pending) => {
                            let call = call.take();
                            this.state.set(match pending {
                                Some(pending) => State::Reserving { pending, call },
                                None => forward(call),
                            });
                        }
                        Err(rejection) => {
                            return Poll::Ready(Ok(this.layer.respond(this.method, &rejection)));
                        }
                    }
                }
                StateProj::Reserving { pending, call } => {
                    match ready!(pending.poll(cx)) {
                        Ok(reservation) => *this.reservation = Some(reservation),
                        Err(rejection) => {
                            return Poll::Ready(Ok(this.layer.respond(this.method, &rejection)));
                        }
                    }
                    let call = call.take();
                    this.state.set(match this.layer.commit {
                        CommitPoint::BeforeForward => State::Committing { call },
                        CommitPoint::BeforeResponse => forward(call),
                    });
                }
                StateProj::Committing { call } => {
                    let reservation = this.reservation.as_mut().expect(COMPLETED);
                    if let Err(error) = ready!(reservation.poll_committed(cx)) {
                        let reservation = this.reservation.take();
                        return Poll::Ready(Ok(fail(this.layer, this.method, reservation, error)));
                    }
                    let call = call.take();
                    this.state.set(forward(call));
                }
                StateProj::Forwarding { future } => {
                    let Some(reservation) = this.reservation else {
                        let inner = |body| ResponseBody::uncounted(body::ResponseBody::inner(body));
                        return future.poll(cx).map_ok(|response| response.map(inner));
                    };
                    let Poll::Ready(response) = future.poll(cx) else {
                        reservation.commit();
                        return Poll::Pending;
                    };
                    let (head, body) = response?.into_parts();
                    reservation.settle(this.layer.policy.at_head(&head));
                    let expected = expected_length(this.method, &head);
                    let response = Some(InnerResponse { head, body, expected });
                    this.state.set(State::Holding { response });
                }
                StateProj::Holding { response } => {
                    let reservation = this.reservation.as_mut().expect(COMPLETED);
                    if let Err(error) = ready!(reservation.poll_committed(cx)) {
                        let reservation = this.reservation.take();
                        return Poll::Ready(Ok(fail(this.layer, this.method, reservation, error)));
                    }
                    let response = response.take().expect(COMPLETED);
                    let reservation = this.reservation.take().expect(COMPLETED);
                    let observer = SettleAtEnd { reservation, layer: this.layer.clone() };
                    return Poll::Ready(Ok(release(response, observer)));
                }
            }
        }
    }
}

fn forward<S, ReqBody, ResBody>(
    call: Option<Box<Call<S, ReqBody>>>,
) -> State<S, S::Future, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    let Call { mut inner, request } = *call.expect(COMPLETED);
    State::Forwarding { future: inner.call(request) }
}

/// Responds to a request whose reservation could not be made durable.
fn fail<B>(
    layer: &DailyQuotaLayer,
    method: &Method,
    reservation: Option<HeldReservation>,
    error: StoreError,
) -> Response<ResponseBody<B>> {
    if let Some(reservation) = reservation {
        reservation.discard();
    }
    layer.respond(method, &QuotaRejection::Store(error))
}

/// Returns the inner service's response, whose body settles the reservation.
fn release<B>(response: InnerResponse<B>, observer: SettleAtEnd) -> Response<ResponseBody<B>>
where
    B: Body,
    B::Data: From<Bytes>,
{
    let InnerResponse { mut head, body, expected } = response;
    observer.reservation.insert_headers(&mut head);
    let inner = ObservedBody::new(body::ResponseBody::inner(body), observer, expected);
    Response::from_parts(head, ResponseBody { inner })
}

opaque_body! {
    /// Response body of [`DailyQuota`](super::DailyQuota): the inner service's, at whose end the
    /// reservation is settled, or a rejection's.
    pub struct ResponseBody<B>(ObservedBody<body::ResponseBody<B>, SettleAtEnd>) where B::Data: From<Bytes>;
}

impl<B> ResponseBody<B> {
    pub(super) fn respond(method: &Method, response: Response<Bytes>) -> Response<Self> {
        body::ResponseBody::respond(method, response).map(Self::uncounted)
    }

    fn uncounted(body: body::ResponseBody<B>) -> Self {
        Self { inner: ObservedBody::unobserved(body) }
    }
}

/// Returns an empty body.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { inner: ObservedBody::default() }
    }
}
