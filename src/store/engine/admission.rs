use std::{any::Any, fmt, sync::Arc};

/// A request that a [`QuotaStore`](crate::store::QuotaStore) has on record as admitted and not
/// ended.
///
/// A store that also keeps usage events hands one out with each unit
/// ([`Reservation::admission`](crate::store::Reservation::admission)). The usage recorder puts it
/// into the request's event ([`UsageEvent::admission`](crate::store::UsageEvent::admission)), so
/// that the store which records the event knows which of its requests has ended with it. A request
/// whose event goes elsewhere, or has none, ends when the last clone is dropped.
///
/// What is inside belongs to the store: its `Drop` is the place to put the end on record.
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
    /// An admission that the store knows by `open`.
    pub fn new<T: Any + Send + Sync>(open: Arc<T>) -> Self {
        Self(open)
    }

    /// What the store has put in, if it is a `T`.
    pub fn downcast_ref<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// Two are equal if they are clones of the same one.
impl PartialEq for Admission {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}
