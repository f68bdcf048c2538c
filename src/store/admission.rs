use std::{any::Any, fmt, sync::Arc};

/// An open request: admitted by a [`QuotaStore`](crate::store::QuotaStore) and not ended yet.
///
/// A store that also keeps usage events returns one with each reservation
/// ([`Reservation::admission`](crate::store::Reservation::admission)). The usage recorder adds it
/// to the request's event ([`UsageEvent::admission`](crate::store::UsageEvent::admission)), so
/// that the store which records the event knows which of its requests has ended. A request
/// without an event in this store ends when the last clone of its admission is dropped.
///
/// The value inside is the store's own; its `Drop` can record the end of the request.
///
/// ```
/// use std::sync::Arc;
/// use tower_quota::store::Admission;
///
/// struct OpenRequest(u64);
///
/// let admission = Admission::new(Arc::new(OpenRequest(7)));
/// assert_eq!(admission.downcast_ref::<OpenRequest>().map(|open| open.0), Some(7));
/// assert!(admission.downcast_ref::<String>().is_none());
/// ```
#[derive(Clone)]
pub struct Admission(Arc<dyn Any + Send + Sync>);

impl Admission {
    /// Creates an admission around the store's own record of the request.
    pub fn new<T: Any + Send + Sync>(open: Arc<T>) -> Self {
        Self(open)
    }

    /// Returns the store's record of the request, if it is a `T`.
    pub fn downcast_ref<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// Two admissions are equal if they are clones of the same one.
impl PartialEq for Admission {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Admission {}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}
