//! Checks of a PostgreSQL database over one connection, which only reads.

use std::{net::IpAddr, time::Duration};

use rustls::RootCertStore;
use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, Row,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tower::BoxError;

use super::{
    super::{backup::without_user, client::sources},
    Finding::{self, Failure, Fine},
    count,
};
use crate::{
    connector::{mozilla_roots, tls_config},
    settings::{DatabaseSettings, authorities},
};

/// Maximum time of the check.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Oldest version of the server that the store supports.
const MIN_VERSION: i32 = 13;

/// A gateway holds the only advisory lock of a session in its database.
const FACTS: &str = "
    SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version'),
        current_setting('server_encoding'),
        pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
        to_regclass('schema_version') IS NOT NULL, to_regclass('api_keys') IS NOT NULL,
        EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// Checks the database without writing to it.
pub(super) async fn check(settings: &DatabaseSettings, url: &str) -> Vec<Finding> {
    let shown = &settings.database;
    let checked = timeout(TIMEOUT, async {
        let client = connect(url, settings.password.as_deref()).await?;
        let facts = client.query_one(FACTS, &[]).await?;
        inspect(&client, &facts).await
    });
    let problem = match checked.await {
        Ok(Ok(Ok(state))) => return vec![Fine(format!("{shown}: {state}"))],
        Ok(Ok(Err(problem))) => return vec![Failure(format!("{shown} {problem}"))],
        Ok(Err(error)) => {
            let reasons: Vec<String> = sources(&*error).map(|error| error.to_string()).collect();
            without_user(reasons.last().map_or("", String::as_str))
        }
        Err(_) => format!("no response within {} s", TIMEOUT.as_secs()),
    };
    let advice = "check DATABASE_URL, and whether the server is running and lets this machine in";
    vec![Failure(format!("{shown} cannot be used: {problem}; {advice}"))]
}

/// Returns the state of the database, or why no gateway works with it.
async fn inspect(client: &Client, facts: &Row) -> Result<Result<String, String>, BoxError> {
    let (major, version): (i32, &str) = (facts.try_get(0)?, facts.try_get(1)?);
    let (encoding, is_read_only): (&str, bool) = (facts.try_get(2)?, facts.try_get(3)?);
    let (may_create, has_schema): (bool, bool) = (facts.try_get(4)?, facts.try_get(5)?);
    let (has_keys, is_in_use): (bool, bool) = (facts.try_get(6)?, facts.try_get(7)?);
    Ok(if major < MIN_VERSION {
        Err(format!("is PostgreSQL {version}; {MIN_VERSION} or later is needed"))
    } else if encoding != "UTF8" {
        Err(format!("has the encoding {encoding}; create a database with ENCODING 'UTF8'"))
    } else if is_read_only {
        Err("is read-only: it may be a replica; DATABASE_URL must name the primary".to_owned())
    } else if !may_create {
        Err("does not let the role create tables: the database must belong to it".to_owned())
    } else if !has_schema && has_keys {
        Err("has tables of another program; create a database of its own".to_owned())
    } else if !has_schema {
        Ok(format!("PostgreSQL {version}, empty; the first start creates its tables"))
    } else {
        let migration = "SELECT path FROM sqlite_migration WHERE completed_at IS NULL";
        if let Some(row) = client.query_opt(migration, &[]).await? {
            let path: &str = row.try_get(0)?;
            return Ok(Err(format!(
                "has only a part of {path}: run the same `gateway migrate` again"
            )));
        }
        let keys: i64 = client.query_one("SELECT count(*) FROM api_keys", &[]).await?.try_get(0)?;
        let keys = count(usize::try_from(keys)?, "key");
        let state = if is_in_use { "in use by a gateway" } else { "not in use" };
        Ok(format!("PostgreSQL {version}, {keys}, {state}"))
    })
}

/// Connects as the store does.
#[expect(clippy::disallowed_methods, reason = "one task for the connection")]
async fn connect(url: &str, password: Option<&str>) -> Result<Client, BoxError> {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let is_ours = |parameter: &&str| parameter.starts_with("ssl");
    let (ours, others): (Vec<&str>, Vec<&str>) = parameters.split('&').partition(is_ours);
    let ours = |name: &str| {
        let mut values = ours.iter().filter_map(|parameter| parameter.split_once('='));
        values.find_map(|(found, value)| (found == name).then_some(value))
    };
    let mut config: Config = format!("{address}?{}", others.join("&")).parse()?;
    config.ssl_mode(match ours("sslmode") {
        Some("disable") => SslMode::Disable,
        None if is_local(&config) => SslMode::Disable,
        _ => SslMode::Require,
    });
    config.application_name("gateway-check");
    if let (None, Some(password)) = (config.get_password(), password) {
        config.password(password);
    }
    let roots = match ours("sslrootcert") {
        Some(file) => roots(file)?,
        None => mozilla_roots(),
    };
    let tls = MakeRustlsConnect::new(tls_config(roots)?);
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Reads the certificates of a percent-encoded path.
fn roots(file: &str) -> Result<RootCertStore, BoxError> {
    let decoded: Config = format!("postgres://localhost?application_name={file}").parse()?;
    let mut roots = RootCertStore::empty();
    for authority in authorities(decoded.get_application_name().unwrap_or_default())? {
        roots.add(authority)?;
    }
    Ok(roots)
}

/// Returns whether all of its hosts are on this machine, where no TLS is needed.
fn is_local(config: &Config) -> bool {
    let addresses = config.get_hostaddrs();
    if !addresses.is_empty() {
        return addresses.iter().all(IpAddr::is_loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    })
}
