use std::error::Error;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::super::error::AdminError;
use crate::error::catalog;

/// Reads a body of at most `max_len` bytes.
pub(in crate::admin) async fn read_body<B>(body: B, max_len: usize) -> Result<Bytes, AdminError>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match Limited::new(body, max_len).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AdminError::body_too_large(max_len)),
        Err(_) => Err(catalog::REQUEST_BODY_BROKEN.into()),
    }
}
