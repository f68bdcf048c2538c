use http::{HeaderValue, Method, Uri, request::Parts, uri::PathAndQuery};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/healthz`: the process lives.
    Health,
    /// `/readyz`: requests can be served.
    Ready,
    /// `/metrics`, for Prometheus.
    Metrics,
    /// The list of models, for everybody.
    Models,
    /// The upstream, for holders of a key.
    Upstream,
    /// `/usage`: the holder's own figures.
    Usage,
    /// `/admin` and below.
    Admin,
    /// `/claim`: whoever has the link gets the key.
    Claim,
    /// `/`, for those who open the gateway's address in a browser.
    Home,
}

/// The resources that clients ask for when their base URL has no `/v1`. One that ends in `/` is
/// always asked for by something below it.
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

/// The endpoints that base URLs are made of by mistake. None of them has one of [`ADDED`] below it.
const ENDPOINTS: [&str; 5] =
    ["chat/completions", "completions", "embeddings", "responses", "messages"];
/// What clients add to their base URL.
const ADDED: [&str; 7] =
    ["v1", "chat/completions", "completions", "embeddings", "responses", "models", "messages"];

impl Route {
    /// Where this path leads to, if anywhere.
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

    /// The `Allow` header for a method that this route does not take; `None` if it takes it.
    pub(crate) fn refuses(self, method: &Method) -> Option<HeaderValue> {
        match self {
            Self::Upstream | Self::Admin | Self::Claim => None,
            _ => (!is_read(method)).then(|| HeaderValue::from_static("GET, HEAD")),
        }
    }
}

/// Whether this is one of the API's paths, or below one, with no `/v1` before it.
fn lacks_version(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|path| WITHOUT_VERSION.iter().any(|known| leads(path, known)))
}

/// Whether `path` is `start` or something below it.
fn leads(path: &str, start: &str) -> bool {
    match path.strip_prefix(start) {
        Some(below) if start.ends_with('/') => !below.is_empty(),
        Some(below) => below.is_empty() || below.starts_with('/'),
        None => false,
    }
}

/// What the client's base URL ends in, where that stands in the path twice: the client adds it, too.
pub(crate) fn doubled_base(path: &str) -> Option<&str> {
    let versioned = path.strip_prefix("/v1/");
    if versioned.is_some_and(|rest| leads(rest, "v1")) {
        return Some("/v1");
    }
    let rest = versioned.or_else(|| path.strip_prefix('/'))?;
    let end = ENDPOINTS.iter().find_map(|endpoint| {
        let below = rest.strip_prefix(endpoint)?.strip_prefix('/')?;
        ADDED.iter().any(|added| leads(below, added)).then_some(path.len() - below.len() - 1)
    })?;
    Some(&path[..end])
}

/// Whether a request for the list of models is to be forwarded, as the cache holds one page in the
/// form of OpenAI's API.
pub(crate) fn bypasses_models_cache(head: &Parts) -> bool {
    head.uri.query().is_some_and(|query| !query.is_empty())
        || head.headers.contains_key("anthropic-version")
}

/// Whether the upstream may be asked this, at a path with `/v1`, without a unit.
pub(crate) fn is_free(method: &Method, path: &str) -> bool {
    match path.strip_prefix("/v1/") {
        Some("messages/count_tokens") => method == Method::POST,
        Some(path) => is_read(method) && leads(path, "models"),
        None => false,
    }
}

/// Whether pages of other origins may be let in here by `CORS_ALLOW_ORIGINS`.
pub(crate) fn is_open_to_pages(path: &str) -> bool {
    path == "/usage" || leads(path, "/v1") || lacks_version(path)
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The same address with `/v1` before its path if that is missing.
pub(crate) fn with_version(uri: &Uri) -> Uri {
    if !lacks_version(uri.path()) {
        return uri.clone();
    }
    let path_and_query = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("/v1{path_and_query}").parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_contract_says() {
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
    fn a_missing_version_is_put_in() {
        for (given, wanted) in [
            ("/chat/completions?a=%2F", "/v1/chat/completions?a=%2F"),
            ("http://h/models/x", "http://h/v1/models/x"),
            ("/v1/chat/completions", "/v1/chat/completions"),
        ] {
            assert_eq!(with_version(&given.parse().unwrap()), wanted);
        }
    }

    #[test]
    fn a_base_url_that_stands_in_the_path_twice_is_recognized() {
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
