//! The routes and the rules for paths.

use http::{HeaderValue, Method, Request, Uri, request::Parts, uri::PathAndQuery};

/// The route of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/healthz`: whether the process is alive.
    Health,
    /// `/readyz`: whether requests can be served.
    Ready,
    /// `/metrics`, for Prometheus.
    Metrics,
    /// The list of models, which needs no key.
    Models,
    /// Any other path of the API, which is forwarded.
    Upstream,
    /// `/usage`: a key's usage, for its holder.
    Usage,
    /// `/admin` and below.
    Admin,
    /// `/claim`: issues a key to those who have the claim's link.
    Claim,
    /// `/`, for people who open the gateway's address in a browser.
    Home,
}

/// Resources of the API, which clients request without `/v1` if their base URL lacks it. A resource that
/// ends in `/` has no path of its own, only paths below it.
const WITHOUT_VERSION: [&str; 16] = [
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "models",
    "messages",
    "audio/",
    "images/",
    "moderations",
    "files",
    "uploads",
    "batches",
    "fine_tuning/",
    "vector_stores",
    "assistants",
    "threads",
];

/// Endpoints that are mistaken for base URLs. No path of the API has one of [`CLIENT_PATHS`] below them.
const ENDPOINTS: [&str; 5] =
    ["chat/completions", "completions", "embeddings", "responses", "messages"];
/// Paths that clients append to their base URL.
const CLIENT_PATHS: [&str; 7] =
    ["v1", "chat/completions", "completions", "embeddings", "responses", "models", "messages"];

impl Route {
    /// Returns the route of `path`, if there is one.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let route = match path {
            "/" => Self::Home,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/usage" => Self::Usage,
            "/v1/models" | "/models" => Self::Models,
            "/admin" => Self::Admin,
            "/claim" => Self::Claim,
            _ if path.starts_with("/admin/") => Self::Admin,
            _ if path.starts_with("/v1/") && path.len() > "/v1/".len() => Self::Upstream,
            _ if lacks_version(path) => Self::Upstream,
            _ => return None,
        };
        Some(route)
    }

    /// Returns the `Allow` header for a method that this route rejects, or `None` if it allows it.
    pub(crate) fn rejects(self, method: &Method) -> Option<HeaderValue> {
        match self {
            Self::Upstream | Self::Admin | Self::Claim => None,
            _ => (!is_read(method)).then(|| HeaderValue::from_static("GET, HEAD")),
        }
    }
}

/// Returns whether `path` is that of a known resource, or below one, without `/v1` before it.
fn lacks_version(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|path| WITHOUT_VERSION.iter().any(|resource| is_within(path, resource)))
}

/// Returns whether `path` is `resource` or below it.
fn is_within(path: &str, resource: &str) -> bool {
    match path.strip_prefix(resource) {
        Some(below) if resource.ends_with('/') => !below.is_empty(),
        Some(below) => below.is_empty() || below.starts_with('/'),
        None => false,
    }
}

/// Returns the path that is repeated, as when a client appends `/v1` to a base URL that ends in `/v1`.
pub(crate) fn doubled_base(path: &str) -> Option<&str> {
    let versioned = path.strip_prefix("/v1/");
    if versioned.is_some_and(|rest| is_within(rest, "v1")) {
        return Some("/v1");
    }
    let rest = versioned.or_else(|| path.strip_prefix('/'))?;
    let end = ENDPOINTS.iter().find_map(|endpoint| {
        let below = rest.strip_prefix(endpoint)?.strip_prefix('/')?;
        let is_doubled = CLIENT_PATHS.iter().any(|path| is_within(below, path));
        is_doubled.then_some(path.len() - below.len() - 1)
    })?;
    Some(&path[..end])
}

/// Returns whether a request for the list of models must be forwarded: the cache holds the first page in
/// OpenAI's format only.
pub(crate) fn bypasses_models_cache(head: &Parts) -> bool {
    head.uri.query().is_some_and(|query| !query.is_empty())
        || head.headers.contains_key("anthropic-version")
}

/// Returns whether a request, whose path includes `/v1`, costs no unit.
pub(crate) fn is_free<B>(request: &Request<B>) -> bool {
    match request.uri().path().strip_prefix("/v1/") {
        Some("messages/count_tokens") => request.method() == Method::POST,
        Some(path) => is_read(request.method()) && is_within(path, "models"),
        None => false,
    }
}

/// Returns whether `CORS_ALLOW_ORIGINS` applies to this path.
pub(crate) fn allows_cors(path: &str) -> bool {
    path == "/usage" || is_within(path, "/v1") || lacks_version(path)
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// Returns the URI with `/v1` before the path if it is missing there.
pub(crate) fn with_version(uri: &Uri) -> Option<Uri> {
    if !lacks_version(uri.path()) {
        return None;
    }
    let path_and_query = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("/v1{path_and_query}").parse().ok();
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_routes_of_the_contract() {
        for (path, route) in [
            ("/healthz", Some(Route::Health)),
            ("/models", Some(Route::Models)),
            ("/v1/models", Some(Route::Models)),
            ("/models/deepseek-chat", Some(Route::Upstream)),
            ("/v1/models/deepseek-chat", Some(Route::Upstream)),
            ("/v1/anything", Some(Route::Upstream)),
            ("/chat/completions", Some(Route::Upstream)),
            ("/responses/resp_1", Some(Route::Upstream)),
            ("/usage", Some(Route::Usage)),
            ("/admin", Some(Route::Admin)),
            ("/admin/keys", Some(Route::Admin)),
            ("/claim", Some(Route::Claim)),
            ("/claim/x", None),
            ("/", Some(Route::Home)),
            ("/audio/speech", Some(Route::Upstream)),
            ("/images/generations", Some(Route::Upstream)),
            ("/moderations", Some(Route::Upstream)),
            ("/files/file-1/content", Some(Route::Upstream)),
            ("/fine_tuning/jobs", Some(Route::Upstream)),
            ("/messages/count_tokens", Some(Route::Upstream)),
            ("/audio", None),
            ("/images/", None),
            ("/filesystem", None),
            ("/v1", None),
            ("/v1/", None),
            ("/v10/chat", None),
            ("/chat", None),
            ("/completionsx", None),
            ("/administrator", None),
            ("/usage/", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn a_missing_version_is_inserted() {
        for (uri, expected) in [
            ("/chat/completions?a=%2F", Some("/v1/chat/completions?a=%2F")),
            ("http://h/models/x", Some("http://h/v1/models/x")),
            ("/v1/chat/completions", None),
        ] {
            let uri = with_version(&uri.parse().unwrap());
            assert_eq!(uri.map(|uri| uri.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn a_doubled_base_url_is_recognized() {
        for (path, base) in [
            ("/v1/v1/chat/completions", Some("/v1")),
            ("/v1/v1", Some("/v1")),
            ("/v1/chat/completions/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions/v1/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions/models", Some("/v1/chat/completions")),
            ("/chat/completions/chat/completions", Some("/chat/completions")),
            ("/v1/completions/completions", Some("/v1/completions")),
            ("/v1/embeddings/embeddings", Some("/v1/embeddings")),
            ("/v1/responses/responses/resp_1", Some("/v1/responses")),
            ("/v1/messages/v1/messages", Some("/v1/messages")),
            ("/v1/messages/messages", Some("/v1/messages")),
            ("/v1/chat/completions", None),
            ("/v1/chat/completions/chatcmpl-1/messages", None),
            ("/v1/responses/resp_1/input_items", None),
            ("/v1/messages/batches/batch_1", None),
            ("/v1/messages/count_tokens", None),
            ("/v1/models/v1", None),
            ("/v1/v1beta/models", None),
            ("/v1/threads/thread_1/messages", None),
            ("/v1", None),
        ] {
            assert_eq!(doubled_base(path), base, "{path}");
        }
    }
}
