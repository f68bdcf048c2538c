//! Calls the application with a rate limit by tower_governor for each credential, which it does not reach.

#[path = "../calls.rs"]
mod calls;

use axum::http::{HeaderValue, Request, header};
use tower::BoxError;
use tower_governor::{
    GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor,
};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Credential;

impl KeyExtractor for Credential {
    type Key = HeaderValue;

    fn extract<T>(&self, request: &Request<T>) -> Result<HeaderValue, GovernorError> {
        let value = request.headers().get(header::AUTHORIZATION);
        value.cloned().ok_or(GovernorError::UnableToExtractKey)
    }
}

fn main() -> Result<(), BoxError> {
    let calls = std::env::args().nth(1).ok_or("no number of calls")?.parse()?;
    let config = GovernorConfigBuilder::default()
        .per_nanosecond(1)
        .burst_size(1_000_000_000)
        .key_extractor(Credential)
        .use_headers()
        .finish()
        .ok_or("a rate limit of zero")?;
    let application = calls::application().route_layer(GovernorLayer::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(calls::repeat(application, calls))
}
