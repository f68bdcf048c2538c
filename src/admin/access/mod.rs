//! Access to the admin API: addresses, tokens, and limits on attempts.

pub(crate) mod attempts;
pub(crate) mod tokens;

use std::net::IpAddr;

use http::request::Parts;

use crate::{
    admin::{
        http::{call::Call, error::AdminError, query::decode},
        shared::Shared,
        store::{Actor, AdminStore, AuditNote, KeyRef, action},
    },
    error::catalog,
};

impl<S: AdminStore> Shared<S> {
    /// Checks the address against the allow list.
    pub(crate) fn check_address(&self, ip: Option<IpAddr>) -> Result<(), AdminError> {
        match &self.allow {
            Some(allow) if !ip.is_some_and(|ip| allow(ip)) => {
                Err(catalog::ADDRESS_NOT_ALLOWED.into())
            }
            _ => Ok(()),
        }
    }

    /// Writes a rejected attempt to the audit trail, within the budget.
    pub(crate) async fn audit_rejection(&self, code: &'static str, ip: Option<IpAddr>) {
        if !self.audit_budget.admit(&()) {
            return;
        }
        tracing::warn!(?ip, code, "admin access denied: rejecting the call");
        let detail = format!(r#"{{"code":"{code}"}}"#);
        let note = AuditNote { detail, ..AuditNote::new(action::ADMIN_REJECTED) };
        let by = Actor { token_id: String::new(), ip };
        if let Err(error) = self.store.note(note, by).await {
            tracing::warn!(%error, "audit of a rejected admin call failed: its entry is missing");
        }
    }

    /// Identifies the caller by its token. A failed attempt goes into the audit trail.
    ///
    /// A valid token is accepted before attempts are counted, so that no other client of the same
    /// source can lock its holder out. The comparison costs a microsecond, and the length of tokens
    /// makes guessing hopeless at any rate.
    pub(crate) async fn authenticate(
        &self,
        head: &Parts,
        ip: Option<IpAddr>,
    ) -> Result<Actor, AdminError> {
        if let Some(token_id) = self.tokens.verify(&head.headers) {
            return Ok(Actor { token_id, ip });
        }
        let error = match tokens::presented(&head.headers) {
            None => AdminError::missing_token(),
            Some(_) => AdminError::invalid_token(),
        };
        self.count_attempt(error.code(), ip).await?;
        Err(error)
    }

    /// Counts an attempt without a valid token, and writes it to the audit trail.
    pub(crate) async fn count_attempt(
        &self,
        code: &'static str,
        ip: Option<IpAddr>,
    ) -> Result<(), AdminError> {
        self.attempts.count(ip, self.store.now()).map_err(AdminError::too_many_attempts)?;
        self.audit_rejection(code, ip).await;
        Ok(())
    }

    /// Writes a read to the audit trail, if reads are audited. A read that cannot be audited fails,
    /// except for calls that work without the store.
    pub(crate) async fn audit_read(
        &self,
        call: &Call<Self>,
        key: Option<&str>,
        by: &Actor,
    ) -> Result<(), AdminError> {
        if !self.audit_reads || call.method != "GET" || call.is_public {
            return Ok(());
        }
        let audit = async {
            let key = key.and_then(|key| decode(key, false)).map(KeyRef::new);
            let key_id = match key {
                Some(key) => self.store.get(key).await?.map(|summary| summary.record.id),
                None => None,
            };
            let detail = format!(r#"{{"call":"{}"}}"#, call.id);
            self.store
                .note(
                    AuditNote { key_id, detail, ..AuditNote::new(action::ADMIN_READ) },
                    by.clone(),
                )
                .await
        };
        match audit.await {
            Err(error) if !call.works_without_store => Err(error.into()),
            _ => Ok(()),
        }
    }
}
