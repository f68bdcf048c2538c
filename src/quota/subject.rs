use std::sync::Arc;

use http::request::Parts;

use crate::{key::KeyRecord, store::QuotaSubject};

/// Says whose unit a request takes. A closure `Fn(&Parts) -> Option<QuotaSubject>` is one.
pub trait SubjectSource {
    /// The request's subject; `None` refuses the request.
    fn subject(&self, request: &Parts) -> Option<QuotaSubject>;
}

impl<F> SubjectSource for F
where
    F: Fn(&Parts) -> Option<QuotaSubject>,
{
    fn subject(&self, request: &Parts) -> Option<QuotaSubject> {
        self(request)
    }
}

/// The default: the `Arc<KeyRecord>` that `TrialKeyAuthLayer` put into the extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeySubject;

impl SubjectSource for KeySubject {
    fn subject(&self, request: &Parts) -> Option<QuotaSubject> {
        request.extensions.get::<Arc<KeyRecord>>().map(|record| QuotaSubject::from(&**record))
    }
}
