//! Claims of keys.

use std::time::Duration;

use super::super::{Inner, MemoryStore, keys::KeyTable, lock};
use crate::{
    admin::store::{
        Actor, AuditNote, Claim, ClaimOffer, ClaimOutcome, ClaimState, ClaimStore, ClaimSummary,
        KeyChange, KeyRef, KeySummary, OnOpened, Rotation,
    },
    key::{ClaimToken, KeyHash, KeyId, SecretKey},
    store::StoreFuture,
};

pub(super) struct ClaimRow {
    token: KeyHash,
    key_id: KeyId,
    claim: ClaimSummary,
    withdrawn: bool,
}

impl Inner {
    pub(super) fn latest_claim(&self, id: &KeyId) -> Option<ClaimSummary> {
        let claims = lock(&self.admin.claims);
        let latest = claims.iter().rev().find(|row| row.key_id == *id && !row.withdrawn);
        latest.map(|row| row.claim)
    }

    pub(super) fn withdraw_claims(&self, id: &KeyId) {
        let mut claims = lock(&self.admin.claims);
        let unopened =
            claims.iter_mut().filter(|row| row.key_id == *id && row.claim.opened_at.is_none());
        unopened.for_each(|row| row.withdrawn = true);
    }

    pub(super) fn offer_claim(&self, offer: ClaimOffer, by: &Actor) -> Option<KeySummary> {
        let keys = lock(&self.keys);
        let row = keys.get(&offer.key)?;
        let (id, created_at) = (row.record.id.clone(), self.clock.now());
        self.withdraw_claims(&id);
        let claim = ClaimSummary::new(created_at, offer.expires_at);
        let (token, key_id) = (offer.token.hash(), row.record.id.clone());
        lock(&self.admin.claims).push(ClaimRow { token, key_id, claim, withdrawn: false });
        self.write_audit(AuditNote::claim_offered(&id, &offer), by);
        Some(self.summary(row))
    }

    /// Returns the claim with this token and its key.
    fn find_claim(
        &self,
        keys: &KeyTable,
        token: &ClaimToken,
    ) -> Option<(Claim, Option<KeySummary>)> {
        let hash = token.hash();
        let claims = lock(&self.admin.claims);
        let row = claims.iter().find(|row| row.token == hash)?;
        let (claim, withdrawn) = (row.claim, row.withdrawn);
        let by_id = KeyRef::new(row.key_id.as_str());
        drop(claims);
        let key = keys.get(&by_id).map(|row| self.summary(row));
        let record = key.as_ref().map(|key| &key.record);
        let state = claim.state(withdrawn, record, self.clock.now());
        Some((Claim::new(&claim, state, record), key))
    }

    fn open_claim(&self, token: &ClaimToken, secret: SecretKey, by: &Actor) -> ClaimOutcome {
        let mut keys = lock(&self.keys);
        let Some((claim, key)) = self.find_claim(&keys, token) else {
            return ClaimOutcome::Unknown;
        };
        let (ClaimState::Open, Some(before)) = (claim.state, key) else {
            return ClaimOutcome::NotOpen(claim.state);
        };
        let (hash, now) = (token.hash(), self.clock.now());
        if let Some(row) = lock(&self.admin.claims).iter_mut().find(|row| row.token == hash) {
            row.claim.opened_at = Some(now);
        }
        let id = before.record.id.clone();
        let by_id = KeyRef::new(id.as_str());
        let change = KeyChange::Rotate(Rotation { secret, grace: Duration::ZERO });
        self.apply(&mut keys, &by_id, &id, &change);
        let after = keys.get(&by_id).map_or(before.clone(), |row| self.summary(row));
        self.write_audit(AuditNote::claim_opened(&change, &before, &after), by);
        ClaimOutcome::Opened(after.into())
    }
}

impl ClaimStore for MemoryStore {
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>> {
        let keys = lock(&self.0.keys);
        StoreFuture::ready(Ok(self.0.find_claim(&keys, &token).map(|(claim, _)| claim)))
    }

    fn open_claim(
        &self,
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened,
    ) -> StoreFuture<ClaimOutcome> {
        let outcome = self.0.open_claim(&token, secret, &by);
        if let ClaimOutcome::Opened(key) = &outcome {
            on_opened(key);
        }
        StoreFuture::ready(Ok(outcome))
    }
}
