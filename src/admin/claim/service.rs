use std::{
    convert::Infallible,
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tower_service::Service;

use crate::{
    admin::{
        calls::keys::user_of,
        claim::page::claim_page,
        http::{
            add_security_headers,
            error::AdminError,
            input::{Flag, FromHeaders, IdempotencyKeyHeader, from_json, read_body},
            json::{LimitNumber, Timestamp, json_response, raw_json_response},
            remove_body,
            replay::{Replay, ReplayCache, ReplaySlot},
        },
        service::ResponseFuture,
        store::{
            Actor, AdminStore, Claim, ClaimOutcome, ClaimState, ClaimStore, IdempotencyKey,
            KeySummary,
        },
    },
    error::{ProblemJson, Reject, catalog, json},
    key::{ClaimToken, KeyId, SecretKey},
    request::RequestContext,
};

/// Maximum length of a request body, in bytes.
const MAX_BODY_LEN: usize = 4096;

/// Response body of [`ClaimService`].
#[derive(Debug)]
pub struct ClaimBody(Full<Bytes>);

/// Creates the service behind claim links. See [`ClaimService`] for its rules.
pub fn claim_service<S>(store: S) -> ClaimService<S> {
    let (reject, replays) = (Arc::new(ProblemJson), Arc::default());
    ClaimService { shared: Arc::new(Shared { store, reject, base_url: None, replays }) }
}

/// Service behind claim links, which [`claim_service`] makes.
///
/// # Rules
///
/// - A link reveals its key once. Opening it gives the key a new secret, so that no secret has to be
///   stored until then; the old secret stops working. Loading the page does not open the link, so a
///   link preview does not use it up.
/// - The token is the fragment of the link, after `#`, which browsers do not send. The page sends it in
///   the request body.
/// - `POST` with `{"token": "…"}` describes the key; with `"open": true` it opens the link. A link that
///   was opened, has expired or was withdrawn gets 410, an unknown one 404.
/// - With an `Idempotency-Key`, a client that lost the response gets it again for the same request
///   within an hour, as long as the process runs. Without the same `Idempotency-Key` it gets 410.
/// - `GET` is the page that the link opens. It holds no data.
/// - Every response is `Cache-Control: no-store`.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::{BodyExt, Full};
/// use tower::ServiceExt;
/// use tower_quota::{
///     admin::{AdminTokens, admin_service, claim_service},
///     store::memory::MemoryStore,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let admin = admin_service(store.clone(), AdminTokens::parse("correct-horse-battery-staple")?);
/// let post = |path: &str| {
///     let request = Request::post(path).header("x-admin-token", "correct-horse-battery-staple");
///     admin.clone().oneshot(request.body(Full::<Bytes>::default()).expect("a request"))
/// };
/// let created = post("/admin/keys").await?.into_body().collect().await?.to_bytes();
/// let created: serde_json::Value = serde_json::from_slice(&created)?;
/// let path = format!("/admin/keys/{}/claim", created["id"].as_str().expect("an id"));
/// let link = post(&path).await?.into_body().collect().await?.to_bytes();
/// let link: serde_json::Value = serde_json::from_slice(&link)?;
/// let (_, token) = link["url"].as_str().and_then(|url| url.split_once('#')).expect("a token");
///
/// let body = serde_json::json!({"token": token, "open": true}).to_string();
/// let open = || {
///     let request = Request::post("/claim").body(Full::<Bytes>::from(body.clone()));
///     claim_service(store.clone()).oneshot(request.expect("a request"))
/// };
/// assert_eq!(open().await?.status(), 200);
/// assert_eq!(open().await?.status(), 410);
/// # Ok(())
/// # }
/// ```
pub struct ClaimService<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Clone)]
struct Shared<S> {
    store: S,
    reject: Arc<dyn Reject>,
    base_url: Option<Arc<str>>,
    replays: Arc<ReplayCache>,
}

impl<S: Clone> ClaimService<S> {
    /// Sets the renderer of rejections.
    #[must_use]
    pub fn reject(mut self, reject: impl Reject) -> Self {
        Arc::make_mut(&mut self.shared).reject = Arc::new(reject);
        self
    }

    /// Sets the base URL that is returned with a key, for example `https://gateway.example/v1`. The
    /// page shows `/v1` of its own server by default.
    #[must_use]
    pub fn base_url(mut self, base_url: &str) -> Self {
        Arc::make_mut(&mut self.shared).base_url = Some(base_url.into());
        self
    }
}

/// Request body of the claim service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimRequest {
    token: String,
    open: Option<Flag>,
}

/// Description of an open claim.
#[derive(Serialize)]
struct OpenClaim {
    state: &'static str,
    label: String,
    daily_limit: LimitNumber,
    key_expires_at: Option<Timestamp>,
    expires_at: Timestamp,
}

/// A claimed key, in the only response that shows the whole key.
#[derive(Serialize)]
struct ClaimedKey<'a> {
    id: &'a KeyId,
    key: &'a str,
    label: &'a str,
    daily_limit: LimitNumber,
    expires_at: Option<Timestamp>,
    base_url: Option<&'a str>,
}

impl<S: ClaimStore + AdminStore> Shared<S> {
    async fn respond<B>(&self, head: &Parts, body: B) -> Result<Response<Bytes>, AdminError>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match head.method {
            Method::GET | Method::HEAD => return Ok(claim_page()),
            Method::POST => {}
            _ => return Err(AdminError::method_not_allowed("GET, HEAD, POST")),
        }
        let ip = head.extensions.get().and_then(RequestContext::client_addr);
        let IdempotencyKeyHeader(name) = IdempotencyKeyHeader::from_headers(&head.headers)?;
        let body = read_body(body, MAX_BODY_LEN).await?;
        let ClaimRequest { token: token_text, open } = from_json(&body)?;
        let token = ClaimToken::parse(&token_text).map_err(|_| catalog::CLAIM_NOT_FOUND)?;
        let opens = open.is_some_and(|Flag(open)| open);
        let name = name.filter(|_| opens);
        let slot = match name.map(|name| IdempotencyKey::new(&token_text, &name, b"open")) {
            None => None,
            Some(key) => match self.replays.begin(key, self.store.now())? {
                Replay::First(slot) => Some(slot),
                Replay::Repeated(body) => return Ok(raw_json_response(StatusCode::OK, body)),
            },
        };
        let claim = self.store.claim(token.clone()).await?;
        let claim = claim.ok_or(catalog::CLAIM_NOT_FOUND)?;
        if claim.state != ClaimState::Open {
            return Err(AdminError::claim_not_open(claim.state));
        }
        if !opens {
            return Ok(json_response(
                StatusCode::OK,
                &OpenClaim {
                    state: "open",
                    label: claim.label,
                    daily_limit: LimitNumber(claim.daily_limit),
                    key_expires_at: claim.key_expires_at.map(Timestamp),
                    expires_at: Timestamp(claim.expires_at),
                },
            ));
        }
        self.open(token, &claim, Actor { token_id: String::new(), ip }, slot).await
    }

    async fn open(
        &self,
        token: ClaimToken,
        claim: &Claim,
        by: Actor,
        slot: Option<ReplaySlot>,
    ) -> Result<Response<Bytes>, AdminError> {
        let user = user_of(&claim.masked, &claim.label);
        let secret = SecretKey::generate(&user, self.store.today());
        let secret = secret.map_err(|_| catalog::CLAIM_NOT_FOUND)?;
        let new_secret = secret.clone();
        let base_url = self.base_url.clone();
        let body =
            move |key: &KeySummary| json(&ClaimedKey::new(key, &secret, base_url.as_deref()));
        let replayed_body = body.clone();
        // Called by the store, so that the body is kept even if the client has disconnected.
        let on_opened = move |key: &KeySummary| {
            if let Some(slot) = slot {
                slot.fill(replayed_body(key));
            }
        };
        match self.store.open_claim(token, new_secret, by, Box::new(on_opened)).await? {
            ClaimOutcome::Opened(key) => {
                tracing::info!(key_id = %key.record.id, "key claimed");
                Ok(raw_json_response(StatusCode::OK, body(&key)))
            }
            ClaimOutcome::NotOpen(state) => Err(AdminError::claim_not_open(state)),
            ClaimOutcome::Unknown => Err(catalog::CLAIM_NOT_FOUND.into()),
        }
    }
}

impl<'a> ClaimedKey<'a> {
    fn new(key: &'a KeySummary, secret: &'a SecretKey, base_url: Option<&'a str>) -> Self {
        Self {
            id: &key.record.id,
            key: secret.expose(),
            label: &key.record.label,
            daily_limit: LimitNumber(key.record.daily_limit),
            expires_at: key.record.expires_at.map(Timestamp),
            base_url,
        }
    }
}

impl From<Bytes> for ClaimBody {
    fn from(bytes: Bytes) -> Self {
        Self(Full::new(bytes))
    }
}

impl Body for ClaimBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl<S, B> Service<Request<B>> for ClaimService<S>
where
    S: ClaimStore + AdminStore,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<ClaimBody>;
    type Error = Infallible;
    type Future = ResponseFuture<ClaimBody>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<ClaimBody> {
        let shared = self.shared.clone();
        ResponseFuture::new(async move {
            let (head, body) = request.into_parts();
            let response = shared.respond(&head, body).await;
            let response = response
                .unwrap_or_else(|error| error.into_rejection().render(&*shared.reject, &head));
            let mut response = response.map(ClaimBody::from);
            add_security_headers(response.headers_mut());
            if head.method == Method::HEAD {
                remove_body(&mut response);
            }
            response
        })
    }
}

impl<S> Clone for ClaimService<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S> fmt::Debug for ClaimService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimService").finish_non_exhaustive()
    }
}
