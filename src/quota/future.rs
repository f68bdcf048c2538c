use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    ChargePolicy, CommitPoint, QuotaRejection, UnitObserver,
    shared::{PendingReservation, QuotaBody, Shared},
    unit::Unit,
};
use crate::{
    body::{ObservedBody, ResponseBody, expected_length},
    error::{Reject, StoreError},
};

pin_project! {
    /// Response future of [`DailyQuota`](super::DailyQuota).
    pub struct ResponseFuture<S, Q, P, F, R, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
        ResBody: Body,
    {
        shared: Arc<Shared<Q, P, F, R>>,
        method: Method,
        unit: Option<Unit>,
        #[pin]
        state: State<S, S::Future, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Fut, ReqBody, ResBody> {
        // There is no unit.
        Refused { rejection: QuotaRejection },
        // Waits for the store to take a unit.
        Reserving { reservation: PendingReservation, call: Option<Box<Call<S, ReqBody>>> },
        // Waits for the unit to be durable before the inner service is called.
        Committing { call: Option<Box<Call<S, ReqBody>>> },
        // The inner service works; the commit goes on beside it.
        Forwarding { #[pin] future: Fut },
        // The head is there and held until the unit is durable.
        Holding { answer: Option<Answer<ResBody>> },
    }
}

/// The readied inner service and the request that it will get. Boxed, as it is rarely kept and larger
/// than all else.
struct Call<S, ReqBody> {
    inner: S,
    request: Request<ReqBody>,
}

/// The inner service's answer.
struct Answer<B> {
    head: Parts,
    body: B,
    expected: Option<u64>,
}

impl<S, Q, P, F, R, ReqBody, ResBody> ResponseFuture<S, Q, P, F, R, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: Body,
{
    pub(super) fn refused(
        shared: Arc<Shared<Q, P, F, R>>,
        method: Method,
        rejection: QuotaRejection,
    ) -> Self {
        Self { shared, method, unit: None, state: State::Refused { rejection } }
    }

    pub(super) fn reserving(
        shared: Arc<Shared<Q, P, F, R>>,
        reservation: PendingReservation,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let call = Some(Box::new(Call { inner, request }));
        Self { shared, method, unit: None, state: State::Reserving { reservation, call } }
    }

    pub(super) fn committing(
        shared: Arc<Shared<Q, P, F, R>>,
        unit: Unit,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let call = Some(Box::new(Call { inner, request }));
        Self { shared, method, unit: Some(unit), state: State::Committing { call } }
    }

    pub(super) fn forwarding(
        shared: Arc<Shared<Q, P, F, R>>,
        method: Method,
        unit: Unit,
        future: S::Future,
    ) -> Self {
        Self { shared, method, unit: Some(unit), state: State::Forwarding { future } }
    }
}

const OVER: &str = "`ResponseFuture` polled after it was ready";

impl<S, Q, P, F, R, ReqBody, ResBody> Future for ResponseFuture<S, Q, P, F, R, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    P: ChargePolicy + Clone,
    R: Reject,
    ResBody: Body,
    ResBody::Data: From<bytes::Bytes>,
{
    type Output = Result<Response<QuotaBody<ResBody, P>>, S::Error>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Refused { rejection } => {
                    return Poll::Ready(Ok(this.shared.refuse(this.method, rejection)));
                }
                StateProj::Reserving { reservation, call } => {
                    match ready!(reservation.poll(cx)) {
                        Ok(unit) => *this.unit = Some(unit),
                        Err(rejection) => {
                            return Poll::Ready(Ok(this.shared.refuse(this.method, &rejection)));
                        }
                    }
                    let call = call.take();
                    this.state.set(match this.shared.options.commit {
                        CommitPoint::BeforeForward => State::Committing { call },
                        CommitPoint::BeforeResponse => forward(call),
                    });
                }
                StateProj::Committing { call } => {
                    let unit = this.unit.as_mut().expect(OVER);
                    if let Err(error) = ready!(unit.poll_committed(cx)) {
                        return Poll::Ready(Ok(fail(this.shared, this.method, this.unit, error)));
                    }
                    let call = call.take();
                    this.state.set(forward(call));
                }
                StateProj::Forwarding { future } => {
                    let unit = this.unit.as_mut().expect(OVER);
                    let Poll::Ready(response) = future.poll(cx) else {
                        unit.commit();
                        return Poll::Pending;
                    };
                    let (head, body) = response?.into_parts();
                    unit.apply(this.shared.policy.at_head(&head));
                    let expected = expected_length(this.method, &head);
                    let answer = Some(Answer { head, body, expected });
                    this.state.set(State::Holding { answer });
                }
                StateProj::Holding { answer } => {
                    let unit = this.unit.as_mut().expect(OVER);
                    if let Err(error) = ready!(unit.poll_committed(cx)) {
                        return Poll::Ready(Ok(fail(this.shared, this.method, this.unit, error)));
                    }
                    let answer = answer.take().expect(OVER);
                    let unit = this.unit.take().expect(OVER);
                    let policy = this.shared.policy.clone();
                    return Poll::Ready(Ok(hand_on(answer, unit, policy)));
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
    ResBody: Body,
{
    let Call { mut inner, request } = *call.expect(OVER);
    State::Forwarding { future: inner.call(request) }
}

/// What could not be counted is not answered.
fn fail<Q, P, F, R, B>(
    shared: &Shared<Q, P, F, R>,
    method: &Method,
    unit: &mut Option<Unit>,
    error: StoreError,
) -> Response<QuotaBody<B, P>>
where
    P: ChargePolicy,
    R: Reject,
    B: Body,
    B::Data: From<bytes::Bytes>,
{
    if let Some(unit) = unit.take() {
        unit.forget();
    }
    shared.refuse(method, &QuotaRejection::Store(error))
}

fn hand_on<B, P>(answer: Answer<B>, unit: Unit, policy: P) -> Response<QuotaBody<B, P>>
where
    P: ChargePolicy,
    B: Body,
    B::Data: From<bytes::Bytes>,
{
    let Answer { mut head, body, expected } = answer;
    unit.insert_headers(&mut head);
    let observer = UnitObserver::new(unit, policy);
    let body = ObservedBody::new(ResponseBody::passed(body), observer, expected);
    Response::from_parts(head, body)
}
