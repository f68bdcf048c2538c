//! Middleware that makes streamed chats request usage, and hides it from clients that did not.
//!
//! OpenAI-compatible APIs report the tokens of a streamed response only if
//! `stream_options.include_usage` requests them, in one more event before `[DONE]`.
//!
//! # Rules for the request
//!
//! - Changed is a `POST` with JSON (of any content type, without a content coding) that
//!   [`StreamUsageLayer::applies_to`] selects, by default chat completions, whose top-level object has `"stream":true` and does not
//!   request usage: `stream_options` is missing, null, or an object in which `include_usage` is missing,
//!   null or false.
//! - Only that member is inserted. Every other byte stays, and so does the framing: `Content-Length` is
//!   corrected where it was present, and a chunked body stays chunked.
//! - A request stays as it is if a field authenticates its bytes (`Content-Digest`, `Repr-Digest`,
//!   `Digest`, `Content-MD5`, `Signature`).
//! - What is ambiguous stays as it is: malformed JSON, one of these members twice (in any spelling), a
//!   value of another type, and options with vLLM's `continuous_usage_stats`, which would take effect.
//! - The body is read first, up to [`StreamUsageLayer::max_body`] bytes, and up to
//!   [`StreamUsageLayer::max_buffered`] bytes of all bodies together. A body beyond these passes
//!   untouched: what was read, then the rest as it arrives. How long its sender may take is for the body
//!   itself to limit. A body that breaks off passes as far as it came, and then breaks off.
//! - A changed request has `Accept-Encoding: identity`, as nothing can be removed from a coded response.
//! - If the response to a changed request is a 4xx whose body contains `stream_options` within its first
//!   16 KiB, the inner service gets the original instead, once, and that response counts. If it succeeds,
//!   this layer and its clones change no more requests, which is logged once. The original is kept until
//!   the head of the response arrives.
//!
//! # Rules for the response
//!
//! - From a 2xx response in `text/event-stream` without a content coding, to a request that was changed, the
//!   events whose data is a JSON object with an empty `choices` array and a `usage` object are removed.
//!   Every other byte stays, including comments within them and a byte order mark. Fields of the head that
//!   describe the bytes (`Content-Length`, `ETag`, and those that authenticate them) are removed.
//! - A frame passes at once, and is not copied if it is of `Bytes`. Only the beginning of an event that may
//!   still be a usage event is held back; an event longer than 16 KiB is none.
//! - What is held back passes when the body ends, before its trailers, and before its error.
//!
//! # Order of the layers
//!
//! A usage recorder needs the event, so it stands inside of the layer that hides it. The body of a request
//! that is rejected is not to be read, so layers that reject stand outside of the layer that changes it.
//! Where both are present, [`StreamUsageLayer::split`] makes two layers of the one. They meet in
//! [`UsageRequested`], in the extensions of the response.
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::openai::stream_usage::{BufferedBody, StreamUsageLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let upstream = service_fn(|request: Request<BufferedBody<Full<Bytes>>>| async move {
//!     let body = request.into_body().collect().await?.to_bytes();
//!     assert_eq!(body, r#"{"stream":true,"stream_options":{"include_usage":true},"n":1}"#);
//!     let events = concat!(
//!         "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}],\"usage\":null}\n\n",
//!         "data: {\"choices\":[],\"usage\":{\"total_tokens\":5}}\n\n",
//!         "data: [DONE]\n\n",
//!     );
//!     let response = Response::builder().header("content-type", "text/event-stream");
//!     Ok::<_, Infallible>(response.body(Full::<Bytes>::from(events)).unwrap_or_default())
//! });
//! let service = ServiceBuilder::new().layer(StreamUsageLayer::new()).service(upstream);
//!
//! let request = Request::post("/v1/chat/completions")
//!     .header("content-type", "application/json")
//!     .body(Full::from(r#"{"stream":true,"n":1}"#))?;
//! let body = service.oneshot(request).await?.into_body().collect().await?.to_bytes();
//! assert_eq!(body, concat!(
//!     "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}],\"usage\":null}\n\n",
//!     "data: [DONE]\n\n",
//! ));
//! # Ok(())
//! # }
//! ```

mod buffered;
mod edit;
mod filter;
mod filtered;
mod future;
mod head;
mod layer;
mod service;
#[cfg(test)]
mod tests;

pub use buffered::BufferedBody;
pub use filtered::FilteredBody;
pub use future::{HideUsageFuture, IncludeUsageFuture};
pub use layer::{HideUsageLayer, IncludeUsageLayer, StreamUsageLayer};
pub use service::{HideUsage, IncludeUsage};

/// Extension of a response whose request was changed to request usage.
///
/// [`IncludeUsage`] inserts it; [`HideUsage`] removes it, and hides the usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageRequested;
