use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    ChargePolicy, CommitPoint, QuotaRejection, UnitObserver,
    shared::{QuotaBody, Reserving, Shared},
    unit::Unit,
};
use crate::{
    body::{ObservedBody, ResponseBody, expected_length},
    error::{Reject, StoreError},
};

pin_project! {
    /// Response future of [`DailyQuota`](super::DailyQuota).
    pub struct ResponseFuture<S, Q, P, F, R, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        shared: Arc<Shared<Q, P, F, R>>,
        method: Method,
        unit: Option<Unit>,
        committed: bool,
        #[pin]
        state: State<S, S::Future, S::Response, ReqBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Fut, Res, ReqBody> {
        // Waits for the store to take a unit.
        Reserving { reserving: Reserving, call: Option<Call<S, ReqBody>> },
        // Waits for the unit to be durable before the inner service is called.
        Committing { call: Option<Call<S, ReqBody>> },
        // The inner service works; the commit goes on beside it.
        Forwarding { #[pin] future: Fut },
        // The head is there and held until the unit is durable.
        Holding { response: Option<Res> },
    }
}

/// The readied inner service and the request that it will get.
struct Call<S, ReqBody> {
    inner: S,
    request: Request<ReqBody>,
}

impl<S, Q, P, F, R, ReqBody> ResponseFuture<S, Q, P, F, R, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn new(
        shared: Arc<Shared<Q, P, F, R>>,
        reserving: Reserving,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let call = Some(Call { inner, request });
        let state = State::Reserving { reserving, call };
        Self { shared, method, unit: None, committed: false, state }
    }
}

const OVER: &str = "`ResponseFuture` polled after it was ready";

/// Whether the unit is durable by now; asked again only until it is.
fn poll_committed(
    unit: &mut Option<Unit>,
    committed: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), StoreError>> {
    if !*committed {
        ready!(unit.as_mut().expect(OVER).poll_committed(cx))?;
        *committed = true;
    }
    Poll::Ready(Ok(()))
}

impl<S, Q, P, F, R, ReqBody, ResBody> Future for ResponseFuture<S, Q, P, F, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    P: ChargePolicy,
    R: Reject,
    ResBody: http_body::Body,
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
                StateProj::Reserving { reserving, call } => {
                    let reserved = match reserving {
                        Ok(reservation) => ready!(reservation.poll(cx)),
                        Err(rejection) => Err(rejection.clone()),
                    };
                    match reserved {
                        Ok(unit) => *this.unit = Some(unit),
                        Err(rejection) => return Poll::Ready(Ok(this.shared.refuse(&rejection))),
                    }
                    let call = call.take();
                    this.state.set(match this.shared.options.commit {
                        CommitPoint::BeforeForward => State::Committing { call },
                        CommitPoint::BeforeAnswer => forward(call),
                    });
                }
                StateProj::Committing { call } => {
                    match ready!(poll_committed(this.unit, this.committed, cx)) {
                        Ok(()) => {
                            let call = call.take();
                            this.state.set(forward(call));
                        }
                        Err(error) => return Poll::Ready(Ok(fail(this.shared, this.unit, error))),
                    }
                }
                StateProj::Forwarding { future } => {
                    if let Poll::Ready(Err(error)) = poll_committed(this.unit, this.committed, cx) {
                        return Poll::Ready(Ok(fail(this.shared, this.unit, error)));
                    }
                    let (head, body) = ready!(future.poll(cx))?.into_parts();
                    let settlement = this.shared.policy.at_head(&head);
                    this.unit.as_mut().expect(OVER).settle(settlement);
                    // A refund is something more to wait for.
                    *this.committed = false;
                    let response = Some(Response::from_parts(head, body));
                    this.state.set(State::Holding { response });
                }
                StateProj::Holding { response } => {
                    if let Err(error) = ready!(poll_committed(this.unit, this.committed, cx)) {
                        return Poll::Ready(Ok(fail(this.shared, this.unit, error)));
                    }
                    let response = response.take().expect(OVER);
                    let unit = this.unit.take().expect(OVER);
                    let policy = this.shared.policy.clone();
                    return Poll::Ready(Ok(hand_on(response, unit, policy, this.method)));
                }
            }
        }
    }
}

fn forward<S, Res, ReqBody>(call: Option<Call<S, ReqBody>>) -> State<S, S::Future, Res, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    let Call { mut inner, request } = call.expect(OVER);
    State::Forwarding { future: inner.call(request) }
}

/// What could not be counted is not answered.
fn fail<Q, P, F, R, B>(
    shared: &Shared<Q, P, F, R>,
    unit: &mut Option<Unit>,
    error: StoreError,
) -> Response<QuotaBody<B, P>>
where
    P: ChargePolicy,
    R: Reject,
    B: http_body::Body,
    B::Data: From<bytes::Bytes>,
{
    if let Some(unit) = unit.take() {
        unit.forget();
    }
    shared.refuse(&QuotaRejection::Store(error))
}

fn hand_on<B, P>(
    response: Response<B>,
    unit: Unit,
    policy: Arc<P>,
    method: &Method,
) -> Response<QuotaBody<B, P>>
where
    P: ChargePolicy,
    B: http_body::Body,
    B::Data: From<bytes::Bytes>,
{
    let (mut head, body) = response.into_parts();
    unit.insert_headers(&mut head);
    let expected = expected_length(method, &head);
    let observer = UnitObserver { unit, policy };
    let body = ObservedBody::new(ResponseBody::passed(body), observer, expected);
    Response::from_parts(head, body)
}
