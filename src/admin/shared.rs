//! State and options that all clones of the service share.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    admin::{
        access::{attempts::Attempts, tokens::AdminTokens},
        client_addrs::ClientAddrs,
        http::{call::Call, replay::ReplayCache},
        page::AdminPage,
        rejections::RejectionLog,
    },
    clock::Calendar,
    error::{ProblemJson, Reject, Rejection},
    key::{DefaultLimits, Limit},
    limit::Gcra,
};

const DEFAULT_DAILY_LIMIT: Limit = Limit::Units(200);
/// Maximum number of rejected attempts that are audited in a burst, over all sources.
const AUDIT_BURST: u64 = 100;
/// Time after which one more rejected attempt is audited.
const AUDIT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Shared<S> {
    pub(crate) store: S,
    pub(crate) tokens: AdminTokens,
    pub(crate) reject: Arc<dyn Reject>,
    pub(crate) default_limits: DefaultLimits,
    pub(crate) prefix: Arc<str>,
    pub(crate) page: AdminPage,
    pub(crate) allow: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) replays: Arc<ReplayCache>,
    /// URL or path of the claim service.
    pub(crate) claim_url: Arc<str>,
    /// Base URL for clients; empty for `/v1` of the page's server.
    pub(crate) base_url: Arc<str>,
    pub(crate) process: ProcessInfo,
    /// Number of days for which single requests are kept.
    pub(crate) retention_days: u32,
    /// Rejected requests that the usage ledger does not hold.
    pub(crate) rejections: RejectionLog,
    /// Number of client addresses per key, if they are recorded.
    pub(crate) client_addrs: Option<ClientAddrs>,
    /// Whether reads are audited, too.
    pub(crate) audit_reads: bool,
    pub(crate) audit_budget: Arc<Gcra>,
    /// Rejections by layers around the service, for the OpenAPI document.
    pub(crate) outer_rejections: Vec<Rejection>,
    pub(crate) api: Arc<OnceLock<Api<Self>>>,
}

/// The calls and the OpenAPI document that describes them.
pub(crate) struct Api<T> {
    pub(crate) calls: Vec<Call<T>>,
    pub(crate) document: Bytes,
}

impl<S> Shared<S> {
    pub(crate) fn new(store: S, tokens: AdminTokens) -> Self {
        Self {
            store,
            tokens,
            reject: Arc::new(ProblemJson),
            default_limits: DefaultLimits::daily(DEFAULT_DAILY_LIMIT),
            page: AdminPage::new("/admin", ""),
            prefix: "/admin".into(),
            allow: None,
            attempts: Arc::new(Attempts::new()),
            replays: Arc::default(),
            claim_url: "/claim".into(),
            base_url: "".into(),
            process: ProcessInfo::new(),
            retention_days: 0,
            rejections: RejectionLog::new(),
            client_addrs: None,
            audit_reads: false,
            audit_budget: Arc::new(Gcra::new(1, AUDIT_BURST, AUDIT_INTERVAL)),
            outer_rejections: Vec::new(),
            api: Arc::default(),
        }
    }
}

/// The process as `GET /status` shows it.
#[derive(Clone, Debug)]
pub(crate) struct ProcessInfo {
    pub(crate) started_at: SystemTime,
    pub(crate) calendar: Calendar,
    /// Names and values; a secret's value is masked, `None` means not set.
    pub(crate) settings: Vec<(String, Option<String>)>,
}

impl ProcessInfo {
    pub(crate) fn new() -> Self {
        let (started_at, calendar) = (SystemTime::now(), Calendar::utc());
        Self { started_at, calendar, settings: Vec::new() }
    }
}
