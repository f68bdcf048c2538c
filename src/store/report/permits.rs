//! Permits for reports that read much.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::error::StoreError;

/// Maximum number of concurrent reports of all keys.
const MAX_REPORTS: usize = 2;
/// Time for which further reports of all keys wait for a permit.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Permits for reports of all keys.
pub(crate) struct ReportPermits(Semaphore);

impl ReportPermits {
    /// Creates the permits for this number of readers, one of which is left for other queries.
    pub(crate) fn new(readers: usize) -> Self {
        Self(Semaphore::new(readers.saturating_sub(1).clamp(1, MAX_REPORTS)))
    }

    /// Waits for a permit.
    pub(crate) async fn acquire(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let permit = timeout(REPORT_TIMEOUT, self.0.acquire()).await;
        permit.map_err(StoreError::unavailable)?.map_err(StoreError::unavailable)
    }
}
