//! Import of keys that were issued elsewhere.

use std::time::SystemTime;

use tokio_postgres::Client;

use super::{
    super::{
        columns,
        keys::{find_id, has_id},
        sql::{self, bigint, ints, text, texts},
    },
    write_audit,
};
use crate::{
    admin::store::{Actor, AuditNote, ImportOutcome, ImportedKey},
    key::KeyId,
};

/// Inserts keys that do not exist yet. A dry run is rolled back.
pub(super) async fn import(
    client: &Client,
    keys: &[ImportedKey],
    dry_run: bool,
    by: &Actor,
    now: SystemTime,
) -> sql::Result<Vec<ImportOutcome>> {
    client.batch_execute("SAVEPOINT import").await?;
    let mut outcomes = Vec::with_capacity(keys.len());
    for key in keys {
        outcomes.push(import_key(client, key, by, now).await?);
    }
    let end = if dry_run { "ROLLBACK TO import; RELEASE import" } else { "RELEASE import" };
    client.batch_execute(end).await?;
    Ok(outcomes)
}

async fn import_key(
    client: &Client,
    key: &ImportedKey,
    by: &Actor,
    now: SystemTime,
) -> sql::Result<ImportOutcome> {
    if let Some(id) = find_id(client, &key.hash()).await? {
        fill_days(client, key, &id).await?;
        return Ok(ImportOutcome::Unchanged(id));
    }
    let revoked = "SELECT key_id FROM revoked_keys WHERE key_hash = $1";
    if let Some(row) = sql::optional(client, revoked, &[text(&key.hash().to_hex())]).await? {
        return Ok(ImportOutcome::Revoked(KeyId::new(row.try_get::<_, String>(0)?)));
    }
    let record = key.record();
    if has_id(client, &record.id).await? {
        return Ok(ImportOutcome::IdTaken);
    }
    columns::insert(client, record, key.hash()).await?;
    fill_days(client, key, &record.id).await?;
    write_audit(client, now, by, &[AuditNote::imported(record)]).await?;
    Ok(ImportOutcome::New(record.id.clone()))
}

/// Adds imported units for days without known usage. The outcomes of their requests are unknown.
async fn fill_days(client: &Client, key: &ImportedKey, id: &KeyId) -> sql::Result<()> {
    let used = || key.used().iter().filter(|(_, used)| *used > 0);
    let days: Vec<String> = used().map(|(day, _)| day.to_string()).collect();
    let units: Vec<i64> = used().map(|(_, used)| bigint(*used)).collect();
    if days.is_empty() {
        return Ok(());
    }
    let insert = "WITH units AS (
            INSERT INTO daily_usage (key_id, day, used, epoch)
            SELECT $1, s.day, s.used, coalesce(e.epoch, 0)
            FROM unnest($2, $3) AS s (day, used)
            CROSS JOIN (
                SELECT max(epoch) AS epoch FROM daily_usage WHERE (key_id, quota) = ($1, 'daily')
            ) AS e
            -- Units of a day that has begun to be counted are known.
            WHERE NOT EXISTS (
                SELECT FROM counters c WHERE (c.key_id, c.quota, c.day) = ($1, 'daily', s.day)
            )
            ON CONFLICT DO NOTHING RETURNING day, used
        ), of_key AS (
            INSERT INTO usage_totals AS t (key_id, day, requests, model)
            SELECT $1, day, used, '' FROM units
            ON CONFLICT (day, key_id, model) DO UPDATE
            SET requests = t.requests + excluded.requests
        )
        INSERT INTO model_totals AS t (day, requests, model) SELECT day, used, '' FROM units
        ON CONFLICT (day, model) DO UPDATE SET requests = t.requests + excluded.requests";
    let id = id.as_str();
    let values = [text(&id), texts(&days), ints(&units)];
    sql::execute(client, insert, &values).await.map(drop)
}
