//! The table `claims`.

use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::{
    super::{
        PostgresStore,
        core::Core,
        keys::withdraw_claims,
        sql::{self, int, text},
        unavailable,
    },
    apply,
    list::summary,
    write_audit,
};
use crate::{
    admin::store::{
        Actor, AuditNote, Claim, ClaimOffer, ClaimOutcome, ClaimState, ClaimStore, ClaimSummary,
        KeyChange, KeyRef, KeySummary, OnOpened, Rotation,
    },
    clock::{from_unix_millis, unix_millis},
    key::{ClaimToken, SecretKey},
    store::StoreFuture,
};

impl PostgresStore {
    pub(super) fn offer(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        let core = self.0.core.clone();
        self.write(async move |client: &Client| {
            let Some(key) = summary(client, &core, &offer.key).await? else { return Ok(None) };
            let (id, now) = (key.record.id, core.now());
            withdraw_claims(client, &id).await?;
            let (hash, created_at) = (offer.token.hash().to_hex(), unix_millis(now));
            let expires_at = unix_millis(offer.expires_at);
            let insert = "INSERT INTO claims (token_hash, key_id, created_at, expires_at)
                VALUES ($1, $2, $3, $4)";
            let key_id = id.as_str();
            let values = [text(&hash), text(&key_id), int(&created_at), int(&expires_at)];
            sql::execute(client, insert, &values).await?;
            write_audit(client, now, &by, &[AuditNote::claim_offered(&id, &offer)]).await?;
            summary(client, &core, &KeyRef::new(id.as_str())).await
        })
    }
}

impl ClaimStore for PostgresStore {
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            let client = store.reader().await?;
            let found = find(&client, &store.0.core, &token).await.map_err(unavailable)?;
            Ok(found.map(|found| found.claim))
        })
    }

    fn open_claim(
        &self,
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened,
    ) -> StoreFuture<ClaimOutcome> {
        let (core, after) = (self.0.core.clone(), self.0.core.clone());
        let work = async move |client: &Client| {
            let Some(Found { number, claim, key }) = find(client, &core, &token).await? else {
                return Ok(ClaimOutcome::Unknown);
            };
            let (ClaimState::Open, Some(before)) = (claim.state, key) else {
                return Ok(ClaimOutcome::NotOpen(claim.state));
            };
            let (id, now) = (before.record.id.clone(), core.now());
            let update = "UPDATE claims SET opened_at = $2 WHERE number = $1";
            sql::execute(client, update, &[int(&number), int(&unix_millis(now))]).await?;
            let change = KeyChange::Rotate(Rotation { secret, grace: Duration::ZERO });
            apply(client, &id, &change, now).await?;
            let after = summary(client, &core, &KeyRef::new(id.as_str())).await?;
            let after = after.unwrap_or_else(|| before.clone());
            let note = AuditNote::claim_opened(&change, &before, &after);
            write_audit(client, now, &by, &[note]).await?;
            Ok(ClaimOutcome::Opened(after.into()))
        };
        self.write_then(work, move |outcome| {
            after.keys.forget();
            if let ClaimOutcome::Opened(key) = outcome {
                on_opened(key);
            }
        })
    }
}

/// Claim with its row number and its key.
struct Found {
    number: i64,
    claim: Claim,
    key: Option<KeySummary>,
}

async fn find(client: &Client, core: &Core, token: &ClaimToken) -> sql::Result<Option<Found>> {
    let query = "SELECT created_at, expires_at, opened_at, number, key_id, withdrawn FROM claims
        WHERE token_hash = $1";
    let row = sql::optional(client, query, &[text(&token.hash().to_hex())]).await?;
    let Some(row) = row else { return Ok(None) };
    let key = summary(client, core, &KeyRef::new(row.try_get::<_, &str>("key_id")?)).await?;
    let (claim, withdrawn) = (read(&row)?, row.try_get("withdrawn")?);
    let record = key.as_ref().map(|key| &key.record);
    let claim = Claim::new(&claim, claim.state(withdrawn, record, core.now()), record);
    Ok(Some(Found { number: row.try_get("number")?, claim, key }))
}

/// Reads the claim of a row with `created_at`, `expires_at` and `opened_at`.
fn read(row: &Row) -> sql::Result<ClaimSummary> {
    Ok(ClaimSummary {
        created_at: from_unix_millis(row.try_get("created_at")?),
        expires_at: from_unix_millis(row.try_get("expires_at")?),
        opened_at: row.try_get::<_, Option<i64>>("opened_at")?.map(from_unix_millis),
    })
}

/// Columns of the latest claim of the key `k`, unless it was withdrawn, and the join that they need.
pub(super) const LATEST_CLAIM: &str = "c.number AS claim_number, c.created_at AS claim_created_at,
    c.expires_at AS claim_expires_at, c.opened_at AS claim_opened_at";
pub(super) const JOIN_LATEST_CLAIM: &str = "LEFT JOIN LATERAL (
        SELECT number, created_at, expires_at, opened_at FROM claims
        WHERE key_id = k.id AND NOT withdrawn ORDER BY number DESC LIMIT 1
    ) c ON true";

/// Reads the columns of [`LATEST_CLAIM`].
pub(super) fn read_latest(row: &Row) -> sql::Result<Option<ClaimSummary>> {
    if row.try_get::<_, Option<i64>>("claim_number")?.is_none() {
        return Ok(None);
    }
    Ok(Some(ClaimSummary {
        created_at: from_unix_millis(row.try_get("claim_created_at")?),
        expires_at: from_unix_millis(row.try_get("claim_expires_at")?),
        opened_at: row.try_get::<_, Option<i64>>("claim_opened_at")?.map(from_unix_millis),
    }))
}
