//! Starts without the store: while its disk is full, another process holds its write lock or counts in it, or
//! its server does not respond, requests are rejected and opening it is retried.

use std::{
    convert::Infallible,
    future::{self, Ready, ready},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response};
use tower::{BoxError, Service};
use tower_quota::{
    error::{Rejection, StoreError, StoreErrorKind},
    server::{RejectedHead, RequestBody, Shutdown},
    store::sqlite::OpenErrorKind,
};

use crate::{
    backup::{cannot_open, explained},
    ops, rejections,
    route::Route,
    router::{self, GatewayBody},
    settings::BadSetting,
    store::{SharedStore, StoreOptions},
    systemd::ServiceManager,
};

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A store that is open, or that will be opened when its temporary error is over.
pub(crate) struct Opening {
    options: StoreOptions,
    /// The store, or why it is not open yet.
    opened: Result<SharedStore, String>,
}

impl Opening {
    /// Tries to open the store once.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be opened and retrying would not help.
    pub(crate) async fn start(options: StoreOptions) -> Result<Self, BadSetting> {
        let opened = match options.clone().open().await {
            Ok(store) => Ok(store),
            Err(error) if error.kind() == OpenErrorKind::Temporary => {
                let error = explained(&error);
                tracing::error!(%error, "opening the store failed: rejecting requests until it opens");
                Err(error)
            }
            Err(error) => return Err(cannot_open(error, &options)),
        };
        Ok(Self { options, opened })
    }

    /// Opens the store, sets the service that `make` returns for it, and never completes. The service
    /// manager is notified once requests are served; until then its status says what is awaited.
    ///
    /// # Errors
    ///
    /// Fails as [`start`](Self::start) does, or if `make` fails.
    pub(crate) async fn provide<S>(
        self,
        late: &LateService<S>,
        store: &OnceLock<SharedStore>,
        make: impl FnOnce(SharedStore) -> Result<S, BoxError>,
        manager: &ServiceManager,
    ) -> Result<Infallible, BoxError> {
        let opened = match self.opened {
            Ok(opened) => opened,
            Err(error) => {
                manager.waiting(&format!("waiting for the database: {error}")).await;
                retry(&self.options).await?
            }
        };
        let _ = late.set.set(make(store.get_or_init(|| opened).clone())?);
        manager.ready().await;
        future::pending().await
    }
}

async fn retry(options: &StoreOptions) -> Result<SharedStore, BoxError> {
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        match options.clone().open().await {
            Ok(store) => {
                tracing::info!("store opened: serving requests");
                return Ok(store);
            }
            Err(error) if error.kind() == OpenErrorKind::Temporary => {
                let error = explained(&error);
                tracing::debug!(%error, "opening the store failed again: retrying");
            }
            Err(error) => return Err(cannot_open(error, options).into()),
        }
    }
}

/// A service that is set once the store is open. Until then it rejects requests.
pub(crate) struct LateService<S> {
    set: Arc<OnceLock<S>>,
    /// This clone's own clone of what is set.
    service: Option<S>,
    shutdown: Shutdown,
}

impl<S> LateService<S> {
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self { set: Arc::default(), service: None, shutdown }
    }

    fn reject<B>(&self, request: &Request<B>) -> Response<Bytes> {
        if let Some(bad) = request.extensions().get::<RejectedHead>() {
            return rejections::bad_head(*bad);
        }
        match Route::of(request.uri().path()) {
            Some(Route::Health) => ops::health(true),
            Some(Route::Ready) if self.shutdown.is_draining() => ops::not_ready("shutting down"),
            Some(Route::Ready) => ops::not_ready("the store cannot be opened yet"),
            _ => {
                let error = StoreError::new(StoreErrorKind::Unavailable);
                rejections::render(Rejection::from(&error))
            }
        }
    }
}

impl<S, B> Service<Request<RequestBody>> for LateService<S>
where
    S: Service<Request<RequestBody>, Response = Response<GatewayBody<B>>, Error = Infallible>
        + Clone,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<S::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.service.is_none() {
            self.service = self.set.get().cloned();
        }
        match &mut self.service {
            Some(service) => service.poll_ready(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        match &mut self.service {
            Some(service) => Either::Left(service.call(request)),
            None => Either::Right(ready(Ok(router::own(self.reject(&request))))),
        }
    }
}

impl<S: Clone> Clone for LateService<S> {
    fn clone(&self) -> Self {
        let Self { set, service, shutdown } = self;
        Self { set: set.clone(), service: service.clone(), shutdown: shutdown.clone() }
    }
}
