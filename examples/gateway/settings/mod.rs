//! Settings: flags, environment and `.env`, checked here so that a bad value stops the start with
//! one line that names the variable and what it takes.

mod arguments;
mod env_file;
mod setting;
mod shown;
mod values;

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use http::{HeaderValue, StatusCode};
use hyper_util::client::proxy::matcher::Intercept;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tower_http::cors::AllowOrigin;
use tower_quota::{
    admin::AdminTokens, clock::Calendar, key::DailyLimit, proxy::UpstreamBase,
    store::sqlite::Durability, usage::DrainLayer,
};
use tracing_subscriber::EnvFilter;

use arguments::Arguments;
pub(crate) use arguments::{Given, command};
use setting::Setting;
pub(crate) use setting::{Secret, SecretFile};
pub(crate) use shown::{SettingSource, ShownSetting, in_use};

/// All that can be set.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// A random token is made where there is none.
    pub(crate) admin_tokens: Secret<AdminTokens>,
    pub(crate) admin_allow: Vec<IpNet>,
    pub(crate) audit_reads: bool,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) log_client_addr: bool,
    pub(crate) metrics_token: Option<AdminTokens>,
    pub(crate) public_url: Option<String>,
    pub(crate) gateway_name: Option<String>,
    pub(crate) contact: Option<String>,
    pub(crate) notice: Option<String>,
    pub(crate) cors_origins: Option<AllowOrigin>,
    pub(crate) upstream: Upstream,
    pub(crate) stream_usage: StreamUsage,
    pub(crate) database: PathBuf,
    pub(crate) daily_limit: DailyLimit,
    pub(crate) quota_exhausted_status: StatusCode,
    pub(crate) calendar: Calendar,
    pub(crate) durability: Durability,
    pub(crate) retention_days: u32,
    pub(crate) drain: DrainLayer,
    pub(crate) max_in_flight: Option<NonZeroU32>,
    pub(crate) max_body_bytes: usize,
    pub(crate) client_timeout: Duration,
    pub(crate) client_idle_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) worker_threads: NonZeroUsize,
    pub(crate) shutdown_delay: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) log: LogSettings,
    pub(crate) demo: bool,
    /// All of it, as operators may see it.
    pub(crate) shown: Vec<ShownSetting>,
}

/// The sponsor's API.
pub(crate) struct Upstream {
    pub(crate) base_url: UpstreamBase,
    pub(crate) api_key: Secret<HeaderValue>,
    /// Trusted beside Mozilla's.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) proxy: Option<Intercept>,
    pub(crate) connect_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

/// What is done about the usage of streamed chats that do not ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamUsage {
    Off,
    Ask,
}

/// What is logged, and how.
pub(crate) struct LogSettings {
    pub(crate) filter: EnvFilter,
    pub(crate) json: bool,
}

/// Why the gateway does not start: one line.
#[derive(Debug)]
pub(crate) struct BadSetting(String);

impl BadSetting {
    /// `variable` takes something else.
    pub(crate) fn new(variable: &str, problem: impl fmt::Display) -> Self {
        let line = format!("{variable}: {problem}");
        Self(line.replace(char::is_control, " "))
    }
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSetting {}

impl Settings {
    /// Checks all that was given.
    pub(crate) fn check(given: Given) -> Result<Self, BadSetting> {
        let listen = given.listen();
        let Given { arguments: given, mut shown, checked } = given;
        checked?;
        let upstream = Upstream::of(&given)?;
        // It counts for some upstreams only.
        let has_environments_proxy = upstream.proxy.is_some() && given.upstream_proxy.is_none();
        let proxy = shown.iter_mut().find(|setting| setting.name == "UPSTREAM_PROXY");
        if let Some(proxy) = proxy.filter(|_| has_environments_proxy) {
            proxy.value = Some("••••".to_owned());
            proxy.source = SettingSource::Environment("HTTPS_PROXY".to_owned());
        }
        Ok(Self {
            listen: listen?,
            admin_tokens: admin_tokens(&given)?,
            admin_allow: Setting::new("ADMIN_ALLOW", &given.admin_allow)
                .or("", values::networks)?,
            audit_reads: Setting::new("AUDIT_READS", &given.audit_reads)
                .or("off", values::on_or_off)?,
            trusted_proxies: Setting::new("TRUSTED_PROXIES", &given.trusted_proxies)
                .or("", values::networks)?,
            log_client_addr: Setting::new("LOG_CLIENT_ADDR", &given.log_client_addr)
                .or("on", values::on_or_off)?,
            metrics_token: Setting::new("METRICS_TOKEN", &given.metrics_token)
                .secret(values::tokens)?,
            public_url: Setting::new("PUBLIC_URL", &given.public_url).or("", values::public_url)?,
            gateway_name: Setting::new("GATEWAY_NAME", &given.gateway_name)
                .or("", values::shown_text)?,
            contact: Setting::new("CONTACT", &given.contact).or("", values::shown_text)?,
            notice: Setting::new("NOTICE", &given.notice).or("", values::shown_text)?,
            cors_origins: Setting::new("CORS_ALLOW_ORIGINS", &given.cors_allow_origins)
                .or("", values::origins)?,
            upstream,
            stream_usage: Setting::new("STREAM_USAGE", &given.stream_usage)
                .or("ask", values::stream_usage)?,
            database: database(&given)?,
            daily_limit: Setting::new("DAILY_REQ_LIMIT", &given.daily_req_limit)
                .or("200", values::daily_limit)?,
            quota_exhausted_status: Setting::new(
                "QUOTA_EXHAUSTED_STATUS",
                &given.quota_exhausted_status,
            )
            .or("429", values::exhausted_status)?,
            calendar: Setting::new("QUOTA_TIMEZONE", &given.quota_timezone)
                .or("UTC", values::time_zone)?,
            durability: Setting::new("DURABILITY", &given.durability)
                .or("process", values::durability)?,
            retention_days: Setting::new("USAGE_RETENTION_DAYS", &given.usage_retention_days)
                .or("7", values::days)?,
            drain: Setting::new("ON_CLIENT_GONE", &given.on_client_gone)
                .or("abort", values::drain)?,
            max_in_flight: Setting::new("MAX_IN_FLIGHT_PER_KEY", &given.max_in_flight_per_key)
                .or("0", values::max_in_flight)?,
            max_body_bytes: Setting::new("MAX_BODY_BYTES", &given.max_body_bytes)
                .or("32MiB", values::size)?,
            client_timeout: Setting::new("CLIENT_TIMEOUT", &given.client_timeout)
                .or("60s", values::timeout)?,
            client_idle_timeout: Setting::new("CLIENT_IDLE_TIMEOUT", &given.client_idle_timeout)
                .or("75s", values::timeout)?,
            max_connections: Setting::new("MAX_CONNECTIONS", &given.max_connections)
                .or("0", values::max_connections)?,
            worker_threads: Setting::new("WORKER_THREADS", &given.worker_threads)
                .or("0", values::worker_threads)?,
            shutdown_delay: Setting::new("SHUTDOWN_DELAY", &given.shutdown_delay)
                .or("0s", values::duration)?,
            shutdown_grace: Setting::new("SHUTDOWN_GRACE", &given.shutdown_grace)
                .or("30s", values::duration)?,
            log: LogSettings {
                filter: Setting::new("RUST_LOG", &given.rust_log).or("info", values::log_filter)?,
                json: Setting::new("LOG_FORMAT", &given.log_format)
                    .or("text", values::log_format)?,
            },
            demo: given.demo,
            shown,
        })
    }
}

impl Given {
    /// Where the gateway listens, whatever else is set.
    pub(crate) fn listen(&self) -> Result<SocketAddr, BadSetting> {
        let Arguments { host, port, .. } = &self.arguments;
        let host = Setting::new("HOST", host).or("127.0.0.1", values::host)?;
        let port = Setting::new("PORT", port).or("8787", values::port)?;
        Ok(SocketAddr::new(host, port))
    }
}

impl Upstream {
    fn of(given: &Arguments) -> Result<Self, BadSetting> {
        let base_url = Setting::new("UPSTREAM_BASE_URL", &given.upstream_base_url)
            .or_else(Setting::new("DEEPSEEK_BASE_URL", &given.deepseek_base_url));
        let api_key = Setting::new("UPSTREAM_API_KEY", &given.upstream_api_key)
            .or_else(Setting::new("DEEPSEEK_API_KEY", &given.deepseek_api_key));
        let key_file = Setting::new("UPSTREAM_API_KEY_FILE", &given.upstream_api_key_file)
            .or_else(Setting::new("DEEPSEEK_API_KEY_FILE", &given.deepseek_api_key_file));
        let base_url = base_url.secret_or("https://api.deepseek.com/v1", values::base_url)?;
        let proxy = match (given.demo, &given.upstream_proxy) {
            (true, _) => None,
            (false, Some(_)) => Setting::new("UPSTREAM_PROXY", &given.upstream_proxy)
                .secret(|text| values::proxy(text).map(Some))?
                .flatten(),
            (false, None) => {
                let no_proxy = given.no_proxy.as_deref().unwrap_or_default();
                Setting::new("HTTPS_PROXY", &given.https_proxy)
                    .secret(|text| values::https_proxy(text, no_proxy, &base_url))?
                    .flatten()
            }
        };
        Ok(Self {
            base_url,
            api_key: api_key.or_file(key_file, values::upstream_api_key)?,
            authorities: Setting::new("UPSTREAM_CA_FILE", &given.upstream_ca_file)
                .secret(values::authorities)?
                .unwrap_or_default(),
            proxy,
            connect_timeout: Setting::new(
                "UPSTREAM_CONNECT_TIMEOUT",
                &given.upstream_connect_timeout,
            )
            .or("5s", values::timeout)?,
            head_timeout: Setting::new("UPSTREAM_HEAD_TIMEOUT", &given.upstream_head_timeout)
                .or("600s", values::timeout)?,
            idle_timeout: Setting::new("UPSTREAM_IDLE_TIMEOUT", &given.upstream_idle_timeout)
                .or("120s", values::timeout)?,
        })
    }
}

/// Unlike elsewhere, an empty variable is no unset one: who wrote it meant to set a token.
fn admin_tokens(given: &Arguments) -> Result<Secret<AdminTokens>, BadSetting> {
    if let Some(text) = &given.admin_token {
        values::tokens(text).map_err(|expected| BadSetting::new("ADMIN_TOKEN", expected))?;
    }
    Setting::new("ADMIN_TOKEN", &given.admin_token)
        .or_file(Setting::new("ADMIN_TOKEN_FILE", &given.admin_token_file), values::tokens)
}

fn database(given: &Arguments) -> Result<PathBuf, BadSetting> {
    let path = Setting::new("DATABASE_URL", &given.database_url)
        .or_else(Setting::new("SQLITE_PATH", &given.sqlite_path))
        .secret(values::database)?;
    Ok(path.unwrap_or_else(|| PathBuf::from("quota.db")))
}
