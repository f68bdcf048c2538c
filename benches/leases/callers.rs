//! Callers that use up a key.

use std::{
    future::poll_fn,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{task::JoinSet, time::sleep};
use tower::BoxError;
use tower_quota::{
    key::{KeyId, Limit},
    store::{Demand, QuotaStore, ReserveOutcome, postgres::PostgresStore},
};

/// Time below which a reservation has not waited for a trip, in microseconds.
const SHORT: u64 = 200;
/// Time after which a caller sends again what was not served.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of reservations of a caller that fail.
const MAX_FAILURES: u64 = 100;

/// Callers of one key.
#[derive(Clone)]
pub(crate) struct Callers {
    pub(crate) key: KeyId,
    pub(crate) limit: u64,
    /// Time that a response takes.
    pub(crate) response: Duration,
}

/// What became of the reservations of one caller.
#[derive(Default)]
pub(crate) struct Reserved {
    pub(crate) admitted: u64,
    /// Rejections that say that another attempt may be admitted.
    pub(crate) short_rejections: u64,
    pub(crate) failures: u64,
    /// Begin and end of each reservation that may have waited for a trip.
    pub(crate) slow: Vec<[u64; 2]>,
}

impl Callers {
    /// Runs a caller at each of these stores until the key is used up.
    pub(crate) async fn run(
        &self,
        stores: impl Iterator<Item = PostgresStore>,
    ) -> Result<Vec<Reserved>, BoxError> {
        let mut callers = JoinSet::new();
        for (number, store) in stores.enumerate() {
            let caller = self.clone();
            callers.spawn(async move { Ok::<_, BoxError>((number, caller.use_up(&store).await?)) });
        }
        let mut all = callers.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        all.sort_unstable_by_key(|(number, _)| *number);
        Ok(all.into_iter().map(|(_, reserved)| reserved).collect())
    }

    async fn use_up(&self, store: &PostgresStore) -> Result<Reserved, BoxError> {
        let mut reserved = Reserved::default();
        loop {
            let limit = Limit::Units(self.limit);
            let demand = Demand::new(self.key.clone(), limit, SystemTime::now());
            let begun = unix_micros(SystemTime::now());
            let outcome = store.reserve(&demand).await;
            let ended = unix_micros(SystemTime::now());
            if ended > begun + SHORT {
                reserved.slow.push([begun, ended]);
            }
            match outcome {
                Ok(ReserveOutcome::Admitted { mut reservation, .. }) => {
                    reservation.commit();
                    sleep(self.response).await;
                    poll_fn(|cx| reservation.poll_committed(cx)).await?;
                    reserved.admitted += 1;
                }
                Ok(ReserveOutcome::Exhausted(_)) => return Ok(reserved),
                Ok(ReserveOutcome::Elsewhere(_)) => {
                    reserved.short_rejections += 1;
                    sleep(RETRY_INTERVAL).await;
                }
                Ok(_) => return Err("an unknown outcome".into()),
                Err(error) if reserved.failures == MAX_FAILURES => return Err(error.into()),
                Err(_) => {
                    reserved.failures += 1;
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}

fn unix_micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
