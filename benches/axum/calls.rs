//! Calls of an axum application, in this process and without a socket.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    routing::get,
};
use http_body_util::BodyExt;
use tower::{BoxError, Service, ServiceExt};

/// Number of keys.
pub(crate) const KEYS: usize = 16;

/// Returns the text of a key.
pub(crate) fn key(number: usize) -> String {
    format!("trial-bench-20261122-{:022}", number % KEYS)
}

/// Creates the application that every variant puts its layers around.
pub(crate) fn application() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}

/// Calls the application this number of times, with each key in turn, and reads each response to its end.
pub(crate) async fn repeat(application: Router, calls: usize) -> Result<(), BoxError> {
    // As `axum::serve` does: the layers are applied once, and not at each call.
    let mut application = application.with_state(());
    for number in 0..calls {
        let credential = format!("Bearer {}", key(number));
        let request = Request::get("/hello")
            .header(header::HOST, "quota.example.com")
            .header(header::AUTHORIZATION, credential)
            .body(Body::empty())?;
        let response = application.as_service().ready().await?.call(request).await?;
        if response.status() != StatusCode::OK {
            return Err(response.status().to_string().into());
        }
        response.into_body().collect().await?;
    }
    Ok(())
}
