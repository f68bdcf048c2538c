use std::{fmt, sync::Arc};

use super::UsageEvent;

/// In a request's extensions, put there by whoever wants to hear how that request ended: called
/// once with its event. Must not block.
///
/// The outermost recorder takes it out, so it is called once also where recorders are stacked.
#[derive(Clone)]
pub struct OnEvent(Arc<dyn Fn(&UsageEvent) + Send + Sync>);

impl OnEvent {
    /// Calls `listener`.
    pub fn new(listener: impl Fn(&UsageEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(super) fn tell(&self, event: &UsageEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for OnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEvent")
    }
}
