//! `gateway healthcheck`: checks a running gateway, for containers and scripts.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use tokio::runtime;
use tower::BoxError;

use super::client::{self, Response, sources};
use crate::{
    announce::local_url,
    connector::connector,
    settings::{Given, ListenSettings},
};

/// Maximum length of a response; a gateway's is much shorter.
const MAX_RESPONSE_BYTES: usize = 4096;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Check whether the gateway of these settings is running and healthy, and end
///
/// Requests /healthz from the address of HOST and PORT. Other settings are ignored, and the database is
/// not opened.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0 if it is healthy; 1 if not, and the line that is printed says why.

Examples:
  gateway healthcheck
  gateway healthcheck --ready --url http://10.0.0.7:8787")]
pub(crate) struct Healthcheck {
    /// URL of the gateway [default: that of HOST and PORT]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Request /readyz instead: whether requests can be served now
    #[arg(long)]
    ready: bool,
    /// Maximum time for the response
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Prints one line, and fails if the gateway is not healthy.
pub(crate) fn run(given: &Given, command: &Healthcheck) -> ExitCode {
    let (code, line) = match check(given, command) {
        Ok(line) => (ExitCode::SUCCESS, line),
        Err(line) => (ExitCode::FAILURE, line),
    };
    let line = line.replace(char::is_control, " ");
    // Container engines record the standard output of a health check.
    let _ = writeln!(io::stdout(), "{line}");
    code
}

fn check(given: &Given, command: &Healthcheck) -> Result<String, String> {
    let url = url(given, command)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot request {url}: {error}"))?;
    match runtime.block_on(request(&url, Duration::from_secs(command.timeout))) {
        Health::Ok(Some(version)) => Ok(format!("{url}: ok, version {version}")),
        Health::Ok(None) => Ok(format!("{url}: ok")),
        Health::Failed(reason) => Err(reason),
        Health::NotRunning => {
            let address = url.authority().map_or("", |authority| authority.as_str());
            Err(format!("nothing listens on {address}: no gateway is running there, or not yet"))
        }
    }
}

/// The health of a gateway.
pub(super) enum Health {
    /// The gateway is healthy, and may report its version.
    Ok(Option<String>),
    /// The gateway is not healthy, or another program listens there.
    Failed(String),
    /// Nothing listens.
    NotRunning,
}

/// Checks the health of the gateway that listens on this address of this machine.
pub(super) async fn check_address(listen: SocketAddr) -> Health {
    match format!("{}/healthz", local_url(listen)).parse() {
        Ok(url) if listen.port() > 0 => request(&url, DEFAULT_TIMEOUT).await,
        _ => Health::NotRunning,
    }
}

async fn request(url: &Uri, timeout: Duration) -> Health {
    let Response { status, body, .. } = match tokio::time::timeout(timeout, get(url)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return failure(url, &error),
        Err(_) => {
            let seconds = timeout.as_secs();
            return Health::Failed(format!("{url} does not respond within {seconds} s"));
        }
    };
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = body["reason"].as_str().unwrap_or("no reason given");
    match (status, body["ok"].as_bool()) {
        (StatusCode::OK, Some(true)) => Health::Ok(body["version"].as_str().map(str::to_owned)),
        (StatusCode::SERVICE_UNAVAILABLE, Some(false)) => {
            Health::Failed(format!("{url}: {reason}"))
        }
        _ => Health::Failed(format!("{url} returns {}: not a gateway", status.as_u16())),
    }
}

fn url(given: &Given, command: &Healthcheck) -> Result<Uri, String> {
    let base = match &command.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let listen: ListenSettings = given.parse().map_err(|error| error.to_string())?;
            let listen = listen.address();
            if listen.port() == 0 {
                return Err("PORT is 0, so the gateway's port is unknown: pass its URL with --url"
                    .to_owned());
            }
            local_url(listen)
        }
    };
    let path = if command.ready { "/readyz" } else { "/healthz" };
    let url: Option<Uri> = format!("{base}{path}").parse().ok();
    let is_url = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https"));
    url.filter(is_url)
        .ok_or_else(|| format!("--url: expected a URL such as http://127.0.0.1:8787, got {base:?}"))
}

async fn get(url: &Uri) -> Result<Response, BoxError> {
    let request = Request::get(url)
        .header(header::USER_AGENT, concat!("gateway-healthcheck/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())?;
    client::send(request, connector(&[], None)?, MAX_RESPONSE_BYTES).await
}

fn failure(url: &Uri, error: &BoxError) -> Health {
    let mut io_errors = sources(&**error).filter_map(|error| error.downcast_ref::<io::Error>());
    if io_errors.any(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        return Health::NotRunning;
    }
    let reasons: Vec<String> = sources(&**error).map(|error| error.to_string()).collect();
    Health::Failed(format!("{url} does not respond: {}", reasons.join(": ")))
}
