use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use serde::{Deserialize, Serialize};
use tower_service::Service;

use super::{
    super::{
        answers::{Answers, Place},
        auth::ClientAddr,
        guard::guard,
        input::{Flag, FromHeaders, IdempotencyKeyHeader, from_json, read_body},
        keys::user_of,
        refusal::Refusal,
        view::{Instant, answer, json_response},
    },
    page::claim_page,
};
use crate::{
    body::ResponseBody,
    error::{ProblemJson, Reject, json},
    key::{ClaimToken, DailyLimit, KeyId, SecretKey},
    store::{
        Actor, AdminStore, Claim, ClaimOutcome, ClaimState, ClaimStore, IdempotencyKey, KeySummary,
    },
};

const LONGEST_BODY: usize = 4096;

/// The body of the claim service's answers.
pub type ClaimBody = ResponseBody<String>;

/// Gives keys to whoever has the links of their claims. See the [module](super) for its rules.
pub fn claim_service<S>(store: S) -> ClaimService<S> {
    let answers = Arc::default();
    ClaimService::from_shared(Shared { store, reject: ProblemJson, base_url: None, answers })
}

/// The service that [`claim_service`] makes.
pub struct ClaimService<S, R = ProblemJson> {
    shared: Arc<Shared<S, R>>,
}

#[derive(Clone)]
struct Shared<S, R> {
    store: S,
    reject: R,
    base_url: Option<Arc<str>>,
    answers: Arc<Answers>,
}

impl<S, R> ClaimService<S, R> {
    fn from_shared(shared: Shared<S, R>) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

impl<S: Clone, R: Clone> ClaimService<S, R> {
    /// Renders rejections in another form.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> ClaimService<S, R2> {
        let Shared { store, base_url, answers, .. } = Arc::unwrap_or_clone(self.shared);
        ClaimService::from_shared(Shared { store, reject, base_url, answers })
    }

    /// The base URL that clients are to be given with a key, for example
    /// `https://gateway.example/v1`. The page names `/v1` of its own server if this is not called.
    #[must_use]
    pub fn base_url(self, base_url: &str) -> Self {
        let base_url = Some(base_url.into());
        Self::from_shared(Shared { base_url, ..Arc::unwrap_or_clone(self.shared) })
    }
}

/// What is asked of a claim.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    token: String,
    open: Option<Flag>,
}

/// What a claim gives.
#[derive(Serialize)]
struct Offered {
    state: &'static str,
    label: String,
    daily_limit: DailyLimit,
    key_expires_at: Option<Instant>,
    expires_at: Instant,
}

/// A key that was claimed: the one answer that shows it whole.
#[derive(Serialize)]
struct Given<'a> {
    id: &'a KeyId,
    key: &'a str,
    label: &'a str,
    daily_limit: DailyLimit,
    expires_at: Option<Instant>,
    base_url: Option<&'a str>,
}

impl<S: ClaimStore + AdminStore, R> Shared<S, R> {
    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Bytes>, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match *request.method() {
            Method::GET | Method::HEAD => return Ok(claim_page()),
            Method::POST => {}
            _ => return Err(Refusal::wrong_method("GET, HEAD, POST")),
        }
        let ip = request.extensions().get().map(|ClientAddr(ip)| *ip);
        let IdempotencyKeyHeader(name) = IdempotencyKeyHeader::from_headers(request.headers())?;
        let wanted: Wanted = from_json(&read_body(request.into_body(), LONGEST_BODY).await?)?;
        let token = ClaimToken::parse(&wanted.token).map_err(|_| Refusal::unknown_claim())?;
        let is_open = wanted.open.is_some_and(|Flag(open)| open);
        let name = name.filter(|_| is_open);
        let place = match name.map(|name| IdempotencyKey::new(&wanted.token, &name, b"open")) {
            None => None,
            Some(once) => match self.answers.begin(once, self.store.now())? {
                Ok(body) => return Ok(json_response(StatusCode::OK, body)),
                Err(place) => Some(place),
            },
        };
        let claim = self.store.claim(token.clone()).await?;
        let claim = claim.ok_or_else(Refusal::unknown_claim)?;
        if claim.state != ClaimState::Open {
            return Err(Refusal::claim_is_over(claim.state));
        }
        if !is_open {
            return Ok(answer(StatusCode::OK, &Offered::from(claim)));
        }
        self.open(token, &claim, Actor { token_id: String::new(), ip }, place).await
    }

    async fn open(
        &self,
        token: ClaimToken,
        claim: &Claim,
        by: Actor,
        place: Option<Place>,
    ) -> Result<Response<Bytes>, Refusal> {
        let user = user_of(&claim.masked, &claim.label);
        let secret = SecretKey::generate(&user, self.store.today());
        let secret = secret.map_err(|_| Refusal::unknown_claim())?;
        let new = secret.clone();
        let base_url = self.base_url.clone();
        let given = move |key: &KeySummary| json(&Given::new(key, &secret, base_url.as_deref()));
        let told = given.clone();
        // Whoever has opened it may have lost the connection, and will ask again.
        let on_opened = move |key: &KeySummary| {
            if let Some(place) = place {
                place.keep(told(key));
            }
        };
        match self.store.open_claim(token, new, by, Box::new(on_opened)).await? {
            ClaimOutcome::Opened(key) => {
                tracing::info!(key_id = %key.record.id, "a key was claimed");
                Ok(json_response(StatusCode::OK, given(&key)))
            }
            ClaimOutcome::NotOpen(state) => Err(Refusal::claim_is_over(state)),
            ClaimOutcome::Unknown => Err(Refusal::unknown_claim()),
        }
    }
}

impl<'a> Given<'a> {
    fn new(key: &'a KeySummary, secret: &'a SecretKey, base_url: Option<&'a str>) -> Self {
        Self {
            id: &key.record.id,
            key: secret.expose(),
            label: &key.record.label,
            daily_limit: key.record.daily_limit,
            expires_at: key.record.expires_at.map(Instant),
            base_url,
        }
    }
}

impl From<Claim> for Offered {
    fn from(claim: Claim) -> Self {
        Self {
            state: "open",
            label: claim.label,
            daily_limit: claim.daily_limit,
            key_expires_at: claim.key_expires_at.map(Instant),
            expires_at: Instant(claim.expires_at),
        }
    }
}

/// Response future of [`ClaimService`].
pub struct ClaimFuture(Pin<Box<dyn Future<Output = Response<ClaimBody>> + Send>>);

impl Future for ClaimFuture {
    type Output = Result<Response<ClaimBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl<S, R, B> Service<Request<B>> for ClaimService<S, R>
where
    S: ClaimStore + AdminStore,
    R: Reject + Send + Sync + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<ClaimBody>;
    type Error = Infallible;
    type Future = ClaimFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ClaimFuture {
        let shared = self.shared.clone();
        ClaimFuture(Box::pin(async move {
            let method = request.method().clone();
            let answer = shared.answer(request).await;
            let answer =
                answer.unwrap_or_else(|refusal| refusal.into_rejection().render(&shared.reject));
            let mut answer = ResponseBody::answer(&method, answer);
            guard(answer.headers_mut());
            answer
        }))
    }
}

impl<S, R> Clone for ClaimService<S, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S, R> fmt::Debug for ClaimService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimService").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClaimFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimFuture")
    }
}
