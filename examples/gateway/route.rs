use http::{HeaderValue, Method, Uri, uri::PathAndQuery};

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
}

/// The paths that clients send when their base URL has no `/v1`.
const WITHOUT_VERSION: [&str; 5] =
    ["chat/completions", "completions", "embeddings", "responses", "models"];

impl Route {
    /// Where this path leads to, if anywhere.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let route = match path {
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
        let reads = method == Method::GET || method == Method::HEAD;
        match self {
            Self::Upstream | Self::Admin | Self::Claim => None,
            _ => (!reads).then(|| HeaderValue::from_static("GET, HEAD")),
        }
    }
}

/// Whether this is one of the OpenAI paths, or below one, with no `/v1` before it.
fn lacks_version(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    WITHOUT_VERSION.iter().any(|known| {
        let below = path.strip_prefix(known);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    })
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
            ("/", None),
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
}
