//! Middleware that asks for the usage of streamed chats, and hides it from clients that did not.
//!
//! OpenAI-compatible APIs tell the tokens of a streamed answer only if
//! `stream_options.include_usage` asks for them, in one more event before `[DONE]`.
//!
//! # Rules for the request
//!
//! - Changed is a `POST` with JSON (of any content type, with no content coding) to what [`AppliesTo`]
//!   says, by default chat completions, whose top-level object has `"stream":true` and does not ask for
//!   usage: `stream_options` is missing, null, or an object in which `include_usage` is missing, null
//!   or false.
//! - Only that member is put in. Every other byte stays, and the framing too: `Content-Length` is
//!   told anew where it was told, and a chunked body stays chunked.
//! - A request stays as it is if a field vouches for its bytes (`Content-Digest`, `Repr-Digest`,
//!   `Digest`, `Content-MD5`, `Signature`).
//! - What is not clear stays as it is: malformed JSON, one of these members twice (in any spelling), a
//!   value of another type, and options with vLLM's `continuous_usage_stats`, which would begin to
//!   apply.
//! - The body is read for that, up to [`StreamUsageLayer::max_body`] bytes, and to
//!   [`StreamUsageLayer::max_held`] bytes of all bodies together. One for which there is no room passes
//!   untouched: what was read first, then the rest as it comes. How long its sender may take is for
//!   the body itself to limit. One that breaks off passes as far as it came, and then breaks off.
//! - A changed request says `Accept-Encoding: identity`, as nothing can be taken out of a coded answer.
//! - If a changed request is answered by a 4xx whose body names `stream_options` within its first 16 KiB,
//!   the inner service gets the original instead, once, and its answer counts. If that succeeds, no
//!   request is changed any more by this layer and its clones, which is logged once. The original is kept
//!   until the head of the answer is there.
//!
//! # Rules for the answer
//!
//! - From a 2xx answer in `text/event-stream` with no content coding, to a request that was changed, the
//!   events whose data is a JSON object with an empty `choices` array and a `usage` object are taken
//!   out. Every other byte stays, comments within them and a byte order mark included. What the head says
//!   of the bytes (`Content-Length`, `ETag`, and the fields that vouch for them) is taken out of it.
//! - A frame goes on at once, not copied, as long as it is of `Bytes`. Held is only the beginning of
//!   an event that may still turn out to be such a one; one longer than 16 KiB is none.
//! - What is held goes on when the body ends, before its trailers, and before its error.
//!
//! # Where it stands
//!
//! A usage recorder is to see the event, so it stands within what hides it; and the body of a request
//! that is refused is not to be read, so whatever refuses stands outside of what changes it. In a
//! stack of both, [`StreamUsageLayer::split`] makes two layers of the one: they meet in
//! [`UsageAsked`], in the response's extensions.
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::openai::stream_usage::{IncludedBody, StreamUsageLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let upstream = service_fn(|request: Request<IncludedBody<Full<Bytes>>>| async move {
//!     let body = request.into_body().collect().await?.to_bytes();
//!     assert_eq!(body, r#"{"stream":true,"stream_options":{"include_usage":true},"n":1}"#);
//!     let events = concat!(
//!         "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}],\"usage\":null}\n\n",
//!         "data: {\"choices\":[],\"usage\":{\"total_tokens\":5}}\n\n",
//!         "data: [DONE]\n\n",
//!     );
//!     let answer = Response::builder().header("content-type", "text/event-stream");
//!     Ok::<_, Infallible>(answer.body(Full::<Bytes>::from(events)).unwrap_or_default())
//! });
//! let service = ServiceBuilder::new().layer(StreamUsageLayer::new()).service(upstream);
//!
//! let request = Request::post("/v1/chat/completions")
//!     .header("content-type", "application/json")
//!     .body(Full::from(r#"{"stream":true,"n":1}"#))?;
//! let seen = service.oneshot(request).await?.into_body().collect().await?.to_bytes();
//! assert_eq!(seen, concat!(
//!     "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}],\"usage\":null}\n\n",
//!     "data: [DONE]\n\n",
//! ));
//! # Ok(())
//! # }
//! ```

mod applies;
mod edit;
mod events;
mod future;
mod glance;
mod head;
mod hidden;
mod included;
mod layer;
mod room;
mod service;
#[cfg(test)]
mod tests;

pub use applies::{AppliesTo, ChatCompletions};
pub use future::{HideUsageFuture, IncludeUsageFuture};
pub use hidden::HiddenBody;
pub use included::IncludedBody;
pub use layer::{HideUsageLayer, IncludeUsageLayer, StreamUsageLayer};
pub use service::{HideUsage, IncludeUsage};

/// In a response's extensions: its request was made to ask for usage, which its client did not.
///
/// [`IncludeUsage`] puts it in; [`HideUsage`] acts on it and takes it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageAsked;
