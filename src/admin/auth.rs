use std::{net::IpAddr, time::Instant};

use http::{Method, request::Parts};

use super::{call::Call, query::decode, refusal::Refusal, shared::Shared, tokens};
use crate::store::{Actor, AdminStore, AuditNote, KeyRef};

/// In a request's extensions: the address that the client is known by. Put there by whoever
/// accepts connections, as only they know which forwarding headers to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

impl<S: AdminStore, R> Shared<S, R> {
    /// Whether the address may talk to this service at all.
    pub(super) fn check_address(&self, ip: Option<IpAddr>) -> Result<(), Refusal> {
        match &self.allow {
            Some(allow) if !ip.is_some_and(|ip| allow(ip)) => Err(Refusal::address_not_allowed()),
            _ => Ok(()),
        }
    }

    /// Notes that an attempt was refused, as far as the budget goes.
    pub(super) async fn note_refused(&self, code: &'static str, ip: Option<IpAddr>) {
        if !self.notes.spend(Instant::now()) {
            return;
        }
        tracing::warn!(?ip, code, "an admin call was refused");
        let detail = format!(r#"{{"code":"{code}"}}"#);
        let note = AuditNote { detail, ..AuditNote::new("admin.refused") };
        let by = Actor { token_id: String::new(), ip };
        if let Err(error) = self.store.note(note, by).await {
            tracing::warn!(%error, "a refused admin call could not be noted");
        }
    }

    /// Who asks, or the refusal, which is noted.
    ///
    /// A right token is looked for before attempts are counted, so nobody can lock its holder out.
    /// The look costs a microsecond; what keeps a token safe is its length, not how few are tried.
    pub(super) async fn authenticate(
        &self,
        head: &Parts,
        ip: Option<IpAddr>,
    ) -> Result<Actor, Refusal> {
        if let Some(token_id) = self.tokens.verify(&head.headers) {
            return Ok(Actor { token_id, ip });
        }
        let refusal = match tokens::presented(&head.headers) {
            None => Refusal::no_token(),
            Some(_) => Refusal::wrong_token(),
        };
        self.count_attempt(refusal.code(), ip).await?;
        Err(refusal)
    }

    /// Counts and notes an attempt without a right token.
    pub(super) async fn count_attempt(
        &self,
        code: &'static str,
        ip: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        self.attempts.count(ip, self.store.now()).map_err(Refusal::too_many_attempts)?;
        self.note_refused(code, ip).await;
        Ok(())
    }

    /// Notes who looks at what, if that is wanted. What cannot be noted is not shown, unless it is how
    /// the store is.
    pub(super) async fn note_read(
        &self,
        call: &Call<Self>,
        key: Option<&str>,
        by: &Actor,
    ) -> Result<(), Refusal> {
        if !self.audit_reads || call.method != Method::GET || call.is_open {
            return Ok(());
        }
        let noted = async {
            let key = key.and_then(|key| decode(key, false)).map(KeyRef::new);
            let key_id = match key {
                Some(key) => self.store.get(key).await?.map(|found| found.record.id),
                None => None,
            };
            let detail = format!(r#"{{"call":"{}"}}"#, call.id);
            self.store
                .note(AuditNote { key_id, detail, ..AuditNote::new("admin.read") }, by.clone())
                .await
        };
        match noted.await {
            Err(error) if !call.outlives_store => Err(error.into()),
            _ => Ok(()),
        }
    }
}
