//! `gateway healthcheck`: for containers and scripts, which ask every few seconds.

use std::{
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::runtime;
use tower::BoxError;

use crate::{announce::local_url, connector::connector, settings::Given};

/// A gateway's answer is much shorter.
const MAX_ANSWER_BYTES: usize = 4096;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Ask the gateway of these settings whether it works, and end
///
/// Asks /healthz where HOST and PORT say that the gateway listens. Other settings are not looked at,
/// and the database is not opened.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0 if it works; 1 if not, and the line that is printed says why.

Examples:
  gateway healthcheck
  gateway healthcheck --ready --url http://10.0.0.7:8787")]
pub(crate) struct Healthcheck {
    /// Where the gateway is, if not where HOST and PORT say
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask /readyz instead: whether requests can be served now
    #[arg(long)]
    ready: bool,
    /// For how many seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Prints one line, and fails if the gateway does not work.
pub(crate) fn run(given: &Given, command: &Healthcheck) -> ExitCode {
    let (code, line) = match check(given, command) {
        Ok(line) => (ExitCode::SUCCESS, line),
        Err(line) => (ExitCode::FAILURE, line),
    };
    let line = line.replace(char::is_control, " ");
    // Standard output is what container engines keep of a check.
    let _ = writeln!(io::stdout(), "{line}");
    code
}

fn check(given: &Given, command: &Healthcheck) -> Result<String, String> {
    let url = url(given, command)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot ask {url}: {error}"))?;
    match runtime.block_on(ask(&url, Duration::from_secs(command.timeout))) {
        Health::Ok(Some(version)) => Ok(format!("{url}: ok, version {version}")),
        Health::Ok(None) => Ok(format!("{url}: ok")),
        Health::Wrong(why) => Err(why),
        Health::Nobody => {
            let address = url.authority().map_or("", |authority| authority.as_str());
            Err(format!("nothing listens on {address}: no gateway runs there, or not yet"))
        }
    }
}

/// How a gateway is.
pub(super) enum Health {
    /// It works, and may tell its version.
    Ok(Option<String>),
    /// It does not, or something else is there.
    Wrong(String),
    /// Nothing listens.
    Nobody,
}

/// How the gateway is that listens on this address of this machine, if there is one.
pub(super) async fn of_address(listen: SocketAddr) -> Health {
    match format!("{}/healthz", local_url(listen)).parse() {
        Ok(url) if listen.port() > 0 => ask(&url, DEFAULT_TIMEOUT).await,
        _ => Health::Nobody,
    }
}

async fn ask(url: &Uri, limit: Duration) -> Health {
    let (status, body) = match tokio::time::timeout(limit, get(url)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(health)) => return health,
        Err(_) => {
            return Health::Wrong(format!("{url} does not answer within {} s", limit.as_secs()));
        }
    };
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = answer["reason"].as_str().unwrap_or("it gives no reason");
    match (status, answer["ok"].as_bool()) {
        (StatusCode::OK, Some(true)) => Health::Ok(answer["version"].as_str().map(str::to_owned)),
        (StatusCode::SERVICE_UNAVAILABLE, Some(false)) => Health::Wrong(format!("{url}: {reason}")),
        _ => Health::Wrong(format!("{url} answers {}: that is no gateway", status.as_u16())),
    }
}

fn url(given: &Given, command: &Healthcheck) -> Result<Uri, String> {
    let base = match &command.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let listen = given.listen().map_err(|error| error.to_string())?;
            if listen.port() == 0 {
                return Err("PORT is 0, so nobody knows where the gateway listens: \
                            name its address with --url"
                    .to_owned());
            }
            local_url(listen)
        }
    };
    let path = if command.ready { "/readyz" } else { "/healthz" };
    let url: Option<Uri> = format!("{base}{path}").parse().ok();
    let is_url = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https"));
    url.filter(is_url).ok_or_else(|| {
        format!("--url: expected an address such as http://127.0.0.1:8787, got {base:?}")
    })
}

async fn get(url: &Uri) -> Result<(StatusCode, Bytes), Health> {
    let failed = |error: BoxError| {
        let mut kinds = sources(&*error).filter_map(|error| error.downcast_ref::<io::Error>());
        if kinds.any(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return Health::Nobody;
        }
        let reasons: Vec<String> = sources(&*error).map(|error| error.to_string()).collect();
        Health::Wrong(format!("{url} gives no answer: {}", reasons.join(": ")))
    };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = url.clone();
    let agent =
        HeaderValue::from_static(concat!("gateway-healthcheck/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    let client =
        legacy::Client::builder(TokioExecutor::new()).build(connector(&[], None).map_err(failed)?);
    let response = client.request(request).await.map_err(|error| failed(error.into()))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(failed)?;
    Ok((head.status, body.to_bytes()))
}

/// An error and what has caused it.
pub(super) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
