//! The settings: flags, environment variables and lines of `.env`.
//!
//! A setting is declared once, as a field with its flag, variable, default, parser and help, and with
//! `hide_env_values` if it is a secret. An invalid value stops the start with one line that names the
//! variable and the values it accepts.

mod database;
mod env_file;
mod given;
mod secret_file;
mod shown;
mod values;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use clap::{ArgAction, Args, Parser};
use http::{HeaderValue, StatusCode};
use hyper_util::client::proxy::matcher::Intercept;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tower_http::cors::AllowOrigin;
use tower_quota::{
    admin::AdminTokens, proxy::UpstreamBase, store::sqlite::Durability, usage::DrainLayer,
};

pub(crate) use database::{Database, DatabaseSettings};
pub(crate) use given::{Given, command};
pub(crate) use secret_file::SecretFile;
use secret_file::secret_file;
pub(crate) use shown::{SettingSource, ShownSetting, in_use};
use values::shown;
pub(crate) use values::{authorities, database as database_url};

/// The trial-key gateway: serves an OpenAI-compatible API to holders of issued keys, within a daily quota
/// of requests.
///
/// Every setting is a flag, an environment variable or a line of `.env` in the working directory; a flag
/// overrides the environment, which overrides `.env`. An empty variable counts as unset.
#[derive(Parser)]
#[command(name = "gateway", version, max_term_width = 100)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) listen: ListenSettings,
    /// Token for /admin; several, comma-separated, during a rotation [default: a random one, printed]
    #[arg(long, env = "ADMIN_TOKEN", value_name = "TOKEN", value_parser = values::tokens, hide_env_values = true)]
    pub(crate) admin_token: Option<AdminTokens>,
    /// File with ADMIN_TOKEN, one token per line; read again on SIGHUP
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "PATH", value_parser = secret_file(values::tokens))]
    pub(crate) admin_token_file: Option<SecretFile<AdminTokens>>,
    /// Networks that may use /admin, in CIDR notation [default: any]
    #[arg(long, env = "ADMIN_ALLOW", value_name = "CIDR,…", default_value = "", value_parser = shown(values::networks))]
    pub(crate) admin_allow: values::Networks,
    /// Whether the audit trail records reads, too: off or on
    #[arg(long, env = "AUDIT_READS", value_name = "WHETHER", default_value = "off", value_parser = shown(values::on_or_off), action = ArgAction::Set)]
    pub(crate) audit_reads: bool,
    /// Networks of proxies whose X-Forwarded-For is trusted, in CIDR notation [default: none]
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "CIDR,…", default_value = "", value_parser = shown(values::networks))]
    pub(crate) trusted_proxies: values::Networks,
    /// Whether client addresses are logged, and counted for each key: on or off
    #[arg(long, env = "LOG_CLIENT_ADDR", value_name = "WHETHER", default_value = "on", value_parser = shown(values::on_or_off), action = ArgAction::Set)]
    pub(crate) log_client_addr: bool,
    /// Token for /metrics only
    #[arg(long, env = "METRICS_TOKEN", value_name = "TOKEN", value_parser = values::tokens, hide_env_values = true)]
    pub(crate) metrics_token: Option<AdminTokens>,
    /// URL at which users reach this gateway, such as https://keys.example.com; used in links of claims
    #[arg(long, env = "PUBLIC_URL", value_name = "URL", value_parser = shown(values::public_url))]
    pub(crate) public_url: Option<String>,
    /// Name of the gateway, shown to holders of keys [default: none]
    #[arg(long, env = "GATEWAY_NAME", value_name = "TEXT", value_parser = shown(values::text_line))]
    pub(crate) gateway_name: Option<String>,
    /// Contact for holders of keys, such as an e-mail address; shown on / and in errors [default: none]
    #[arg(long, env = "CONTACT", value_name = "TEXT", value_parser = shown(values::text_line))]
    pub(crate) contact: Option<String>,
    /// Notice for holders of keys, shown on / [default: none]
    #[arg(long, env = "NOTICE", value_name = "TEXT", value_parser = shown(values::text_line))]
    pub(crate) notice: Option<String>,
    /// Origins whose pages may use the API, comma-separated, or * [default: none]
    #[arg(long, env = "CORS_ALLOW_ORIGINS", value_name = "ORIGIN,…", value_parser = shown(values::origins))]
    pub(crate) cors_allow_origins: Option<AllowOrigin>,
    #[command(flatten)]
    pub(crate) upstream: UpstreamSettings,
    /// Usage of streamed chats that do not request it: off, or ask (request it and hide it)
    #[arg(long, env = "STREAM_USAGE", value_name = "WHAT", default_value = "ask", value_parser = shown(values::stream_usage), action = ArgAction::Set)]
    pub(crate) stream_usage: bool,
    #[command(flatten)]
    pub(crate) database: DatabaseSettings,
    /// Status of requests beyond the daily quota: 429, or 402, at which coding CLIs do not retry
    #[arg(long, env = "QUOTA_EXHAUSTED_STATUS", value_name = "STATUS", default_value = "429", value_parser = shown(values::exhausted_status))]
    pub(crate) quota_exhausted_status: StatusCode,
    /// Failures after which counts are still exact: process (kill -9), or power (power loss, too)
    #[arg(long, env = "DURABILITY", value_name = "LEVEL", default_value = "process", value_parser = shown(values::durability))]
    pub(crate) durability: Durability,
    /// Days for which single requests are kept in addition to the daily sums, about 250 bytes each; 0 keeps none
    #[arg(long, env = "USAGE_RETENTION_DAYS", value_name = "DAYS", default_value = "7", value_parser = shown(values::days))]
    pub(crate) usage_retention_days: u32,
    /// What happens when a client disconnects during a response: abort it, or drain it for its usage
    #[arg(long, env = "ON_CLIENT_GONE", value_name = "ACTION", default_value = "abort", value_parser = shown(values::drain))]
    pub(crate) on_client_gone: DrainLayer,
    /// Maximum size of a request body, such as 32MiB
    #[arg(long, env = "MAX_BODY_BYTES", value_name = "SIZE", default_value = "32MiB", value_parser = shown(values::size))]
    pub(crate) max_body_bytes: usize,
    /// Maximum time that a client may stall a request body, or not read a response
    #[arg(long, env = "CLIENT_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = shown(values::timeout))]
    pub(crate) client_timeout: Duration,
    /// Maximum time that an idle connection is kept open; set it longer than that of a load balancer in
    /// front
    #[arg(long, env = "CLIENT_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = shown(values::timeout))]
    pub(crate) client_idle_timeout: Duration,
    /// Maximum number of open connections; 0 is as many as the limit of open files allows
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "NUMBER", default_value = "0", value_parser = shown(values::max_connections))]
    pub(crate) max_connections: usize,
    /// Number of threads that serve requests; 0 is one per core, but one on up to two cores
    #[arg(long, env = "WORKER_THREADS", value_name = "NUMBER", default_value = "0", value_parser = shown(values::worker_threads))]
    pub(crate) worker_threads: NonZeroUsize,
    /// Time at shutdown for which /readyz returns 503 before the listener closes; set it longer than a
    /// load balancer takes to notice
    #[arg(long, env = "SHUTDOWN_DELAY", value_name = "TIME", default_value = "0s", value_parser = shown(values::duration))]
    pub(crate) shutdown_delay: Duration,
    /// Maximum time for responses in flight to finish after that
    #[arg(long, env = "SHUTDOWN_GRACE", value_name = "TIME", default_value = "30s", value_parser = shown(values::duration))]
    pub(crate) shutdown_grace: Duration,
    #[command(flatten)]
    pub(crate) log: LogSettings,
    /// Forward to a built-in upstream, to try everything without an account
    #[arg(long)]
    pub(crate) demo: bool,
    /// All settings as operators may see them.
    #[arg(skip)]
    pub(crate) shown: Vec<ShownSetting>,
}

/// Where the gateway listens.
#[derive(Args)]
pub(crate) struct ListenSettings {
    /// IP address to listen on, or localhost
    #[arg(long, env = "HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = shown(values::host))]
    host: IpAddr,
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "PORT", value_name = "NUMBER", default_value = "8787", value_parser = shown(values::port))]
    port: u16,
}

/// The sponsor's API.
#[derive(Args)]
pub(crate) struct UpstreamSettings {
    /// Base URL to which /v1/… is forwarded; also DEEPSEEK_BASE_URL
    #[arg(long = "upstream-base-url", env = "UPSTREAM_BASE_URL", value_name = "URL", default_value = "https://api.deepseek.com/v1", value_parser = values::base_url)]
    pub(crate) base_url: UpstreamBase,
    /// The sponsor's key for the upstream; also DEEPSEEK_API_KEY
    #[arg(long = "upstream-api-key", env = "UPSTREAM_API_KEY", value_name = "KEY", value_parser = values::upstream_api_key, hide_env_values = true)]
    pub(crate) api_key: Option<HeaderValue>,
    /// File with UPSTREAM_API_KEY, read again on SIGHUP; also DEEPSEEK_API_KEY_FILE
    #[arg(long = "upstream-api-key-file", env = "UPSTREAM_API_KEY_FILE", value_name = "PATH", value_parser = secret_file(values::upstream_api_key))]
    pub(crate) api_key_file: Option<SecretFile<HeaderValue>>,
    /// PEM file of certificate authorities to trust for the upstream, in addition to Mozilla's
    #[arg(long = "upstream-ca-file", env = "UPSTREAM_CA_FILE", value_name = "PATH", value_parser = values::authorities)]
    authorities: Option<values::Authorities>,
    /// Proxy to the upstream, such as http://proxy:3128; also HTTPS_PROXY with NO_PROXY [default: none]
    #[arg(long = "upstream-proxy", env = "UPSTREAM_PROXY", value_name = "URL", value_parser = values::proxy, hide_env_values = true)]
    pub(crate) proxy: Option<Intercept>,
    #[arg(long, env = "HTTPS_PROXY", hide = true)]
    https_proxy: Option<String>,
    #[arg(long, env = "NO_PROXY", hide = true)]
    no_proxy: Option<String>,
    /// Maximum time to connect to the upstream, such as 5s
    #[arg(long = "upstream-connect-timeout", env = "UPSTREAM_CONNECT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = shown(values::timeout))]
    pub(crate) connect_timeout: Duration,
    /// Maximum time until the upstream's response begins
    #[arg(long = "upstream-head-timeout", env = "UPSTREAM_HEAD_TIMEOUT", value_name = "TIME", default_value = "600s", value_parser = shown(values::timeout))]
    pub(crate) head_timeout: Duration,
    /// Maximum time between two parts of a body
    #[arg(long = "upstream-idle-timeout", env = "UPSTREAM_IDLE_TIMEOUT", value_name = "TIME", default_value = "120s", value_parser = shown(values::timeout))]
    pub(crate) idle_timeout: Duration,
    /// Maximum number of requests at the upstream at once, of all keys together; others wait, in turn by
    /// key; 0 is unlimited
    #[arg(long = "upstream-max-in-flight", env = "UPSTREAM_MAX_IN_FLIGHT", value_name = "NUMBER", default_value = "0", value_parser = shown(values::max_in_flight))]
    pub(crate) max_in_flight: values::MaxInFlight,
    /// Maximum time that a request waits for others at the upstream
    #[arg(long = "upstream-wait-timeout", env = "UPSTREAM_WAIT_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = shown(values::timeout))]
    pub(crate) wait_timeout: Duration,
}

/// What is logged, and how.
#[derive(Args)]
pub(crate) struct LogSettings {
    /// Log filter, as tracing directives
    #[arg(long = "rust-log", env = "RUST_LOG", value_name = "FILTER", default_value = "info", value_parser = shown(values::log_filter))]
    pub(crate) filter: String,
    /// Log format: text or json
    #[arg(long = "log-format", env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text", value_parser = shown(values::log_format), action = ArgAction::Set)]
    pub(crate) is_json: bool,
}

impl ListenSettings {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

impl Settings {
    /// Parses all settings.
    pub(crate) fn check(given: &Given) -> Result<Self, BadSetting> {
        given.checked.clone()?;
        let mut settings: Self = given.parse()?;
        settings.shown = given.shown().to_vec();
        let Self { admin_token, admin_token_file, upstream, database, shown, demo, .. } =
            &mut settings;
        given.read_secret("ADMIN_TOKEN", admin_token, admin_token_file)?;
        given.read_secret("UPSTREAM_API_KEY", &mut upstream.api_key, &mut upstream.api_key_file)?;
        given.read_secret(
            "DATABASE_PASSWORD",
            &mut database.password,
            &mut database.password_file,
        )?;
        if *demo {
            upstream.proxy = None;
        } else if !given.is_present("UPSTREAM_PROXY") {
            upstream.use_environment_proxy(shown)?;
        }
        Ok(settings)
    }
}

/// Returns whether clients on other machines reach the gateway without a TLS proxy, judging by the
/// settings.
pub(crate) fn is_exposed(listen: SocketAddr, trusted_proxies: &[IpNet]) -> bool {
    !listen.ip().is_loopback() && trusted_proxies.is_empty()
}

impl UpstreamSettings {
    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        self.authorities.as_deref().unwrap_or_default()
    }

    /// Uses `HTTPS_PROXY` if it applies to the upstream's host.
    fn use_environment_proxy(&mut self, shown: &mut [ShownSetting]) -> Result<(), BadSetting> {
        let Some(text) = &self.https_proxy else { return Ok(()) };
        let no_proxy = self.no_proxy.as_deref().unwrap_or_default();
        self.proxy = values::https_proxy(text, no_proxy, &self.base_url)
            .map_err(|expected| BadSetting::new("HTTPS_PROXY", expected))?;
        let proxy = shown.iter_mut().find(|setting| setting.name == "UPSTREAM_PROXY");
        if let Some(proxy) = proxy.filter(|_| self.proxy.is_some()) {
            proxy.set_from_environment("HTTPS_PROXY");
        }
        Ok(())
    }
}

/// Why the gateway does not start, in one line.
#[derive(Clone, Debug)]
pub(crate) struct BadSetting(String);

impl BadSetting {
    /// Creates the error of a variable's value.
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
