use std::{
    fmt,
    future::Future,
    mem,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    FairShareLayer,
    places::{PlaceGuard, Places, Waiter},
};
use crate::body::{self, ObservedBody, expected_length};

/// Middleware that limits how many requests are with its inner service at once, and lets the others wait, in
/// turn by key.
///
/// See [`FairShareLayer`] for its rules.
#[derive(Clone)]
pub struct FairShare<S> {
    pub(super) inner: S,
    pub(super) layer: Arc<FairShareLayer>,
}

impl<S> FairShare<S> {
    /// Creates the middleware around `inner`, with this number of places.
    pub fn new(inner: S, max: impl Into<Option<NonZeroU32>>) -> Self {
        FairShareLayer::new(max).layer(inner)
    }

    inner_accessors!(S);

    fn forward<ReqBody>(
        &mut self,
        request: Request<ReqBody>,
        place: Option<PlaceGuard>,
    ) -> FairShareFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        let method = request.method().clone();
        FairShareFuture { method, state: State::forwarding(&mut self.inner, request, place) }
    }

    fn wait<ReqBody>(
        &mut self,
        request: Request<ReqBody>,
        places: &Arc<Places>,
    ) -> FairShareFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>> + Clone,
    {
        let layer = self.layer.clone();
        let (head, body) = request.into_parts();
        let (method, subject) = (head.method.clone(), (layer.subject)(&head));
        let (waiter, timer) = (places.wait(subject), sleep(layer.max_wait));
        // The clone is not ready.
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let call = Box::new(Call { layer, inner, request: Request::from_parts(head, body) });
        FairShareFuture { method, state: State::Waiting { waiter, timer, call: Some(call) } }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for FairShare<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<FairShareBody<ResBody>>;
    type Error = S::Error;
    type Future = FairShareFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let Some(places) = self.layer.places.clone() else { return self.forward(request, None) };
        match places.take() {
            Some(place) => self.forward(request, Some(place)),
            None => self.wait(request, &places),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for FairShare<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairShare").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`FairShare`].
    pub struct FairShareFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        method: Method,
        #[pin]
        state: State<S, ReqBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        // All places are taken.
        Waiting { waiter: Waiter, #[pin] timer: Sleep, call: Option<Box<Call<S, ReqBody>>> },
        // The inner service was called. Its future is dropped before the place is given back.
        Forwarding { #[pin] future: S::Future, place: Option<PlaceGuard> },
        Completed,
    }
}

/// The readied inner service and its request. Boxed, as it is rarely kept and larger than all else.
struct Call<S, ReqBody> {
    layer: Arc<FairShareLayer>,
    inner: S,
    request: Request<ReqBody>,
}

impl<S, ReqBody> State<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn forwarding(inner: &mut S, request: Request<ReqBody>, place: Option<PlaceGuard>) -> Self {
        Self::Forwarding { future: inner.call(request), place }
    }
}

const COMPLETED: &str = "`FairShareFuture` polled after completion";

impl<S, ReqBody, ResBody> Future for FairShareFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Output = Result<Response<FairShareBody<ResBody>>, S::Error>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Waiting { waiter, timer, call } => {
                    let place = match waiter.poll(cx) {
                        Poll::Ready(place) => Some(place),
                        Poll::Pending => {
                            ready!(timer.poll(cx));
                            None
                        }
                    };
                    let Call { layer, mut inner, request } = *call.take().expect(COMPLETED);
                    if place.is_some() {
                        this.state.set(State::forwarding(&mut inner, request, place));
                        continue;
                    }
                    // A place that was granted meanwhile is given back.
                    this.state.set(State::Completed);
                    let response = layer.render(&request);
                    let response = body::ResponseBody::respond(this.method, response);
                    return Poll::Ready(Ok(response.map(FairShareBody::without_place)));
                }
                StateProj::Forwarding { future, place } => {
                    let result = ready!(future.poll(cx));
                    let place = place.take();
                    this.state.set(State::Completed);
                    return Poll::Ready(result.map(|response| {
                        let (head, body) = response.into_parts();
                        let body = body::ResponseBody::inner(body);
                        let body = match place {
                            Some(place) => {
                                let expected = expected_length(this.method, &head);
                                FairShareBody { inner: ObservedBody::new(body, place, expected) }
                            }
                            None => FairShareBody::without_place(body),
                        };
                        Response::from_parts(head, body)
                    }));
                }
                StateProj::Completed => panic!("{COMPLETED}"),
            }
        }
    }
}

impl<S, ReqBody> fmt::Debug for FairShareFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FairShareFuture")
    }
}

opaque_body! {
    /// Response body of [`FairShare`]: the inner service's, at whose end the place is given back, or a
    /// rejection's.
    pub struct FairShareBody<B>(ObservedBody<body::ResponseBody<B>, PlaceGuard>) where B::Data: From<Bytes>;
}

impl<B> FairShareBody<B> {
    fn without_place(body: body::ResponseBody<B>) -> Self {
        Self { inner: ObservedBody::unobserved(body) }
    }
}

/// Returns an empty body.
impl<B> Default for FairShareBody<B> {
    fn default() -> Self {
        Self::without_place(body::ResponseBody::default())
    }
}
