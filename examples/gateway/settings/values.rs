//! The parsers of values. Their errors say what is expected.

use std::{
    fmt, fs,
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderValue, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use ipnet::IpNet;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::Semaphore;
use tower_http::cors::AllowOrigin;
use tower_quota::{
    admin::AdminTokens,
    clock::Calendar,
    key::Limit,
    proxy::UpstreamBase,
    store::{postgres::PostgresOptions, sqlite::Durability},
    usage::{DrainLayer, DrainLimits},
};
use tracing_subscriber::EnvFilter;

use super::Database;
use crate::open_files;

// Aliases, as clap reads a field of a type `Vec` or `Option` in its own way.
pub(crate) type Networks = Vec<IpNet>;
pub(crate) type Authorities = Vec<CertificateDer<'static>>;
pub(crate) type MaxInFlight = Option<NonZeroU32>;

type Value<T> = Result<T, String>;

/// Returns a parser whose errors show the value. Not for values that may contain a secret.
pub(super) fn shown<T>(parse: fn(&str) -> Value<T>) -> impl Fn(&str) -> Value<T> + Clone {
    move |text| parse(text).map_err(|expected| format!("{expected}, got {text:?}"))
}

pub(super) fn host(text: &str) -> Value<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "expected an IP address or localhost".to_owned())
}

pub(super) fn port(text: &str) -> Value<u16> {
    number(text)
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| "expected a number from 0 to 65535".to_owned())
}

/// Parses tokens that are separated by commas or lines.
pub(super) fn tokens(text: &str) -> Value<AdminTokens> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    AdminTokens::parse(&lines.join(",")).map_err(|error| {
        format!("expected comma-separated secrets of at least 16 visible characters ({error})")
    })
}

/// Returns the `Authorization` header for the upstream.
pub(super) fn upstream_api_key(text: &str) -> Value<HeaderValue> {
    let is_key = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let authorization = is_key.then(|| HeaderValue::try_from(format!("Bearer {text}")).ok());
    let mut authorization =
        authorization.flatten().ok_or("expected a key of visible ASCII characters")?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

pub(super) fn networks(text: &str) -> Value<Networks> {
    text.split(',').map(str::trim).filter(|network| !network.is_empty()).map(network).collect()
}

fn network(text: &str) -> Value<IpNet> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "expected a comma-separated list of networks such as 10.0.0.0/8".to_owned())
}

pub(super) fn public_url(text: &str) -> Value<String> {
    let url = origin_of(text).filter(|(scheme, _)| matches!(&**scheme, "http" | "https"));
    url.map(|(_, origin)| origin)
        .ok_or_else(|| "expected http:// or https:// and a host, with no path".to_owned())
}

/// Parses a line that people read.
pub(super) fn text_line(text: &str) -> Value<String> {
    const MAX_CHARS: usize = 500;
    if text.chars().count() > MAX_CHARS || text.contains(char::is_control) {
        return Err(format!("expected at most {MAX_CHARS} characters and no line break"));
    }
    Ok(text.to_owned())
}

/// Parses `*` or the origins of pages as browsers write them.
pub(super) fn origins(text: &str) -> Value<AllowOrigin> {
    if text == "*" {
        return Ok(AllowOrigin::any());
    }
    let origins: Value<Vec<HeaderValue>> = text.split(',').map(origin).collect();
    origins.map(AllowOrigin::list)
}

fn origin(text: &str) -> Value<HeaderValue> {
    let origin = origin_of(text.trim()).and_then(|(_, origin)| HeaderValue::try_from(origin).ok());
    origin.ok_or_else(|| {
        "expected * or comma-separated origins such as https://app.example.com, with no path"
            .to_owned()
    })
}

/// Returns the scheme of a URL without path, query and user, and the URL as browsers write origins: in
/// lower case and without the scheme's default port.
fn origin_of(text: &str) -> Option<(String, String)> {
    let url: Uri = text.to_ascii_lowercase().parse().ok()?;
    let (scheme, authority) = (url.scheme_str()?, url.authority()?);
    let host = authority.host();
    let port = authority.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let is_host = !host.is_empty() && !host.contains('*') && *authority == format!("{host}{port}");
    if !is_host || url.path() != "/" || url.query().is_some() || text.contains('#') {
        return None;
    }
    let port = match (scheme, &*port) {
        ("http", ":80") | ("https", ":443") => "",
        (_, port) => port,
    };
    Some((scheme.to_owned(), format!("{scheme}://{host}{port}")))
}

pub(super) fn base_url(text: &str) -> Value<UpstreamBase> {
    // Clients append these paths themselves.
    for end in ["/chat/completions", "/completions", "/responses", "/messages", "/models"] {
        if let Some(base) = text.trim_end_matches('/').strip_suffix(end) {
            return Err(format!(
                "expected the part before {end}, as clients add that themselves: {}",
                if base.contains('@') { "remove it" } else { base }
            ));
        }
    }
    text.parse().map_err(|error| format!("expected an http:// or https:// URL ({error})"))
}

/// Reads the certificates in a PEM file.
pub(crate) fn authorities(path: &str) -> Value<Authorities> {
    let expected = |reason: &dyn fmt::Display| {
        format!("expected a PEM file with certificates of authorities, got {path:?} ({reason})")
    };
    let text = fs::read(path).map_err(|error| expected(&error))?;
    let authorities: Result<Authorities, _> = CertificateDer::pem_slice_iter(&text).collect();
    let authorities = authorities.map_err(|error| expected(&error))?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|error| expected(&error))?;
    }
    if authorities.is_empty() { Err(expected(&"there is none")) } else { Ok(authorities) }
}

/// Parses the URL of a proxy for all upstreams.
pub(super) fn proxy(text: &str) -> Value<Intercept> {
    let uri = Uri::from_static("https://upstream.invalid");
    let proxy = Matcher::builder().all(text).build().intercept(&uri);
    proxy.filter(|proxy| proxy.uri().scheme_str() == Some("http")).ok_or_else(|| {
        "expected a proxy that takes CONNECT, such as http://user:password@proxy:3128".to_owned()
    })
}

/// Returns the environment's proxy if it applies to this upstream.
pub(super) fn https_proxy(
    text: &str,
    no_proxy: &str,
    base: &UpstreamBase,
) -> Value<Option<Intercept>> {
    proxy(text)?;
    let base = base.to_string().parse().map_err(|_| "expected a base URL".to_owned())?;
    Ok(Matcher::builder().https(text).no(no_proxy).build().intercept(&base))
}

/// Parses a path, a `sqlite:` URL or a `postgres:` URL.
pub(crate) fn database(text: &str) -> Value<Database> {
    const EXPECTED: &str = "expected the path of a SQLite file, a sqlite: URL or a postgres:// URL";
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return postgres(text);
    }
    let path = match text.strip_prefix("sqlite:") {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None if text.contains("://") => return Err(EXPECTED.to_owned()),
        None => text,
    };
    if path.is_empty() || path.starts_with(':') || path.contains(['?', '\0']) {
        return Err(format!("{EXPECTED}, without parameters"));
    }
    Ok(Database::Sqlite(PathBuf::from(path)))
}

fn postgres(url: &str) -> Value<Database> {
    const EXPECTED: &str = "expected postgres://user@host:5432/database";
    let address = url.split('?').next().unwrap_or_default();
    if address.matches('@').count() > 1 {
        return Err(format!("{EXPECTED}; write an @ in a name or password as %40"));
    }
    // The journal has no part in this.
    PostgresOptions::new(url, "").map_err(|error| format!("{EXPECTED}; {error}"))?;
    Ok(Database::Postgres(url.to_owned()))
}

/// Parses the password of a database.
pub(super) fn password(text: &str) -> Value<String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err("expected a password in one line".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the beginning of the journal's file names.
pub(super) fn journal(text: &str) -> Value<PathBuf> {
    let path = Path::new(text);
    if text.ends_with('/') || path.file_name().is_none() || path.is_dir() {
        return Err("expected a directory and the beginning of file names in it, such as \
                    /var/lib/quota/quota"
            .to_owned());
    }
    Ok(path.to_owned())
}

pub(super) fn request_limit(text: &str) -> Value<Limit> {
    number(text)
        .and_then(|number| i64::try_from(number).ok())
        .and_then(|number| Limit::from_stored(number).ok())
        .ok_or_else(|| "expected a number from 0 (unlimited) to 1000000000".to_owned())
}

pub(super) fn exhausted_status(text: &str) -> Value<StatusCode> {
    one_of([("429", StatusCode::TOO_MANY_REQUESTS), ("402", StatusCode::PAYMENT_REQUIRED)], text)
}

pub(super) fn max_in_flight(text: &str) -> Value<MaxInFlight> {
    number(text)
        .and_then(|number| u32::try_from(number).ok())
        .map(NonZeroU32::new)
        .ok_or_else(|| "expected a number from 0 (unlimited) to 4294967295".to_owned())
}

pub(super) fn worker_threads(text: &str) -> Value<NonZeroUsize> {
    const MAX_THREADS: u64 = 1024;
    number(text)
        .filter(|number| *number <= MAX_THREADS)
        .and_then(|number| usize::try_from(number).ok())
        .map(|number| NonZeroUsize::new(number).unwrap_or_else(default_worker_threads))
        .ok_or_else(|| format!("expected a number from 0 (by the cores) to {MAX_THREADS}"))
}

pub(super) fn max_connections(text: &str) -> Value<usize> {
    number(text)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| *number <= Semaphore::MAX_PERMITS)
        .map(|number| if number > 0 { number } else { open_files::max_connections() })
        .ok_or_else(|| "expected a number from 0 (by the limit of open files)".to_owned())
}

/// Returns one thread per core, but one on up to two cores, where a second one costs more than it gains
/// (docs/performance.md).
fn default_worker_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    if cores.get() > 2 { cores } else { NonZeroUsize::MIN }
}

pub(super) fn time_zone(text: &str) -> Value<Calendar> {
    Calendar::new(text).map_err(|_| "expected an IANA time zone such as Asia/Shanghai".to_owned())
}

pub(super) fn days(text: &str) -> Value<u32> {
    let days = number(text).and_then(|days| days.try_into().ok());
    days.filter(|days| *days <= 3650).ok_or_else(|| "expected a number from 0 to 3650".to_owned())
}

pub(super) fn drain(text: &str) -> Value<DrainLayer> {
    one_of([("abort", DrainLayer::off()), ("drain", DrainLayer::new(DrainLimits::new()))], text)
}

pub(super) fn durability(text: &str) -> Value<Durability> {
    one_of([("process", Durability::Process), ("power", Durability::Power)], text)
}

pub(super) fn stream_usage(text: &str) -> Value<bool> {
    one_of([("off", false), ("ask", true)], text)
}

pub(super) fn true_or_false(text: &str) -> Value<bool> {
    one_of([("false", false), ("true", true)], text)
}

pub(super) fn on_or_off(text: &str) -> Value<bool> {
    one_of([("off", false), ("on", true)], text)
}

pub(super) fn log_format(text: &str) -> Value<bool> {
    one_of([("text", false), ("json", true)], text)
}

pub(super) fn log_filter(text: &str) -> Value<String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|_| "expected tracing directives such as info or tower_quota=debug".to_owned())
}

pub(super) fn timeout(text: &str) -> Value<Duration> {
    duration(text)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a time from 1ms to 24h such as 500ms, 5s or 2m".to_owned())
}

pub(super) fn duration(text: &str) -> Value<Duration> {
    const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
    let millis = match unit(text) {
        (number, "ms") => number,
        (number, "" | "s") => number.and_then(|number| number.checked_mul(1000)),
        (number, "m") => number.and_then(|number| number.checked_mul(60_000)),
        (number, "h") => number.and_then(|number| number.checked_mul(3_600_000)),
        _ => None,
    };
    millis
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| "expected a time from 0s to 24h such as 500ms, 5s or 2m".to_owned())
}

pub(super) fn size(text: &str) -> Value<usize> {
    let factor = match unit(text).1.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1000),
        "mb" => Some(1000 * 1000),
        "gb" => Some(1000 * 1000 * 1000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    factor
        .zip(unit(text).0)
        .and_then(|(factor, number)| number.checked_mul(factor))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size above 0 such as 32MiB or 33554432".to_owned())
}

/// Returns the value of one of two words.
fn one_of<T>(choices: [(&str, T); 2], text: &str) -> Value<T> {
    let expected = format!("expected {} or {}", choices[0].0, choices[1].0);
    choices.into_iter().find(|(word, _)| *word == text).map(|(_, value)| value).ok_or(expected)
}

/// Splits `10MiB` into 10 and `MiB`.
fn unit(text: &str) -> (Option<u64>, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    (number(digits), unit.trim_start())
}

/// Parses digits, without a sign or spaces.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
