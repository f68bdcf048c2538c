//! What all clones of the service share, and what its options set.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    answers::Answers, attempts::Attempts, call::Call, client_addrs::ClientAddrs, facts::Facts,
    note_budget::NoteBudget, page::Page, rejections::RejectionLog, tokens::AdminTokens,
};
use crate::{
    error::{ProblemJson, Rejection},
    key::DailyLimit,
};

const DEFAULT_DAILY_LIMIT: u32 = 200;

#[derive(Clone)]
pub(super) struct Shared<S, R> {
    pub(super) store: S,
    pub(super) tokens: AdminTokens,
    pub(super) reject: R,
    pub(super) default_daily_limit: DailyLimit,
    pub(super) prefix: Arc<str>,
    pub(super) page: Page,
    pub(super) allow: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) answers: Arc<Answers>,
    /// Where claims are opened.
    pub(super) claim_url: Arc<str>,
    /// What clients are to ask; empty if it is `/v1` of the page's server.
    pub(super) base_url: Arc<str>,
    pub(super) facts: Facts,
    /// For how many days single requests are kept.
    pub(super) retention_days: u32,
    /// Rejected requests that the ledger does not hold.
    pub(super) rejections: RejectionLog,
    /// From how many addresses keys are used, if somebody counts.
    pub(super) client_addrs: Option<ClientAddrs>,
    /// Whether reads are noted in the audit trail, too.
    pub(super) audit_reads: bool,
    pub(super) notes: Arc<NoteBudget>,
    pub(super) refused_outside: Vec<Rejection>,
    pub(super) api: Arc<OnceLock<Api<Self>>>,
}

/// The calls, and the document that describes them.
pub(super) struct Api<T> {
    pub(super) calls: Vec<Call<T>>,
    pub(super) document: Bytes,
}

impl<S> Shared<S, ProblemJson> {
    pub(super) fn new(store: S, tokens: AdminTokens) -> Self {
        let default_daily_limit = DailyLimit::new(DEFAULT_DAILY_LIMIT);
        Self {
            store,
            tokens,
            reject: ProblemJson,
            default_daily_limit: default_daily_limit.unwrap_or(DailyLimit::UNLIMITED),
            page: Page::new("/admin", ""),
            prefix: "/admin".into(),
            allow: None,
            attempts: Arc::new(Attempts::new()),
            answers: Arc::default(),
            claim_url: "/claim".into(),
            base_url: "".into(),
            facts: Facts::new(),
            retention_days: 0,
            rejections: RejectionLog::new(),
            client_addrs: None,
            audit_reads: false,
            notes: Arc::new(NoteBudget::new()),
            refused_outside: Vec::new(),
            api: Arc::default(),
        }
    }
}

impl<S, R> Shared<S, R> {
    pub(super) fn with_reject<R2>(self, reject: R2) -> Shared<S, R2> {
        Shared {
            store: self.store,
            tokens: self.tokens,
            reject,
            default_daily_limit: self.default_daily_limit,
            prefix: self.prefix,
            page: self.page,
            allow: self.allow,
            attempts: self.attempts,
            answers: self.answers,
            claim_url: self.claim_url,
            base_url: self.base_url,
            facts: self.facts,
            retention_days: self.retention_days,
            rejections: self.rejections,
            client_addrs: self.client_addrs,
            audit_reads: self.audit_reads,
            notes: self.notes,
            refused_outside: self.refused_outside,
            api: Arc::default(),
        }
    }
}
