//! What the layers and services know of one request: its [`RequestContext`].
//!
//! The layers never call each other. Whichever layer comes first puts the context into the request's
//! `http::Extensions`; all that see the request share it, whatever their order. So a layer outside
//! of auth knows the key when the response comes back, and the usage recorder knows what the quota
//! has charged.
//!
//! A service of your own reads it, or writes what it knows better:
//!
//! ```
//! use std::sync::Arc;
//! use http::Request;
//! use tower_quota::{
//!     key::{Limit, KeyId, KeyRecord},
//!     request::RequestContext,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut request = Request::get("/").body(())?;
//!
//! // In place of `TrialKeyAuthLayer`: the layers inside count on this key.
//! let tenant = KeyRecord::new(KeyId::from("acme"), Limit::Units(1000));
//! RequestContext::of(request.extensions_mut()).set_key(Arc::new(tenant));
//!
//! // In the handler.
//! let key = request.extensions().get::<RequestContext>().and_then(RequestContext::key);
//! assert_eq!(key.map(|key| key.id.clone()), Some(KeyId::from("acme")));
//! # Ok(())
//! # }
//! ```

mod quotas;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use http::Extensions;
#[cfg(feature = "proxy")]
use http::uri::PathAndQuery;

use self::quotas::Quotas;
#[cfg(feature = "quota")]
pub(crate) use self::quotas::{QuotaEntry, Visibility};
#[cfg(feature = "quota")]
use crate::store::QuotaSubject;
use crate::{
    clock::Clock,
    key::{KeyId, KeyRecord},
    store::{Admission, QuotaStatus, UsageEvent},
};

/// Facts about one request, in its extensions. Clones share them.
#[derive(Clone, Default)]
pub struct RequestContext(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    received_at: Option<SystemTime>,
    request_id: Option<Arc<str>>,
    client_addr: Option<IpAddr>,
    trusted_peer: Option<IpAddr>,
    #[cfg(feature = "proxy")]
    validated_target: Option<PathAndQuery>,
    key: Option<Arc<KeyRecord>>,
    key_id: Option<KeyId>,
    subject: Option<KeyId>,
    quotas: Quotas,
    is_abandoned: bool,
    listeners: Vec<Listener>,
}

/// Called once with the event of the request.
pub(crate) type Listener = Box<dyn FnOnce(&UsageEvent) + Send + Sync>;

impl RequestContext {
    /// Returns the context of the request with these extensions, and puts one in if there is none.
    pub fn of(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time at which the request was received, if a layer has needed it yet.
    pub fn received_at(&self) -> Option<SystemTime> {
        self.facts().received_at
    }

    /// Sets the time at which the request was received. Expiry, day, headers and usage event are
    /// determined by it.
    pub fn set_received_at(&self, at: SystemTime) {
        self.facts().received_at = Some(at);
    }

    /// Returns the time at which the request was received, which is now if no layer has needed it yet.
    pub fn received_at_by(&self, clock: &dyn Clock) -> SystemTime {
        *self.facts().received_at.get_or_insert_with(|| clock.now())
    }

    /// Returns the id by which the client knows the request: its `x-request-id`.
    pub fn request_id(&self) -> Option<Arc<str>> {
        self.facts().request_id.clone()
    }

    /// Sets the request's id, if `id` is 1 to 128 visible ASCII characters.
    pub fn set_request_id(&self, id: &str) {
        let is_valid =
            (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        let known = &mut self.facts().request_id;
        if is_valid && known.as_deref() != Some(id) {
            *known = Some(id.into());
        }
    }

    /// Returns the address of the client.
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.facts().client_addr
    }

    /// Sets the address of the client. Only the server that accepts connections knows it, as only the
    /// server knows which forwarding headers to trust.
    pub fn set_client_addr(&self, addr: IpAddr) {
        self.facts().client_addr = Some(addr);
    }

    /// Returns the address of the peer, if that is a trusted proxy.
    pub fn trusted_peer(&self) -> Option<IpAddr> {
        self.facts().trusted_peer
    }

    /// Declares that the request comes from a trusted proxy with this address. `UpstreamProxyService`
    /// then keeps the forwarding headers and adds the address to `X-Forwarded-For`; it drops them
    /// otherwise.
    pub fn set_trusted_peer(&self, addr: IpAddr) {
        self.facts().trusted_peer = Some(addr);
    }

    /// Takes the request target that `RequestTarget` has validated. It is a part of the buffer into which the
    /// request was read, which is not kept for as long as the context is.
    #[cfg(feature = "proxy")]
    pub(crate) fn take_validated_target(&self) -> Option<PathAndQuery> {
        self.facts().validated_target.take()
    }

    #[cfg(feature = "proxy")]
    pub(crate) fn set_validated_target(&self, target: PathAndQuery) {
        self.facts().validated_target = Some(target);
    }

    /// Returns the record of the key with which the request was admitted.
    pub fn key(&self) -> Option<Arc<KeyRecord>> {
        self.facts().key.clone()
    }

    /// Sets the record of the key with which the request is admitted.
    pub fn set_key(&self, key: Arc<KeyRecord>) {
        let mut facts = self.facts();
        facts.key_id = Some(key.id.clone());
        facts.key = Some(key);
    }

    /// Returns the id of the request's key, also of a disabled or expired one.
    pub fn key_id(&self) -> Option<KeyId> {
        self.facts().key_id.clone()
    }

    /// Returns the subject that the request's key is.
    #[cfg(feature = "quota")]
    pub(crate) fn key_subject(&self) -> Option<QuotaSubject> {
        self.facts().key.as_deref().map(QuotaSubject::from)
    }

    /// Sets the id of a key with which the request is not admitted.
    pub fn set_key_id(&self, id: KeyId) {
        self.facts().key_id = Some(id);
    }

    /// Returns the id of the subject on whose quota the request counts; of several quotas, that of the
    /// outermost one. Without a key, the request's event has this id.
    pub fn subject(&self) -> Option<KeyId> {
        self.facts().subject.clone()
    }

    /// Notes the subject of a quota.
    #[cfg(feature = "quota")]
    pub(crate) fn note_subject(&self, id: &KeyId) {
        self.facts().subject.get_or_insert_with(|| id.clone());
    }

    /// Returns the status of the most constrained of the request's quotas, after this request's
    /// reservation. Those that reject nothing have no part in it.
    pub fn quota_status(&self) -> Option<QuotaStatus> {
        self.facts().quotas.most_constrained()
    }

    /// Returns the status of each of the request's quotas, the outermost first, after this request's
    /// reservation.
    pub fn quota_statuses(&self) -> Vec<QuotaStatus> {
        self.facts().quotas.statuses()
    }

    /// Returns the number of units charged for the request, without refunded ones; of several quotas, those
    /// of the outermost one that rejects requests, if there is one.
    pub fn units(&self) -> u32 {
        self.facts().quotas.units()
    }

    /// Returns whether the request was refunded.
    pub fn is_refunded(&self) -> bool {
        self.facts().quotas.is_refunded()
    }

    /// Returns the time at which the request was received, and its entry in a quota store's ledger.
    #[cfg(feature = "quota")]
    pub(crate) fn start_reservation(&self, clock: &dyn Clock) -> (SystemTime, Option<Admission>) {
        let facts = &mut *self.facts();
        let at = *facts.received_at.get_or_insert_with(|| clock.now());
        (at, facts.quotas.admission().cloned())
    }

    /// Notes that units of a quota were reserved, and returns the index of the quota's entry.
    #[cfg(feature = "quota")]
    #[inline]
    pub(crate) fn note_reserved(&self, entry: QuotaEntry) -> usize {
        let quotas = &mut self.facts().quotas;
        quotas.is_exhausted = false;
        quotas.push(entry)
    }

    /// Notes that a quota is exhausted.
    #[cfg(feature = "quota")]
    pub(crate) fn note_exhausted(&self, entry: QuotaEntry) {
        let quotas = &mut self.facts().quotas;
        quotas.is_exhausted = true;
        quotas.push(entry);
    }

    /// Returns whether the quota that has seen the request last was exhausted.
    #[cfg(feature = "quota")]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.facts().quotas.is_exhausted
    }

    /// Calls `change` with what is known of the request's quotas.
    #[cfg(feature = "quota")]
    pub(crate) fn quotas<T>(&self, change: impl FnOnce(&mut Quotas) -> T) -> T {
        change(&mut self.facts().quotas)
    }

    /// Returns the entry of the request in its quota store's ledger, if the store keeps one.
    pub fn admission(&self) -> Option<Admission> {
        self.facts().quotas.admission().cloned()
    }

    /// Returns whether the client has disconnected while the response is still being read.
    pub fn is_abandoned(&self) -> bool {
        self.facts().is_abandoned
    }

    /// Notes that the client has disconnected, although the response is read to its end.
    pub fn set_abandoned(&self) {
        self.facts().is_abandoned = true;
    }

    /// Calls `listener` once with the request's event, from the outermost usage recorder. It must not
    /// block, and must not hold the context, which holds the listener.
    pub fn on_event(&self, listener: impl FnOnce(&UsageEvent) + Send + Sync + 'static) {
        self.facts().listeners.push(Box::new(listener));
    }

    /// Takes the listeners out, so that only the first caller calls them.
    #[cfg(feature = "usage")]
    pub(crate) fn take_listeners(&self) -> Vec<Listener> {
        std::mem::take(&mut self.facts().listeners)
    }
}

/// Shows no address and nothing of the key but its id.
impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts();
        f.debug_struct("RequestContext")
            .field("received_at", &facts.received_at)
            .field("request_id", &facts.request_id)
            .field("key_id", &facts.key_id)
            .field("quota_statuses", &facts.quotas.statuses())
            .field("units", &facts.quotas.units())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Limit;

    fn record() -> Arc<KeyRecord> {
        let mut record = KeyRecord::new(KeyId::from("alice"), Limit::Unlimited);
        record.label = "alice@example.com".into();
        Arc::new(record)
    }

    #[test]
    fn all_who_see_the_request_share_one_context() {
        let mut extensions = Extensions::new();
        let outer = RequestContext::of(&mut extensions);
        RequestContext::of(&mut extensions).set_key(record());
        assert_eq!(outer.key(), Some(record()));
        assert_eq!(outer.key_id(), Some(KeyId::from("alice")));
    }

    #[test]
    fn a_rejected_key_is_known_by_its_id_only() {
        let context = RequestContext::default();
        context.set_key_id(KeyId::from("alice"));
        assert_eq!((context.key(), context.key_id()), (None, Some(KeyId::from("alice"))));
    }

    #[test]
    fn an_id_that_is_no_header_value_is_ignored() {
        let context = RequestContext::default();
        context.set_request_id("request-1");
        for id in ["", "with space", "with\nline", &"x".repeat(129)] {
            context.set_request_id(id);
        }
        assert_eq!(context.request_id().as_deref(), Some("request-1"));
    }

    #[test]
    fn debug_shows_no_address_and_no_label() {
        let context = RequestContext::default();
        context.set_client_addr([192, 0, 2, 1].into());
        context.set_trusted_peer([192, 0, 2, 2].into());
        context.set_key(record());
        let text = format!("{context:?}");
        assert!(text.contains("alice") && !text.contains("example.com"), "{text}");
        assert!(!text.contains("192.0.2"), "{text}");
    }
}
