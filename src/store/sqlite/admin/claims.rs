//! The table `claims`.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    super::{SqliteStore, core::Core, keys::withdraw_claims, unavailable},
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

impl SqliteStore {
    pub(crate) fn offer(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        let core = self.0.core.clone();
        let work = move |connection: &Connection| {
            let Some(key) = summary(connection, &core, &offer.key)? else { return Ok(None) };
            let (id, now) = (key.record.id, core.now());
            withdraw_claims(connection, &id)?;
            connection
                .prepare_cached(
                    "INSERT INTO claims (token_hash, key_id, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    offer.token.hash().to_hex(),
                    id.as_str(),
                    unix_millis(now),
                    unix_millis(offer.expires_at),
                ])?;
            write_audit(connection, now, &by, &AuditNote::claim_offered(&id, &offer))?;
            summary(connection, &core, &KeyRef::new(id.as_str()))
        };
        self.0.core.queue.call(work, |_| ())
    }
}

impl ClaimStore for SqliteStore {
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            let core = store.0.core.clone();
            let query =
                move |connection: &Connection| find(connection, &core, &token).map_err(unavailable);
            Ok(store.read_of_key(query).await?.map(|found| found.claim))
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
        let work = move |connection: &Connection| {
            let Some(Found { number, claim, key }) = find(connection, &core, &token)? else {
                return Ok(ClaimOutcome::Unknown);
            };
            let (ClaimState::Open, Some(before)) = (claim.state, key) else {
                return Ok(ClaimOutcome::NotOpen(claim.state));
            };
            let (id, now) = (before.record.id.clone(), core.now());
            connection
                .prepare_cached("UPDATE claims SET opened_at = ?2 WHERE number = ?1")?
                .execute(params![number, unix_millis(now)])?;
            let change = KeyChange::Rotate(Rotation { secret, grace: std::time::Duration::ZERO });
            apply(connection, &id, &change, now)?;
            let after =
                summary(connection, &core, &KeyRef::new(id.as_str()))?.unwrap_or(before.clone());
            write_audit(connection, now, &by, &AuditNote::claim_opened(&change, &before, &after))?;
            Ok(ClaimOutcome::Opened(after.into()))
        };
        self.0.core.queue.call(work, move |outcome| {
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

fn find(
    connection: &Connection,
    core: &Core,
    token: &ClaimToken,
) -> rusqlite::Result<Option<Found>> {
    let row = connection
        .prepare_cached(
            "SELECT created_at, expires_at, opened_at, number, key_id, withdrawn FROM claims
             WHERE token_hash = ?1",
        )?
        .query_row([token.hash().to_hex()], |row| {
            let (number, id, withdrawn) = (row.get(3)?, row.get::<_, String>(4)?, row.get(5)?);
            Ok((read_row(row)?, number, id, withdrawn))
        })
        .optional()?;
    let Some((claim, number, id, withdrawn)) = row else { return Ok(None) };
    let key = summary(connection, core, &KeyRef::new(id))?;
    let record = key.as_ref().map(|key| &key.record);
    let claim = Claim::new(&claim, claim.state(withdrawn, record, core.now()), record);
    Ok(Some(Found { number, claim, key }))
}

/// Column with the number of the latest claim of the key `k`, unless it was withdrawn.
pub(crate) const LATEST_CLAIM: &str = "
    (SELECT number FROM claims c WHERE c.key_id = k.id AND NOT c.withdrawn
     ORDER BY number DESC LIMIT 1)";

/// Reads the claim with this number.
pub(crate) fn read(connection: &Connection, number: i64) -> rusqlite::Result<ClaimSummary> {
    connection
        .prepare_cached("SELECT created_at, expires_at, opened_at FROM claims WHERE number = ?1")?
        .query_row([number], read_row)
}

/// Reads the claim of a row that starts with `created_at`, `expires_at` and `opened_at`.
fn read_row(row: &Row<'_>) -> rusqlite::Result<ClaimSummary> {
    Ok(ClaimSummary {
        created_at: from_unix_millis(row.get(0)?),
        expires_at: from_unix_millis(row.get(1)?),
        opened_at: row.get::<_, Option<i64>>(2)?.map(from_unix_millis),
    })
}
