use std::error::Error;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::super::refusal::Refusal;

/// Reads a body of at most so many bytes.
pub(in crate::admin) async fn read_body<B>(body: B, most: usize) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::body_too_large(most)),
        Err(_) => Err(Refusal::unreadable_body()),
    }
}
