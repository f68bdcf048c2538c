//! The request that a thread is working on.

use std::cell::RefCell;

use http::HeaderValue;

thread_local! {
    static REQUEST_ID: RefCell<Option<HeaderValue>> = const { RefCell::new(None) };
}

/// Makes the lines of this thread have the id of a request, until it is dropped.
pub(crate) struct Entered {
    previous: Option<HeaderValue>,
}

/// Enters the request with this id.
pub(crate) fn enter(request_id: &HeaderValue) -> Entered {
    Entered { previous: REQUEST_ID.replace(Some(request_id.clone())) }
}

impl Drop for Entered {
    fn drop(&mut self) {
        REQUEST_ID.set(self.previous.take());
    }
}

/// Returns the id of the request that this thread is working on.
pub(super) fn request_id() -> Option<HeaderValue> {
    // The end of a thread may be logged after this is gone.
    REQUEST_ID.try_with(|id| id.borrow().clone()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_request_gives_way_to_the_outer_one_also_after_a_panic() {
        let [outer, inner] = ["outer", "inner"].map(HeaderValue::from_static);
        let entered = enter(&outer);
        drop(enter(&inner));
        assert_eq!(request_id(), Some(outer.clone()));
        let panicked = std::panic::catch_unwind(|| {
            let _entered = enter(&inner);
            assert_eq!(request_id(), Some(inner.clone()));
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(request_id(), Some(outer.clone()));
        drop(entered);
        assert_eq!(request_id(), None);
    }
}
