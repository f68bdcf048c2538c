use std::{
    slice,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use super::{PostgresStore, checkpoint, unavailable};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        Demand, QuotaStatus, QuotaStore, ReserveAllOutcome, ReserveOutcome, StoreFuture,
        counter::{Count, CounterKey},
        engine::{
            Counter,
            trip::{AllDemanded, SharedLedger, TripError},
        },
    },
};

/// Maximum number of times that a request finds that its period is over.
const MAX_PERIODS: usize = 20;
/// Time after which it looks again.
const PERIOD_DELAY: Duration = Duration::from_millis(10);

impl QuotaStore for PostgresStore {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let core = &self.0.core;
        let mut demand = demand.clone();
        demand.at = core.time_of(&demand);
        if let Some(counter) = core.engine.counter(&(&demand).into()) {
            let reserved = core.engine.reserve_of_share(&counter, &demand, core.hearing());
            if let Some(reserved) = reserved.transpose() {
                return StoreFuture::ready(reserved);
            }
        }
        let store = self.clone();
        StoreFuture::pending(async move { store.reserve_shared(demand).await })
    }

    fn reserve_all(&self, demands: &[Demand]) -> StoreFuture<ReserveAllOutcome> {
        let core = &self.0.core;
        let mut demands = demands.to_vec();
        self.set_time(&mut demands);
        let counters = demands.iter().map(|demand| core.engine.counter(&demand.into()));
        if let Some(counters) = counters.collect::<Option<Vec<_>>>() {
            match core.engine.reserve_all_of_shares(&counters, &demands, core.hearing()) {
                Ok(AllDemanded::Lacking(_)) => {}
                Ok(AllDemanded::Decided(outcome)) => return StoreFuture::ready(Ok(outcome)),
                Err(error) => return StoreFuture::ready(Err(error)),
            }
        }
        let store = self.clone();
        StoreFuture::pending(async move { store.reserve_all_shared(demands).await })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        let (store, demand) = (self.clone(), demand.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter((&demand).into(), demand.at).await?;
            let mut status = counter.status(&demand, &store.0.core.engine.calendar);
            // Other nodes may have used units since this one has made a trip, which only the database knows.
            store.flush_for_read().await;
            if let Ok(stored) = store.read_count(&counter).await
                && stored.day == status.day
            {
                status.used = stored.used;
            }
            Ok(status)
        })
    }
}

impl PostgresStore {
    async fn reserve_shared(self, mut demand: Demand) -> Result<ReserveOutcome, StoreError> {
        let core = &self.0.core;
        for _ in 0..MAX_PERIODS {
            let counter = self.load_counter((&demand).into(), demand.at).await?;
            match core.engine.reserve_shared(&counter, &demand, &**core).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.begin_again(error, slice::from_mut(&mut demand)).await?,
            }
        }
        Err(other_period())
    }

    async fn reserve_all_shared(
        self,
        mut demands: Vec<Demand>,
    ) -> Result<ReserveAllOutcome, StoreError> {
        let core = &self.0.core;
        for _ in 0..MAX_PERIODS {
            let mut counters = Vec::with_capacity(demands.len());
            for demand in &demands {
                counters.push(self.load_counter(demand.into(), demand.at).await?);
            }
            match core.engine.reserve_all_shared(&counters, &demands, &**core).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.begin_again(error, &mut demands).await?,
            }
        }
        Err(other_period())
    }

    /// Waits, and sets the time of the demands again, if the ledger counts another period than this node.
    async fn begin_again(
        &self,
        error: TripError,
        demands: &mut [Demand],
    ) -> Result<(), StoreError> {
        match error {
            TripError::Store(error) => return Err(error),
            // The trip has set the clock, which may have been early.
            TripError::OtherPeriod => sleep(PERIOD_DELAY).await,
        }
        self.set_time(demands);
        Ok(())
    }

    /// Sets the time of demands, which is the same for all of them.
    fn set_time(&self, demands: &mut [Demand]) {
        let Some(at) = demands.first().map(|demand| self.0.core.time_of(demand)) else { return };
        demands.iter_mut().for_each(|demand| demand.at = at);
    }

    /// Returns the count of all nodes up to their last checkpoints.
    async fn read_count(&self, counter: &Counter) -> Result<Count, StoreError> {
        let client = self.reader().await?;
        let count = checkpoint::read_used(&client, counter.key(), counter.count().day).await;
        count.map_err(|error| self.look_up_failed(error))
    }

    /// Returns the counter, and loads it from the database if it is not in memory.
    pub(super) async fn load_counter(
        &self,
        key: CounterKey,
        at: SystemTime,
    ) -> Result<Arc<Counter>, StoreError> {
        let engine = &self.0.core.engine;
        if let Some(counter) = engine.counter(&key) {
            return Ok(counter);
        }
        if has_nul(&key.subject) {
            return Err(unavailable(
                "the id of the subject has a NUL, which PostgreSQL cannot store",
            ));
        }
        let client = self.reader().await?;
        if let Some(counter) = engine.counter(&key) {
            return Ok(counter);
        }
        let day = key.first_day(&engine.calendar, at);
        let node = self.0.core.node().number;
        let count = checkpoint::read_count(&client, node, &key, day).await;
        let (count, share) = count.map_err(|error| self.look_up_failed(error))?;
        Ok(engine.insert_shared_counter(key, count, share))
    }
}

fn other_period() -> StoreError {
    unavailable("the database counts another period than this node")
}

/// Returns whether the id of a subject cannot be stored.
pub(super) fn has_nul(subject: &KeyId) -> bool {
    subject.as_str().contains('\0')
}
