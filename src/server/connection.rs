//! Serves one connection of a client.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower_service::Service;

use super::{
    BoxError, Limits, PeerAddr, RequestBody, Shutdown,
    activity::{Activity, CloseReason},
    body::{UnreadBody, share_body},
    connection_limit::ConnectionPermit,
    http1::{Protocol, RejectedHead, ValidatedIo},
    limits::MAX_HEAD_BYTES,
    socket::ClientSocket,
    streams::StreamExecutor,
    timeout::{DeadlineTimer, MinRateTimeout},
};
use crate::metrics::GaugeGuard;

/// Idle timeout of a connection during a graceful shutdown.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle timeout of an HTTP/2 connection that is being evicted.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) peer: PeerAddr,
    pub(super) permit: ConnectionPermit,
    pub(super) limits: Limits,
    pub(super) shutdown: Shutdown,
    pub(super) passes_rejected: bool,
    pub(super) _open: GaugeGuard,
}

/// How hyper serves connections.
#[derive(Clone)]
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<StreamExecutor>,
}

impl Protocols {
    pub(super) fn new(streams: StreamExecutor) -> Self {
        let mut http1 = http1::Builder::new();
        // `ValidatedIo` has a timeout that does not run between requests, and limits the number of headers.
        http1.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        let mut http2 = http2::Builder::new(streams);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_concurrent_streams(256)
            .max_local_error_reset_streams(64)
            .max_pending_accept_reset_streams(20)
            // Windows bound the memory for bodies that are not read yet, the buffer that for slow readers.
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_send_buf_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        Self { http1, http2 }
    }
}

impl Connection {
    /// Serves the connection until it ends or a timeout expires.
    pub(super) async fn serve<S, B>(self, protocols: Protocols, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self { socket, peer, permit, limits, shutdown, passes_rejected, _open } = self;
        let activity = Activity::new(permit);
        let socket = ClientSocket::new(nodelay(socket), MinRateTimeout::new(limits.client_timeout));
        let reset_on_drop = socket.reset_on_drop();
        let mut io = ValidatedIo::new(socket, activity.clone(), limits.idle_timeout);
        let mut driver = Driver::new(activity.clone(), &limits, &shutdown);
        let protocol = match driver.wait_for(|cx| io.poll_protocol(cx)).await {
            Some(Ok(protocol)) => protocol,
            Some(Err(error)) => {
                tracing::debug!(%error, "connection failed before its first request: closing it");
                return;
            }
            None => return,
        };
        let rejection = io.rejection();
        let calls = Arc::new(Calls {
            services: Mutex::new(Services { original: service, unused: None }),
            client_timeout: limits.client_timeout,
            shutdown,
            passes_rejected,
        });
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let rejected = rejection.get().or_else(|| RejectedHead::of_http2(&request));
            if request.version() < Version::HTTP_11 {
                reset_on_drop.enable();
            }
            let in_flight = activity.begin_request();
            let activity = activity.clone();
            // Boxed, as hyper keeps the memory of this future for as long as the connection.
            let response = Box::pin(calls.clone().respond(request, rejected));
            async move {
                let response = response.await?;
                Ok::<_, S::Error>(response.map(|body| activity.body(body, in_flight)))
            }
        });
        let io = TokioIo::new(io);
        let ended = match protocol {
            Protocol::Http1 => {
                let connection = protocols.http1.serve_connection(io, service);
                driver.drive(connection, http1::Connection::graceful_shutdown).await
            }
            Protocol::Http2 => {
                let connection = protocols.http2.serve_connection(io, service);
                // Boxed, as it is larger than one of HTTP/1.
                Box::pin(driver.drive(connection, http2::Connection::graceful_shutdown)).await
            }
        };
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, "connection failed: closing it");
        }
    }
}

/// Ends a connection where its client or the server's shutdown requires it, beside its own end.
struct Driver {
    activity: Activity,
    client_timeout: Duration,
    idle_timeout: Duration,
    shutdown: Shutdown,
    /// Wakes the task once the server closes.
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    is_registered: bool,
    /// Whether the server closes, whether the connection gives way to another one, and whether it is shutting down.
    is_closing: bool,
    is_evicted: bool,
    is_ending: bool,
    /// When one of these has changed last, from which on it may be idle.
    since: Instant,
    checked_at: Instant,
    timer: DeadlineTimer,
}

pin_project! {
    /// Drives a connection to its end. The output is `None` if it was cut off.
    // Not an async block, which would have room for the connection more than once.
    struct Driven<C> {
        #[pin]
        connection: C,
        shut_down: fn(Pin<&mut C>),
        driver: Driver,
    }
}

impl<C: Future> Future for Driven<C> {
    type Output = Option<C::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            match ready!(this.driver.poll_step(cx)) {
                Step::ShutDown => {
                    this.driver.is_ending = true;
                    (this.shut_down)(this.connection.as_mut());
                }
                Step::End => return Poll::Ready(None),
            }
        }
    }
}

/// What a connection has to do next.
enum Step {
    /// End once the requests in flight have ended.
    ShutDown,
    End,
}

impl Driver {
    fn new(activity: Activity, limits: &Limits, shutdown: &Shutdown) -> Self {
        let now = Instant::now();
        Self {
            activity,
            client_timeout: limits.client_timeout,
            idle_timeout: limits.idle_timeout,
            closed: Box::pin(shutdown.closed()),
            shutdown: shutdown.clone(),
            is_registered: false,
            is_closing: false,
            is_evicted: false,
            is_ending: false,
            since: now,
            checked_at: now,
            timer: DeadlineTimer::default(),
        }
    }

    /// Waits for what comes before the first request. Returns `None` if the connection ends before.
    async fn wait_for<T>(
        &mut self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.poll_step(cx).map(|_| None)
        })
        .await
    }

    fn drive<C: Future>(self, connection: C, shut_down: fn(Pin<&mut C>)) -> Driven<C> {
        Driven { connection, shut_down, driver: self }
    }

    /// Must be polled after the connection, as what it waits for may change with that.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // A task has one waker. Whether it was woken for these is read each time.
        if !self.is_registered {
            self.is_registered = true;
            let _ = self.closed.as_mut().poll(cx);
            self.activity.set_waker(cx.waker());
        }
        if !self.is_closing && self.shutdown.is_closed() {
            self.is_closing = true;
            self.limit_idle_time(DRAIN_IDLE_TIMEOUT);
        }
        // A client that has just connected, or is sending a head, gets its response.
        if self.is_closing && !self.is_ending && !self.activity.is_head_pending() {
            return Poll::Ready(Step::ShutDown);
        }
        // Over HTTP/1 `ValidatedIo` closes it, as it sees whether a request comes after all.
        if !self.is_evicted && self.activity.is_http2() && self.activity.is_evicted() {
            self.is_evicted = true;
            self.limit_idle_time(EVICTION_TIMEOUT);
            return Poll::Ready(Step::ShutDown);
        }
        loop {
            let interval = self.client_timeout.min(self.idle_timeout) / 4;
            ready!(self.timer.poll(self.checked_at + interval, cx));
            self.checked_at = Instant::now();
            let Some(reason) =
                self.activity.timed_out(self.client_timeout, self.idle_timeout, self.since)
            else {
                continue;
            };
            if reason == CloseReason::Stalled || self.is_ending || self.is_closing {
                tracing::debug!(?reason, "connection timed out: closing it");
                return Poll::Ready(Step::End);
            }
            if self.activity.is_http2() {
                self.limit_idle_time(DRAIN_IDLE_TIMEOUT);
                return Poll::Ready(Step::ShutDown);
            }
        }
    }

    fn limit_idle_time(&mut self, limit: Duration) {
        self.idle_timeout = self.idle_timeout.min(limit);
        self.since = Instant::now();
        self.checked_at = self.since;
    }
}

/// Calls the service for the requests of a connection.
struct Calls<S> {
    services: Mutex<Services<S>>,
    client_timeout: Duration,
    shutdown: Shutdown,
    passes_rejected: bool,
}

/// A service that is cloned where several requests are in flight only.
struct Services<S> {
    original: S,
    unused: Option<S>,
}

impl<S> Calls<S> {
    /// Returns the response to one request: without a body where HTTP allows none, and with
    /// `Connection: close` if the request's body cannot be read to its end in time.
    async fn respond<B>(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        rejected: Option<RejectedHead>,
    ) -> Result<Response<Option<B>>, S::Error>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
        B: Body,
    {
        if let Some(rejected) = rejected {
            if !self.passes_rejected {
                let mut response = Response::new(None);
                *response.status_mut() = rejected.status();
                return Ok(response);
            }
            request.extensions_mut().insert(rejected);
        }
        let (method, version) = (request.method().clone(), request.version());
        let keeps_alive = keeps_alive(version, request.headers());
        let (request, unread) = share_body(request, self.client_timeout);
        let mut response = self.call(request).await?;
        let keeps_alive = keeps_alive && !says_close(response.headers());
        let is_reusable = match unread {
            Some(unread) if keeps_alive => finish(unread, version, response.status()).await,
            _ => true,
        };
        // While draining, so that clients with persistent connections leave before the listener closes.
        if keeps_alive && version < Version::HTTP_2 && (!is_reusable || self.shutdown.is_draining())
        {
            // Otherwise hyper adds `keep-alive` to a response for HTTP/1.0.
            *response.version_mut() = version;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(fit_body(&method, response))
    }

    async fn call<R>(&self, request: R) -> Result<S::Response, S::Error>
    where
        S: Service<R> + Clone,
    {
        let mut service = {
            let mut services = self.services();
            services.unused.take().unwrap_or_else(|| services.original.clone())
        };
        poll_fn(|cx| service.poll_ready(cx)).await?;
        let response = service.call(request);
        self.services().unused = Some(service);
        response.await
    }

    fn services(&self) -> MutexGuard<'_, Services<S>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nodelay(socket: TcpStream) -> TcpStream {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed: small writes may be delayed");
    }
    socket
}

/// Reads the rest of the request's body, and returns `false` if that would take too long.
async fn finish(unread: UnreadBody, version: Version, status: StatusCode) -> bool {
    // Over HTTP/2 a response may stream while the request does.
    let streams_both_ways =
        version == Version::HTTP_2 && status.is_success() && unread.has_reader();
    streams_both_ways || unread.finish().await
}

/// Returns whether the client wants the connection to persist (RFC 9112, section 9.3).
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    match version {
        Version::HTTP_2 => true,
        Version::HTTP_11 => !says_close(headers),
        _ => connection_says(headers, "keep-alive"),
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    connection_says(headers, "close")
}

fn connection_says(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    let mut options = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    options.any(|other| other.trim().eq_ignore_ascii_case(option))
}

/// Removes the body of a response that must not have one (RFC 9110, section 6.4.1), but keeps its length.
/// hyper does that for HTTP/1 but not for HTTP/2.
fn fit_body<B: Body>(method: &Method, response: Response<B>) -> Response<Option<B>> {
    let is_head = *method == Method::HEAD;
    let status = response.status();
    if !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return response.map(Some);
    }
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| None);
    // An empty body may be that of the upstream's response to HEAD, whose length is unknown.
    if is_head && let Some(length @ 1..) = length {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response
}
