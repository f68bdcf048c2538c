use std::{sync::Arc, time::SystemTime};

use http::{Method, Request, Response};

use super::AuthRejection;
use crate::{
    body::ResponseBody,
    clock::Clock,
    error::{Reject, Rejection, StoreError},
    key::{Checksum, KeyRecord, SecretKey},
    store::Units,
};

/// What all clones of the service share.
#[derive(Clone)]
pub(super) struct Shared<K, R> {
    pub(super) store: K,
    pub(super) reject: R,
    pub(super) clock: Arc<dyn Clock>,
}

impl<K, R: Reject> Shared<K, R> {
    /// Turns the store's answer into the record to go on with, or into the refusal.
    pub(super) fn admit(
        &self,
        key: &SecretKey,
        found: Result<Option<Arc<KeyRecord>>, StoreError>,
        at: SystemTime,
    ) -> Result<Arc<KeyRecord>, Refusal> {
        match found {
            Ok(Some(record)) if record.disabled => {
                Err(Refusal(AuthRejection::DisabledKey, Some(record)))
            }
            Ok(Some(record)) if record.is_expired(at) => {
                Err(Refusal(AuthRejection::ExpiredKey, Some(record)))
            }
            Ok(Some(record)) => Ok(record),
            Ok(None) if key.checksum() == Checksum::Mistyped => {
                Err(Refusal(AuthRejection::MistypedKey, None))
            }
            Ok(None) => Err(Refusal(AuthRejection::InvalidKey, None)),
            Err(error) => {
                tracing::warn!(source = ?error, "no key could be looked up");
                Err(Refusal(AuthRejection::Store(error), None))
            }
        }
    }

    pub(super) fn refuse<B>(&self, method: &Method, refusal: Refusal) -> Response<ResponseBody<B>> {
        let Refusal(rejection, record) = refusal;
        let response = Rejection::from(&rejection).render(&self.reject);
        let mut response = ResponseBody::answer(method, response);
        if let Some(record) = record {
            response.extensions_mut().insert(record);
        }
        response
    }
}

/// Why a request is refused, and whose it was if that is known.
pub(super) struct Refusal(pub(super) AuthRejection, pub(super) Option<Arc<KeyRecord>>);

/// Puts the record where the inner service finds it.
pub(super) fn identify<B>(mut request: Request<B>, record: Arc<KeyRecord>) -> Request<B> {
    // A recorder outside sees no extension that is put in here.
    if let Some(units) = request.extensions().get::<Units>() {
        units.name_key(&record.id);
    }
    request.extensions_mut().insert(record);
    request
}
