//! Claims: links that hand out a key once.

use std::time::SystemTime;

use crate::{
    admin::store::{Actor, KeyChange, KeyRef, KeySummary},
    clock::rfc3339,
    key::{ClaimToken, KeyRecord, Limit, SecretKey},
    store::StoreFuture,
};

/// New claim for a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClaimOffer {
    /// Key that the claim hands out.
    pub key: KeyRef,
    /// Secret token of the claim link. Only its hash is stored.
    pub token: ClaimToken,
    /// Time from which the claim can no longer be opened.
    pub expires_at: SystemTime,
}

impl ClaimOffer {
    /// Creates a claim for a key.
    pub fn new(key: KeyRef, token: ClaimToken, expires_at: SystemTime) -> Self {
        Self { key, token, expires_at }
    }
}

/// Latest claim of a key, as shown to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimSummary {
    /// Time at which the claim was created.
    pub created_at: SystemTime,
    /// Time from which the claim can no longer be opened.
    pub expires_at: SystemTime,
    /// Time at which the claim was opened.
    pub opened_at: Option<SystemTime>,
}

/// Claim, as shown to the holder of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Whether the claim can be opened.
    pub state: ClaimState,
    /// Label of the key.
    pub label: String,
    /// The key with its secret part left out.
    pub masked: String,
    /// Maximum number of requests per day.
    pub daily_limit: Limit,
    /// Time from which the key is rejected.
    pub key_expires_at: Option<SystemTime>,
    /// Time from which the claim can no longer be opened.
    pub expires_at: SystemTime,
}

/// State of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimState {
    /// The claim can be opened.
    Open,
    /// The claim was opened at this time.
    Opened(SystemTime),
    /// The claim has expired.
    Expired,
    /// The claim was replaced by another one, or its key was deleted or rotated, or is or was
    /// disabled or expired.
    Withdrawn,
}

/// Outcome of opening a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimOutcome {
    /// The claim was opened. The key has its new secret, and the old secret is no longer valid.
    Opened(Box<KeySummary>),
    /// The claim cannot be opened in its present state.
    NotOpen(ClaimState),
    /// There is no claim with this token.
    Unknown,
}

/// Callback that receives the key of a claim once the claim is opened.
pub type OnOpened = Box<dyn FnOnce(&KeySummary) + Send>;

/// Looks up and opens claims. This is all that the claim service needs of a store.
pub trait ClaimStore: Send + Sync + 'static {
    /// Returns the claim with this token.
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>>;

    /// Opens the claim with this token, which gives its key this secret. Of several concurrent
    /// calls exactly one opens the claim.
    ///
    /// `on_opened` is called once the claim is opened, before the future is ready, and also if the
    /// future has been dropped.
    fn open_claim(
        &self,
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened,
    ) -> StoreFuture<ClaimOutcome>;
}

forward_to_arc!(ClaimStore {
    fn claim(token: ClaimToken) -> StoreFuture<Option<Claim>>;
    fn open_claim(
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened
    ) -> StoreFuture<ClaimOutcome>;
});

/// Whether a change withdraws the key's unopened claims, because the key gets another secret or is
/// not usable before or after the change.
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
    /// Returns the state of a claim for `key`, which is `None` if the key was deleted.
    pub(crate) fn of(
        claim: &ClaimSummary,
        withdrawn: bool,
        key: Option<&KeySummary>,
        now: SystemTime,
    ) -> Self {
        let is_usable = key.is_some_and(|key| key.record.is_usable(now));
        match claim.opened_at {
            Some(at) => Self::Opened(at),
            None if withdrawn || !is_usable => Self::Withdrawn,
            None if claim.expires_at <= now => Self::Expired,
            None => Self::Open,
        }
    }
}

impl Claim {
    /// Creates the holder's view of a claim for `key`, which is `None` if the key was deleted.
    pub(crate) fn of(state: ClaimState, claim: &ClaimSummary, key: Option<&KeySummary>) -> Self {
        let record = key.map(|key| &key.record);
        Self {
            state,
            label: record.map(|record| record.label.clone()).unwrap_or_default(),
            masked: record.map(|record| record.masked.clone()).unwrap_or_default(),
            daily_limit: record.map_or(Limit::Unlimited, |record| record.daily_limit),
            key_expires_at: record.and_then(|record| record.expires_at),
            expires_at: claim.expires_at,
        }
    }
}

/// Returns the audit details of a new claim.
pub(crate) fn offer_detail(offer: &ClaimOffer) -> String {
    serde_json::json!({"claim_expires_at": rfc3339(offer.expires_at)}).to_string()
}
