use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Extensions, Method, Request, Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    CommitPoint, DailyQuotaLayer, InnerError, QuotaRejection, ResponseBody, ResponseEnd, Subject,
    reservation::{HeldReservation, Need, PendingReservation, Reserving, SettleAtEnd},
};
use crate::{
    body::{BodyEnd, EndDetector, expected_length},
    error::{RejectedRequest, StoreError},
    store::StoreFuture,
};

pin_project! {
    /// Response future of [`DailyQuota`](super::DailyQuota).
    pub struct ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
    {
        layer: Arc<DailyQuotaLayer>,
        method: Method,
        reservation: Option<Box<HeldReservation>>,
        #[pin]
        state: State<S, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
    {
        // Nothing is reserved.
        Rejected { response: Option<Response<Bytes>> },
        // The subject is looked up.
        Identifying {
            subject: StoreFuture<Subject>,
            need: Option<Need>,
            call: Option<Box<Call<S, ReqBody>>>,
        },
        // The store decides on the reservation.
        Reserving { pending: Box<PendingReservation>, call: Option<Box<Call<S, ReqBody>>> },
        // The reservation becomes durable before the inner service is called.
        Committing { call: Option<Box<Call<S, ReqBody>>> },
        // The inner service was called; the reservation, unless the request is exempt, becomes durable
        // meanwhile.
        Forwarding { #[pin] future: S::Future },
        // The response waits until the reservation, or its refund, is durable.
        Holding { response: Option<InnerResponse<ResBody>> },
        // The inner service has failed: its error waits for the refund.
        Failing { error: Option<S::Error> },
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
    detector: EndDetector,
}

impl<B: Body> InnerResponse<B> {
    /// Waits until the reservation, or its refund, is durable. Ends it if the response has no body.
    fn poll_durable(
        &self,
        reservation: &mut HeldReservation,
        layer: &DailyQuotaLayer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StoreError>> {
        ready!(reservation.poll_settled(cx));
        if self.detector.is_complete(&self.body) {
            reservation.end(&*layer.policy, &ResponseEnd::new(BodyEnd::Complete));
            ready!(reservation.poll_settled(cx));
        }
        if layer.is_shadow { Poll::Ready(Ok(())) } else { reservation.poll_committed(cx) }
    }
}

impl<S, ReqBody, ResBody> ResponseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn rejected(
        layer: Arc<DailyQuotaLayer>,
        request: &Request<ReqBody>,
        rejection: &QuotaRejection,
    ) -> Self {
        let (method, state) =
            (request.method().clone(), State::rejected(&layer, request, rejection));
        Self { layer, method, reservation: None, state }
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
        pending: Box<PendingReservation>,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let method = request.method().clone();
        let call = Some(Box::new(Call { inner, request }));
        Self { layer, method, reservation: None, state: State::Reserving { pending, call } }
    }

    pub(super) fn committing(
        layer: Arc<DailyQuotaLayer>,
        reservation: Box<HeldReservation>,
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
        reservation: Option<Box<HeldReservation>>,
        future: S::Future,
    ) -> Self {
        Self { layer, method, reservation, state: State::Forwarding { future } }
    }
}

impl<S, ReqBody, ResBody> State<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    fn rejected<'a>(
        layer: &DailyQuotaLayer,
        request: impl Into<RejectedRequest<'a>>,
        rejection: &QuotaRejection,
    ) -> Self {
        Self::Rejected { response: Some(layer.render(rejection, request)) }
    }

    /// Rejects a request whose reservation could not be made durable after it was forwarded.
    fn discarded(
        layer: &DailyQuotaLayer,
        method: &Method,
        reservation: HeldReservation,
        error: StoreError,
    ) -> Self {
        let mut extensions = Extensions::new();
        extensions.insert(reservation.discard());
        let request = RejectedRequest::forwarded(method, &extensions);
        Self::rejected(layer, request, &QuotaRejection::Store(error))
    }
}

const COMPLETED: &str = "`ResponseFuture` polled after completion";

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: 'static,
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
                StateProj::Rejected { response } => {
                    let response = response.take().expect(COMPLETED);
                    return Poll::Ready(Ok(ResponseBody::respond(this.method, response)));
                }
                StateProj::Identifying { subject, need, call } => {
                    let subject = ready!(Pin::new(subject).poll(cx)).or_else(|error| {
                        let rejection = QuotaRejection::Store(error);
                        this.layer.unless_shadow(rejection).map(|()| Subject::Exempt)
                    });
                    let need = need.take().expect(COMPLETED);
                    let reserving = subject.and_then(|subject| this.layer.reserve(subject, need));
                    let call = call.take().expect(COMPLETED);
                    let state = match reserving {
                        Ok(Reserving::Pending(pending)) => {
                            State::Reserving { pending, call: Some(call) }
                        }
                        Ok(Reserving::Decided(reservation)) => {
                            *this.reservation = reservation;
                            call.admit(this.layer, this.reservation)
                        }
                        Err(rejection) => call.reject(this.layer, &rejection),
                    };
                    this.state.set(state);
                }
                StateProj::Reserving { pending, call } => {
                    let reservation = ready!(pending.poll(this.layer, cx));
                    let call = call.take().expect(COMPLETED);
                    let state = match reservation {
                        Ok(reservation) => {
                            *this.reservation = reservation;
                            call.admit(this.layer, this.reservation)
                        }
                        Err(rejection) => call.reject(this.layer, &rejection),
                    };
                    this.state.set(state);
                }
                StateProj::Committing { call } => {
                    let reservation = this.reservation.as_mut().expect(COMPLETED);
                    let committed = ready!(reservation.poll_committed(cx));
                    let call = call.take().expect(COMPLETED);
                    this.state.set(match committed {
                        Ok(()) => call.forward(),
                        Err(error) => {
                            this.reservation.take().expect(COMPLETED).discard();
                            call.reject(this.layer, &QuotaRejection::Store(error))
                        }
                    });
                }
                StateProj::Forwarding { future } => {
                    let Some(reservation) = this.reservation else {
                        let uncounted =
                            |response: Response<_>| response.map(ResponseBody::uncounted);
                        return future.poll(cx).map_ok(uncounted);
                    };
                    let Poll::Ready(result) = future.poll(cx) else {
                        reservation.commit();
                        return Poll::Pending;
                    };
                    let policy = &*this.layer.policy;
                    let response = match result {
                        Ok(response) => response,
                        Err(error) => {
                            reservation.settle(policy.at_error(InnerError::new(&error)));
                            this.state.set(State::Failing { error: Some(error) });
                            continue;
                        }
                    };
                    let (head, body) = response.into_parts();
                    reservation.settle(policy.at_head(&head));
                    let detector = EndDetector::new(expected_length(this.method, &head));
                    let response = InnerResponse { head, body, detector };
                    match response.poll_durable(reservation, this.layer, cx) {
                        Poll::Pending => {
                            this.state.set(State::Holding { response: Some(response) });
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(())) => {
                            let reservation = this.reservation.take().expect(COMPLETED);
                            return Poll::Ready(Ok(release(response, reservation, this.layer)));
                        }
                        Poll::Ready(Err(error)) => {
                            let reservation = this.reservation.take().expect(COMPLETED);
                            let rejected =
                                State::discarded(this.layer, this.method, *reservation, error);
                            this.state.set(rejected);
                        }
                    }
                }
                StateProj::Failing { error } => {
                    ready!(this.reservation.as_mut().expect(COMPLETED).poll_settled(cx));
                    *this.reservation = None;
                    return Poll::Ready(Err(error.take().expect(COMPLETED)));
                }
                StateProj::Holding { response } => {
                    let waiting = response.as_ref().expect(COMPLETED);
                    let reservation = this.reservation.as_mut().expect(COMPLETED);
                    let durable = ready!(waiting.poll_durable(reservation, this.layer, cx));
                    let reservation = this.reservation.take().expect(COMPLETED);
                    match durable {
                        Ok(()) => {
                            let response = response.take().expect(COMPLETED);
                            return Poll::Ready(Ok(release(response, reservation, this.layer)));
                        }
                        Err(error) => {
                            let rejected =
                                State::discarded(this.layer, this.method, *reservation, error);
                            this.state.set(rejected);
                        }
                    }
                }
            }
        }
    }
}

impl<S, ReqBody> Call<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    /// Calls the inner service, once the reservation is durable if the layer says so.
    fn admit<ResBody>(
        self: Box<Self>,
        layer: &DailyQuotaLayer,
        reservation: &Option<Box<HeldReservation>>,
    ) -> State<S, ReqBody, ResBody> {
        match layer.commit_point() {
            CommitPoint::BeforeForward if reservation.is_some() => {
                State::Committing { call: Some(self) }
            }
            _ => self.forward(),
        }
    }

    fn forward<ResBody>(mut self) -> State<S, ReqBody, ResBody> {
        State::Forwarding { future: self.inner.call(self.request) }
    }

    fn reject<ResBody>(
        self,
        layer: &DailyQuotaLayer,
        rejection: &QuotaRejection,
    ) -> State<S, ReqBody, ResBody> {
        State::rejected(layer, &self.request, rejection)
    }
}

/// Returns the inner service's response, whose body settles the reservation if that is still open.
fn release<B: Body>(
    response: InnerResponse<B>,
    reservation: Box<HeldReservation>,
    layer: &Arc<DailyQuotaLayer>,
) -> Response<ResponseBody<B>> {
    let InnerResponse { mut head, body, detector } = response;
    if let Some(headers) = layer.rate_headers() {
        reservation.insert_headers(headers, &mut head);
    }
    let body = if reservation.has_ended() {
        ResponseBody::uncounted(body)
    } else {
        let layer = layer.clone();
        ResponseBody::counted(body, SettleAtEnd { reservation, layer, detector })
    };
    Response::from_parts(head, body)
}
