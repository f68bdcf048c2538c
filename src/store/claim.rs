//! Links by which somebody gets a key, once.

use std::{sync::Arc, time::SystemTime};

use super::{Actor, KeyChange, KeyRef, KeySummary, StoreFuture};
use crate::{
    clock::rfc3339,
    key::{ClaimToken, DailyLimit, KeyRecord, SecretKey},
};

/// A claim that is made for a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClaimOffer {
    /// Whose key it gives.
    pub key: KeyRef,
    /// What its link holds; only the hash is stored.
    pub token: ClaimToken,
    /// Until when it can be opened.
    pub expires_at: SystemTime,
}

impl ClaimOffer {
    /// A claim to this key.
    pub fn new(key: KeyRef, token: ClaimToken, expires_at: SystemTime) -> Self {
        Self { key, token, expires_at }
    }
}

/// A key's latest claim, as its operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimSummary {
    /// When it was made.
    pub created_at: SystemTime,
    /// Until when it can be opened.
    pub expires_at: SystemTime,
    /// When it was opened.
    pub opened_at: Option<SystemTime>,
}

/// A claim, as whoever has its link sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Whether it can be opened.
    pub state: ClaimState,
    /// What the key is called.
    pub label: String,
    /// The key, masked.
    pub masked: String,
    /// The key's requests a day.
    pub daily_limit: DailyLimit,
    /// From when on the key is refused.
    pub key_expires_at: Option<SystemTime>,
    /// Until when the claim can be opened.
    pub expires_at: SystemTime,
}

/// Whether a claim can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimState {
    /// It can.
    Open,
    /// It was, at this time.
    Opened(SystemTime),
    /// Its time is over.
    Expired,
    /// Another has taken its place, or its key is gone, is or was switched off or expired, or has got
    /// another secret.
    Withdrawn,
}

/// What came of opening a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimOutcome {
    /// It is opened: the key has its new secret, and the old one has stopped.
    Opened(Box<KeySummary>),
    /// It could not be.
    NotOpen(ClaimState),
    /// There is no such claim.
    Unknown,
}

/// Is told of the key that a claim has given, also if nobody waits for that any more.
pub type OnOpened = Box<dyn FnOnce(&KeySummary) + Send>;

/// Opens claims. It is all that the service for whoever has a link needs of a store.
pub trait ClaimStore: Send + Sync + 'static {
    /// The claim of this token.
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>>;

    /// Opens the claim of this token: gives its key this secret, once. Of several that open it at the
    /// same time one does. When it is opened `on_opened` is told, before the future is ready and
    /// whether or not anybody still waits for it.
    fn open_claim(
        &self,
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened,
    ) -> StoreFuture<ClaimOutcome>;
}

impl<T: ClaimStore + ?Sized> ClaimStore for Arc<T> {
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>> {
        (**self).claim(token)
    }

    fn open_claim(
        &self,
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened,
    ) -> StoreFuture<ClaimOutcome> {
        (**self).open_claim(token, secret, by, on_opened)
    }
}

/// What the audit trail calls it.
pub(crate) const OFFERED: &str = "key.claim.offer";
/// What the audit trail calls it.
pub(crate) const OPENED: &str = "key.claim.open";

/// Whether a change withdraws the key's claims that were not opened: the key gets another secret, or
/// does not work before or after it.
pub(crate) fn withdraws_claims(
    change: &KeyChange,
    before: &KeyRecord,
    after: &KeyRecord,
    now: SystemTime,
) -> bool {
    match change {
        KeyChange::Rotate(_) | KeyChange::Delete => true,
        KeyChange::Update(_) => !before.is_usable(now) || !after.is_usable(now),
        KeyChange::ResetUsage => false,
    }
}

impl ClaimState {
    /// The state of a claim of this key.
    pub(crate) fn of(
        claim: &ClaimSummary,
        withdrawn: bool,
        key: Option<&KeySummary>,
        now: SystemTime,
    ) -> Self {
        let works = key.is_some_and(|key| key.record.is_usable(now));
        match claim.opened_at {
            Some(at) => Self::Opened(at),
            None if withdrawn || !works => Self::Withdrawn,
            None if claim.expires_at <= now => Self::Expired,
            None => Self::Open,
        }
    }
}

impl Claim {
    /// The claim to this key; to none if that is gone.
    pub(crate) fn of(state: ClaimState, claim: &ClaimSummary, key: Option<&KeySummary>) -> Self {
        let record = key.map(|key| &key.record);
        Self {
            state,
            label: record.map(|record| record.label.clone()).unwrap_or_default(),
            masked: record.map(|record| record.masked.clone()).unwrap_or_default(),
            daily_limit: record.map_or(DailyLimit::UNLIMITED, |record| record.daily_limit),
            key_expires_at: record.and_then(|record| record.expires_at),
            expires_at: claim.expires_at,
        }
    }
}

/// What the audit trail says of a claim that was made.
pub(crate) fn offer_detail(offer: &ClaimOffer) -> String {
    serde_json::json!({"claim_expires_at": rfc3339(offer.expires_at)}).to_string()
}
