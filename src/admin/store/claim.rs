//! Claims: links that hand out a key once.

use std::time::SystemTime;

use crate::{
    admin::store::{Actor, KeyRef, KeySummary},
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

impl ClaimSummary {
    /// Creates a claim that was not opened yet.
    pub fn new(created_at: SystemTime, expires_at: SystemTime) -> Self {
        Self { created_at, expires_at, opened_at: None }
    }

    /// Returns the state of the claim. `key` is the record of its key, or `None` if the key was deleted.
    pub fn state(&self, withdrawn: bool, key: Option<&KeyRecord>, now: SystemTime) -> ClaimState {
        let is_usable = key.is_some_and(|key| key.is_usable(now));
        match self.opened_at {
            Some(at) => ClaimState::Opened(at),
            None if withdrawn || !is_usable => ClaimState::Withdrawn,
            None if self.expires_at <= now => ClaimState::Expired,
            None => ClaimState::Open,
        }
    }
}

impl Claim {
    /// Creates the holder's view of a claim in this state. `key` is the record of its key, or `None` if the
    /// key was deleted.
    pub fn new(claim: &ClaimSummary, state: ClaimState, key: Option<&KeyRecord>) -> Self {
        Self {
            state,
            label: key.map(|key| key.label.clone()).unwrap_or_default(),
            masked: key.map(|key| key.masked.clone()).unwrap_or_default(),
            daily_limit: key.map_or(Limit::Unlimited, |key| key.daily_limit),
            key_expires_at: key.and_then(|key| key.expires_at),
            expires_at: claim.expires_at,
        }
    }
}
