//! Where the database is, and how connections to it are made.

use std::{
    error::Error, fmt, fs::File, io::BufReader, net::IpAddr, path::Path, sync::Arc, time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Time after which an idle connection is probed, so that one that the network has forgotten is noticed.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Time after which a connection counts as lost if nothing is acknowledged.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a connection is tried, unless the URL says another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Address of the database, and the TLS of its connections.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

/// Error for a text that is not the URL of a PostgreSQL database.
#[derive(Debug)]
pub struct InvalidDatabaseUrl {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        if !is_url {
            return Err(InvalidDatabaseUrl::new("it does not begin with postgres://"));
        }
        let (rest, ours) = Parameters::take(url)?;
        let mut config: Config = rest.parse().map_err(|error| InvalidDatabaseUrl {
            message: "it cannot be read".to_owned(),
            source: Some(Box::new(error)),
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(InvalidDatabaseUrl::new("it names no host"));
        }
        let mode = match ours.mode {
            Some(mode) => mode,
            None if is_local(&config) => SslMode::Disable,
            None => SslMode::Require,
        };
        config.ssl_mode(mode);
        config.keepalives_idle(KEEPALIVE).tcp_user_timeout(TCP_TIMEOUT);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("tower-quota");
        }
        Ok(Self { config, tls: connector(ours.roots.as_deref().map(Path::new))? })
    }

    pub(super) fn set_password(&mut self, password: &str) {
        if self.config.get_password().is_none() {
            self.config.password(password);
        }
    }
}

/// Parameters that `tokio-postgres` does not know.
#[derive(Default)]
struct Parameters {
    mode: Option<SslMode>,
    roots: Option<String>,
}

impl Parameters {
    /// Takes them out of the URL.
    fn take(url: &str) -> Result<(String, Self), InvalidDatabaseUrl> {
        let Some((base, query)) = url.split_once('?') else {
            return Ok((url.to_owned(), Self::default()));
        };
        let (mut taken, mut rest) = (Self::default(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", "disable")) => taken.mode = Some(SslMode::Disable),
                Some(("sslmode", "require" | "verify-full")) => taken.mode = Some(SslMode::Require),
                Some(("sslmode", mode)) => {
                    let message = format!(
                        "sslmode={mode} is not supported: sslmode=require verifies certificate and name, and \
                         sslmode=disable sends the password and everything else in clear"
                    );
                    return Err(InvalidDatabaseUrl { message, source: None });
                }
                Some(("sslrootcert", file)) => taken.roots = Some(decoded(file)?),
                _ => rest.push(pair),
            }
        }
        let separator = if rest.is_empty() { "" } else { "?" };
        Ok((format!("{base}{separator}{}", rest.join("&")), taken))
    }
}

/// Decodes the percent encoding of a parameter.
fn decoded(text: &str) -> Result<String, InvalidDatabaseUrl> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let digits = escaped.and_then(|digits| str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).map_err(|_| InvalidDatabaseUrl::new("it is not UTF-8"))
}

/// Returns whether all of its hosts are on this machine.
fn is_local(config: &Config) -> bool {
    let addrs = config.get_hostaddrs();
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|addr: IpAddr| addr.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    });
    if addrs.is_empty() { hosts } else { addrs.iter().all(IpAddr::is_loopback) }
}

fn connector(file: Option<&Path>) -> Result<MakeRustlsConnect, InvalidDatabaseUrl> {
    let roots = match file {
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        Some(file) => read_roots(file)?,
    };
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions
        .map_err(|error| InvalidDatabaseUrl {
            message: "TLS cannot be set up".to_owned(),
            source: Some(Box::new(error)),
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn read_roots(file: &Path) -> Result<RootCertStore, InvalidDatabaseUrl> {
    let failed = |error: Box<dyn Error + Send + Sync>| InvalidDatabaseUrl {
        message: format!("its sslrootcert {} cannot be read", file.display()),
        source: Some(error),
    };
    let mut roots = RootCertStore::empty();
    let reader = BufReader::new(File::open(file).map_err(|error| failed(error.into()))?);
    for certificate in CertificateDer::pem_reader_iter(reader) {
        let certificate = certificate.map_err(|error| failed(error.to_string().into()))?;
        roots.add(certificate).map_err(|error| failed(error.into()))?;
    }
    if roots.is_empty() {
        return Err(failed("it has no certificate".into()));
    }
    Ok(roots)
}

/// Shows neither user nor password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("hosts", &self.config.get_hosts())
            .field("dbname", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

/// Shows where the database is.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres");
        write!(f, "the database {name}")?;
        for (at, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if at == 0 { " on " } else { ", " };
            match host {
                Host::Tcp(host) => write!(f, "{separator}{host}")?,
                #[cfg(unix)]
                Host::Unix(directory) => write!(f, "{separator}{}", directory.display())?,
            }
        }
        Ok(())
    }
}

impl InvalidDatabaseUrl {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

impl fmt::Display for InvalidDatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a URL of a PostgreSQL database: {}", self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for InvalidDatabaseUrl {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        Address::parse(url).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn tls_is_required_unless_the_database_is_on_this_machine() {
        for url in ["postgres://localhost/q", "postgres://127.0.0.1/q", "postgres:///q?host=/run"] {
            assert_eq!(mode(url), SslMode::Disable, "{url}");
        }
        for url in ["postgres://db.example/q", "postgres://localhost,db.example/q"] {
            assert_eq!(mode(url), SslMode::Require, "{url}");
            assert_eq!(mode(&format!("{url}?sslmode=disable")), SslMode::Disable, "{url}");
        }
        assert_eq!(mode("postgres://localhost/q?sslmode=verify-full"), SslMode::Require);
    }

    #[test]
    fn a_mode_without_protection_from_others_in_the_network_is_rejected() {
        for mode in ["prefer", "allow", "verify-ca"] {
            let url = format!("postgres://db.example/q?sslmode={mode}");
            let error = Address::parse(&url).unwrap_err().to_string();
            assert!(error.contains(mode) && error.contains("sslmode=require"), "{error}");
        }
    }

    #[test]
    fn other_parameters_are_kept_and_roots_are_read_from_their_file() {
        let address =
            Address::parse("postgres://u:p@localhost/q?application_name=a&sslmode=disable");
        assert_eq!(address.unwrap().config.get_application_name(), Some("a"));
        let error = Address::parse("postgres://h/q?sslrootcert=%2Fnowhere%2Fca.pem").unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem cannot be read"), "{error}");
    }

    #[test]
    fn neither_user_nor_password_is_shown() {
        let address = Address::parse("postgres://alice:secret@db.example/quota").unwrap();
        let shown = format!("{address:?} {address}");
        assert!(!shown.contains("alice") && !shown.contains("secret"), "{shown}");
        assert!(shown.contains("the database quota on db.example"), "{shown}");
    }

    #[test]
    fn a_text_that_is_no_url_says_what_is_wrong() {
        for (url, wrong) in [
            ("quota.db", "does not begin"),
            ("postgres://", "names no host"),
            ("postgres://h:port/q", "cannot be read"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(wrong), "{url}: {error}");
        }
    }
}
