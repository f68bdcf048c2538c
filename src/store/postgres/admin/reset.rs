//! Reset of a key's counters while its requests are in flight on all nodes.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Client;

use super::{
    super::{
        PostgresStore,
        sql::{self, text},
        unavailable,
    },
    list::summary,
    write_audit,
};
use crate::{
    admin::store::{AuditNote, ChangeOutcome, KeyEdit, KeySummary},
    clock::Day,
    error::StoreError,
    store::counter::{CounterKey, Origin},
};

/// Time for which nothing is granted, in which nodes give back what they have not used.
const HOLD: Duration = Duration::from_millis(40);
/// Time after which the leases are read again.
const POLL_INTERVAL: Duration = Duration::from_millis(4);

/// Resets these counters of one key. Units that a node keeps, as it does not respond, count after the reset.
pub(super) async fn reset(
    store: &PostgresStore,
    keys: Vec<CounterKey>,
    edit: KeyEdit,
) -> Result<ChangeOutcome, StoreError> {
    let core = &store.0.core;
    let day = |key: &CounterKey| key.first_day(&core.engine.calendar, core.now());
    let keys: Vec<_> = keys.into_iter().map(|key| (day(&key), key)).collect();
    let mut client = store.reader().await?;
    recall(&client, &keys).await.map_err(unavailable)?;
    // What this node has used of them must be in the database.
    store.flush().await?;
    let transaction = client.transaction().await.map_err(unavailable)?;
    let done = reset_in_transaction(store, transaction.client(), &keys, edit).await?;
    let after = match done {
        Ok(after) => after,
        Err(undone) => return Ok(undone),
    };
    transaction.commit().await.map_err(unavailable)?;
    let (epochs, after) = after;
    for ((day, key), epoch) in keys.iter().zip(epochs) {
        if let Some(counter) = core.engine.counter(key) {
            counter.reset(|_| Origin { day: *day, epoch });
        }
    }
    Ok(ChangeOutcome::Done(after.into()))
}

/// Calls upon the nodes to give back their units, and waits for them.
async fn recall(client: &Client, keys: &[(Day, CounterKey)]) -> sql::Result<()> {
    let until = Instant::now() + HOLD;
    for (day, key) in keys {
        let (id, quota, day) = (key.subject.as_str(), key.quota.as_str(), day.to_string());
        let values = [text(&id), text(&quota), text(&day)];
        let is_held = "SELECT recall_leases($1, $2, $3)";
        let mut is_held: bool = sql::one(client, is_held, &values).await?.try_get(0)?;
        while is_held && Instant::now() < until {
            sleep(POLL_INTERVAL).await;
            let sql = "SELECT EXISTS (SELECT 1 FROM leases
                WHERE (key_id, quota, day) = ($1, $2, $3) AND granted > spent)";
            is_held = sql::one(client, sql, &values).await?.try_get(0)?;
        }
    }
    Ok(())
}

type Reset = Result<(Vec<u32>, KeySummary), ChangeOutcome>;

async fn reset_in_transaction(
    store: &PostgresStore,
    client: &Client,
    keys: &[(Day, CounterKey)],
    edit: KeyEdit,
) -> Result<Reset, StoreError> {
    let core = &store.0.core;
    let found = summary(client, core, &edit.key).await.map_err(unavailable)?;
    let Some(before) = found else { return Ok(Err(ChangeOutcome::UnknownKey)) };
    if !edit.applies_to(&before) {
        return Ok(Err(ChangeOutcome::VersionMismatch));
    }
    let KeyEdit { change, by, .. } = edit;
    let mut epochs = Vec::new();
    for (day, key) in keys {
        epochs.push(reset_counter(client, key, *day).await.map_err(unavailable)?);
    }
    let after = KeySummary { used_today: 0, ..before.clone() };
    let notes = [AuditNote::changed(&change, &before, &after)];
    write_audit(client, core.now(), &by, &notes).await.map_err(unavailable)?;
    Ok(Ok((epochs, after)))
}

/// Returns the new epoch.
async fn reset_counter(client: &Client, key: &CounterKey, day: Day) -> sql::Result<u32> {
    let (id, quota, day) = (key.subject.as_str(), key.quota.as_str(), day.to_string());
    let sql = "SELECT reset_counter($1, $2, $3)";
    let row = sql::one(client, sql, &[text(&id), text(&quota), text(&day)]).await?;
    Ok(u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or(u32::MAX))
}
