use std::{fmt, path::PathBuf, sync::Arc};

use super::address::{Address, InvalidDatabaseUrl};
use crate::{
    clock::{Calendar, Clock},
    key::{DefaultLimits, Limit},
    store::engine::{Durability, EngineOptions, engine_option_setters, this_boot},
};

/// Options for opening a [`PostgresStore`](super::PostgresStore).
#[derive(Clone)]
pub struct PostgresOptions {
    pub(super) address: Address,
    pub(super) journal: PathBuf,
    pub(super) calendar: Calendar,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) durability: Durability,
    pub(super) default_limits: DefaultLimits,
    pub(super) retention_days: u32,
    pub(super) connections: usize,
    pub(super) boot: Option<String>,
    pub(super) accept_loss: bool,
}

impl PostgresOptions {
    /// Creates options for the database at this URL, and for a journal whose files begin with this path
    /// (`quota` → `quota.journal.1`). The journal belongs on a local disk that outlives the process. The
    /// defaults are the days of UTC, [`Durability::Process`], and 200 requests per day for rows
    /// without a limit.
    ///
    /// The URL is that of [libpq] with these parameters: `sslmode` (`disable`, or `require`, which verifies the
    /// server's certificate and name), `sslrootcert` (a file of root certificates in place of those of
    /// Mozilla), `application_name`, `connect_timeout`, `host` for a directory of a Unix socket, and
    /// the others of `tokio-postgres`. Without `sslmode` TLS is required, but not on a loopback address or a Unix
    /// socket.
    ///
    /// [libpq]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    ///
    /// # Errors
    ///
    /// The text is not such a URL, or its certificates cannot be read.
    pub fn new(url: &str, journal: impl Into<PathBuf>) -> Result<Self, InvalidDatabaseUrl> {
        Ok(Self {
            address: Address::parse(url)?,
            journal: journal.into(),
            calendar: Calendar::utc(),
            clock: None,
            durability: Durability::default(),
            default_limits: DefaultLimits::daily(Limit::Units(200)),
            retention_days: 0,
            connections: 8,
            boot: this_boot(),
            accept_loss: false,
        })
    }

    /// Sets the password, if the URL has none.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.address.set_password(password);
        self
    }

    engine_option_setters!();

    /// Sets a clock that decides the day, for tests: all nodes need the same. By default the clock of the database
    /// decides it, whatever those of the nodes show.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Some(Arc::new(clock)), ..self }
    }

    /// Sets the maximum number of connections for look-ups and reports, 8 by default. Counting has one of its own, as have
    /// the notifications of changed keys.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.max(1), ..self }
    }

    /// Opens a database from which requests or changes are provably missing
    /// ([`OpenErrorKind::Loss`](super::OpenErrorKind::Loss)) anyway.
    /// [`PostgresStore::losses`](super::PostgresStore::losses) describes what is missing.
    #[must_use]
    pub fn accept_loss(self, accept_loss: bool) -> Self {
        Self { accept_loss, ..self }
    }

    /// Identifies the current boot of the machine, on systems that do not provide an identifier
    /// (Linux does). If it differs from the boot on which the journal was last written, there may have
    /// been a power failure.
    #[must_use]
    pub fn boot(self, boot: impl Into<String>) -> Self {
        Self { boot: Some(boot.into()), ..self }
    }

    pub(super) fn engine(&self, clock: Arc<dyn Clock>) -> EngineOptions {
        EngineOptions {
            calendar: self.calendar.clone(),
            clock,
            durability: self.durability,
            retention_days: self.retention_days,
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("address", &self.address)
            .field("journal", &self.journal)
            .field("calendar", &self.calendar)
            .field("durability", &self.durability)
            .field("default_limits", &self.default_limits)
            .field("retention_days", &self.retention_days)
            .finish_non_exhaustive()
    }
}
