use std::env;

use clap::{Arg, CommandFactory, FromArgMatches, Parser};

use super::{
    BadSetting, env_file,
    shown::{ShownSetting, shown},
};
use crate::commands::{Command, HELPFUL};

/// The trial-key gateway: hands an OpenAI-compatible API to holders of issued keys, so many
/// requests a day each.
///
/// Every setting is a flag, an environment variable or a line of `.env` in the working directory;
/// a flag wins over the environment, which wins over `.env`. An empty variable counts as unset.
#[derive(Parser)]
#[command(name = "gateway", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// IP address to listen on, or localhost [default: 127.0.0.1]
    #[arg(long, env = "HOST", hide_env_values = true, value_name = "ADDRESS")]
    pub(super) host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8787]
    #[arg(long, env = "PORT", hide_env_values = true, value_name = "NUMBER")]
    pub(super) port: Option<String>,
    /// Opens /admin; several, comma-separated, while rotating [default: a random one, printed]
    #[arg(long, env = "ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) admin_token: Option<String>,
    /// File that holds ADMIN_TOKEN, a token a line; read again on SIGHUP
    #[arg(long, env = "ADMIN_TOKEN_FILE", hide_env_values = true, value_name = "PATH")]
    pub(super) admin_token_file: Option<String>,
    /// Networks that may use /admin, as CIDR [default: any]
    #[arg(long, env = "ADMIN_ALLOW", hide_env_values = true, value_name = "CIDR,…")]
    pub(super) admin_allow: Option<String>,
    /// Whether the audit trail notes reads, too: off or on [default: off]
    #[arg(long, env = "AUDIT_READS", hide_env_values = true, value_name = "WHETHER")]
    pub(super) audit_reads: Option<String>,
    /// Networks whose X-Forwarded-For is believed, as CIDR [default: none]
    #[arg(long, env = "TRUSTED_PROXIES", hide_env_values = true, value_name = "CIDR,…")]
    pub(super) trusted_proxies: Option<String>,
    /// Whether clients' addresses are logged, and counted for each key: on or off [default: on]
    #[arg(long, env = "LOG_CLIENT_ADDR", hide_env_values = true, value_name = "WHETHER")]
    pub(super) log_client_addr: Option<String>,
    /// Opens /metrics and nothing else
    #[arg(long, env = "METRICS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) metrics_token: Option<String>,
    /// Where users reach this gateway, such as https://keys.example.com; for the links of claims
    #[arg(long, env = "PUBLIC_URL", hide_env_values = true, value_name = "URL")]
    pub(super) public_url: Option<String>,
    /// What the gateway is called where its holders see it [default: none]
    #[arg(long, env = "GATEWAY_NAME", hide_env_values = true, value_name = "TEXT")]
    pub(super) gateway_name: Option<String>,
    /// Whom holders ask, such as an e-mail address; shown on / and in errors [default: none]
    #[arg(long, env = "CONTACT", hide_env_values = true, value_name = "TEXT")]
    pub(super) contact: Option<String>,
    /// What holders are to know; shown on / [default: none]
    #[arg(long, env = "NOTICE", hide_env_values = true, value_name = "TEXT")]
    pub(super) notice: Option<String>,
    /// Origins whose pages may use the API, comma-separated, or * [default: none]
    #[arg(long, env = "CORS_ALLOW_ORIGINS", hide_env_values = true, value_name = "ORIGIN,…")]
    pub(super) cors_allow_origins: Option<String>,
    /// Where /v1/… is forwarded to; also DEEPSEEK_BASE_URL [default: https://api.deepseek.com/v1]
    #[arg(long, env = "UPSTREAM_BASE_URL", hide_env_values = true, value_name = "URL")]
    pub(super) upstream_base_url: Option<String>,
    #[arg(long, env = "DEEPSEEK_BASE_URL", hide_env_values = true, hide = true)]
    pub(super) deepseek_base_url: Option<String>,
    /// The sponsor's key at the upstream; also DEEPSEEK_API_KEY
    #[arg(long, env = "UPSTREAM_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(super) upstream_api_key: Option<String>,
    #[arg(long, env = "DEEPSEEK_API_KEY", hide_env_values = true, hide = true)]
    pub(super) deepseek_api_key: Option<String>,
    /// File that holds UPSTREAM_API_KEY, read again on SIGHUP; also DEEPSEEK_API_KEY_FILE
    #[arg(long, env = "UPSTREAM_API_KEY_FILE", hide_env_values = true, value_name = "PATH")]
    pub(super) upstream_api_key_file: Option<String>,
    #[arg(long, env = "DEEPSEEK_API_KEY_FILE", hide_env_values = true, hide = true)]
    pub(super) deepseek_api_key_file: Option<String>,
    /// PEM file with certificates of authorities that are trusted at the upstream beside Mozilla's
    #[arg(long, env = "UPSTREAM_CA_FILE", hide_env_values = true, value_name = "PATH")]
    pub(super) upstream_ca_file: Option<String>,
    /// Proxy to the upstream, such as http://proxy:3128; also HTTPS_PROXY with NO_PROXY [default: none]
    #[arg(long, env = "UPSTREAM_PROXY", hide_env_values = true, value_name = "URL")]
    pub(super) upstream_proxy: Option<String>,
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true, hide = true)]
    pub(super) https_proxy: Option<String>,
    #[arg(long, env = "NO_PROXY", hide_env_values = true, hide = true)]
    pub(super) no_proxy: Option<String>,
    /// Time limit for connecting to the upstream, such as 5s [default: 5s]
    #[arg(long, env = "UPSTREAM_CONNECT_TIMEOUT", hide_env_values = true, value_name = "TIME")]
    pub(super) upstream_connect_timeout: Option<String>,
    /// Time limit until the upstream's answer begins [default: 600s]
    #[arg(long, env = "UPSTREAM_HEAD_TIMEOUT", hide_env_values = true, value_name = "TIME")]
    pub(super) upstream_head_timeout: Option<String>,
    /// Time limit between two pieces of a body [default: 120s]
    #[arg(long, env = "UPSTREAM_IDLE_TIMEOUT", hide_env_values = true, value_name = "TIME")]
    pub(super) upstream_idle_timeout: Option<String>,
    /// Usage of streamed chats that do not ask for it: off, or ask (and hide it) [default: ask]
    #[arg(long, env = "STREAM_USAGE", hide_env_values = true, value_name = "WHAT")]
    pub(super) stream_usage: Option<String>,
    /// SQLite file, as a path or sqlite: URL; also SQLITE_PATH [default: quota.db]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "PATH")]
    pub(super) database_url: Option<String>,
    #[arg(long, env = "SQLITE_PATH", hide_env_values = true, hide = true)]
    pub(super) sqlite_path: Option<String>,
    /// Requests a day of keys issued without daily_limit; 0 is unlimited [default: 200]
    #[arg(long, env = "DAILY_REQ_LIMIT", hide_env_values = true, value_name = "NUMBER")]
    pub(super) daily_req_limit: Option<String>,
    /// Status of requests beyond the day's quota: 429, or 402, at which coding CLIs stop at once
    /// [default: 429]
    #[arg(long, env = "QUOTA_EXHAUSTED_STATUS", hide_env_values = true, value_name = "STATUS")]
    pub(super) quota_exhausted_status: Option<String>,
    /// IANA time zone in which the day turns [default: UTC]
    #[arg(long, env = "QUOTA_TIMEZONE", hide_env_values = true, value_name = "ZONE")]
    pub(super) quota_timezone: Option<String>,
    /// What counting survives exactly: process (kill -9), or power (power loss too) [default: process]
    #[arg(long, env = "DURABILITY", hide_env_values = true, value_name = "LEVEL")]
    pub(super) durability: Option<String>,
    /// For how many days single requests are kept beside the daily sums, about 250 bytes each; 0 keeps none [default: 7]
    #[arg(long, env = "USAGE_RETENTION_DAYS", hide_env_values = true, value_name = "DAYS")]
    pub(super) usage_retention_days: Option<String>,
    /// What is done when a client leaves amid an answer: abort it, or drain it for its usage [default: abort]
    #[arg(long, env = "ON_CLIENT_GONE", hide_env_values = true, value_name = "ACTION")]
    pub(super) on_client_gone: Option<String>,
    /// Requests of one key that may be under way at once; 0 is any number [default: 0]
    #[arg(long, env = "MAX_IN_FLIGHT_PER_KEY", hide_env_values = true, value_name = "NUMBER")]
    pub(super) max_in_flight_per_key: Option<String>,
    /// Largest request body, such as 32MiB [default: 32MiB]
    #[arg(long, env = "MAX_BODY_BYTES", hide_env_values = true, value_name = "SIZE")]
    pub(super) max_body_bytes: Option<String>,
    /// How long a client may keep the gateway waiting, to send a body or to read an answer [default: 60s]
    #[arg(long, env = "CLIENT_TIMEOUT", hide_env_values = true, value_name = "TIME")]
    pub(super) client_timeout: Option<String>,
    /// How long an idle connection is kept; longer than a balancer in front keeps its own [default: 75s]
    #[arg(long, env = "CLIENT_IDLE_TIMEOUT", hide_env_values = true, value_name = "TIME")]
    pub(super) client_idle_timeout: Option<String>,
    /// Connections at once; 0 is as many as the limit of open files allows [default: 0]
    #[arg(long, env = "MAX_CONNECTIONS", hide_env_values = true, value_name = "NUMBER")]
    pub(super) max_connections: Option<String>,
    /// Threads that serve requests; 0 is one a core, and just one on up to two cores [default: 0]
    #[arg(long, env = "WORKER_THREADS", hide_env_values = true, value_name = "NUMBER")]
    pub(super) worker_threads: Option<String>,
    /// How long /readyz says 503 at shutdown before the listener closes; longer than a balancer takes to see it [default: 0s]
    #[arg(long, env = "SHUTDOWN_DELAY", hide_env_values = true, value_name = "TIME")]
    pub(super) shutdown_delay: Option<String>,
    /// How long running answers may take to finish after that [default: 30s]
    #[arg(long, env = "SHUTDOWN_GRACE", hide_env_values = true, value_name = "TIME")]
    pub(super) shutdown_grace: Option<String>,
    /// What is logged, as tracing directives [default: info]
    #[arg(long, env = "RUST_LOG", hide_env_values = true, value_name = "FILTER")]
    pub(super) rust_log: Option<String>,
    /// text or json [default: text]
    #[arg(long, env = "LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Forward to a built-in upstream, so that everything can be tried with no account
    #[arg(long)]
    pub(super) demo: bool,
}

/// The command line, in which settings may stand before a subcommand and behind it.
pub(crate) fn command() -> clap::Command {
    let command = Arguments::command().mut_args(|argument| argument.global(true));
    let settings: Vec<Arg> = command.get_arguments().cloned().collect();
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name();
        let helpful = HELPFUL.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, some)| some);
        let settings = settings.iter().cloned().map(|setting| {
            let is_helpful = variable(&setting).is_some_and(|name| helpful.contains(&&*name));
            if is_helpful { setting } else { setting.hide(true) }
        });
        subcommand.args(settings)
    })
}

/// What was given: flags, on top of the environment, on top of `.env`.
pub(crate) struct Given {
    pub(super) arguments: Arguments,
    /// Everything, as it may be shown.
    pub(super) shown: Vec<ShownSetting>,
    /// The first text that can be no setting's, whatever the setting takes.
    pub(super) checked: Result<(), BadSetting>,
}

impl Given {
    /// Reads everything and ends the process if that is what a flag asks for, or if one is unknown.
    pub(crate) fn load() -> Result<Self, BadSetting> {
        let names = command().get_arguments().filter_map(variable).collect::<Vec<_>>();
        let (from_env_file, mut checked) = env_file::load(&names);
        for name in names {
            if let Err(env::VarError::NotUnicode(_)) = env::var(&name) {
                return Err(BadSetting::new(&name, "expected UTF-8 text"));
            }
        }
        let matches = command().get_matches();
        for argument in command().get_arguments() {
            let given = matches.try_get_one::<String>(argument.get_id().as_str());
            if let (Some(name), Ok(Some(text))) = (variable(argument), given) {
                checked = checked.and_then(|()| check_text(&name, text.trim()));
            }
        }
        let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        Ok(Self { arguments, shown: shown(&matches, &from_env_file), checked })
    }

    /// Everything, as it may be shown.
    pub(crate) fn shown(&self) -> &[ShownSetting] {
        &self.shown
    }

    /// What is to be done instead of serving.
    pub(crate) fn take_command(&mut self) -> Option<Command> {
        self.arguments.command.take()
    }
}

/// The variable that an argument is read from.
pub(super) fn variable(argument: &Arg) -> Option<String> {
    Some(argument.get_env()?.to_str()?.to_owned())
}

/// Refuses what a shell or an `--env-file` has left in a value. The value is not shown, as it may be a
/// secret.
fn check_text(name: &str, text: &str) -> Result<(), BadSetting> {
    const QUOTES: [(char, char); 4] = [('"', '"'), ('\'', '\''), ('“', '”'), ('‘', '’')];
    if QUOTES.iter().any(|(open, close)| text.starts_with(*open) && text.ends_with(*close)) {
        let problem = "the value has quotes around it, which would be part of it; take them off";
        return Err(BadSetting::new(name, problem));
    }
    if text.split_once("${").is_some_and(|(_, rest)| rest.contains('}')) {
        let problem = "the value holds ${…}, which nothing has expanded; write the value itself";
        return Err(BadSetting::new(name, problem));
    }
    Ok(())
}
