//! Opening of the database: the process lock, the writer's connection, the journal and the pool of readers.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::{Hook, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::runtime::Handle;

use super::{
    Inner, OpenError, PostgresOptions, PostgresStore,
    clock::DatabaseClock,
    core::Core,
    leases::{TRIP_SETTINGS, Trips},
    ledger::PostgresLedger,
    listen::Listener,
    migration,
    schema::{self, MigrateError},
    session::{Error, Session},
    sql,
};
use crate::store::{
    engine::{
        Engine, Recovery, RecoveryError, Watchdog, Writer,
        gauges::NextCount,
        journal::{DatabaseId, FileDisk, Journal, Syncer, is_in_place, owner},
    },
    process_lock::ProcessLock,
    report::ReportPermits,
};

/// Oldest supported version of the server.
const MIN_VERSION: i32 = 13;
/// Time for which a read or a trip waits for a connection.
const POOL_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of connections for trips.
const TRIP_CONNECTIONS: usize = 8;
/// Settings of a reader's connection. A report groups all keys in memory, and few run at once.
const READER: &str = "SET statement_timeout = '30s'; SET jit = off; SET work_mem = '64MB'";

pub(super) async fn open(options: PostgresOptions) -> Result<PostgresStore, OpenError> {
    let runtime = Handle::current();
    let opened = tokio::task::spawn_blocking(move || {
        let opened = Opened::new(&runtime, options)?;
        opened.serve()
    });
    opened.await.map_err(|error| OpenError::because("the database could not be opened", error))?
}

/// What is opened by statements whose results are waited for.
struct Opened {
    options: PostgresOptions,
    ledger: PostgresLedger,
    journal: Journal,
    lock: JournalLock,
    clock: DatabaseClock,
    /// Descriptions of the losses that were accepted.
    losses: Vec<String>,
}

impl Opened {
    fn new(runtime: &Handle, options: PostgresOptions) -> Result<Self, OpenError> {
        let lock = JournalLock::take(&options.journal)?;
        let disk = FileDisk::beside(&options.journal);
        let failed = |error| cannot_open(&options, error);
        let session = Session::open(runtime, &options.address, None).map_err(failed)?;
        check_server(&session, &options)?;
        let clock = read_clock(&session).map_err(failed)?;
        let migrated = runtime.block_on(schema::migrate(&session.client));
        migrated.map_err(|error| cannot_migrate(&options, error))?;
        migration::check_complete(&session, &options)?;
        let unreadable = |error| {
            OpenError::because(format!("the journal of {} cannot be read", options.address), error)
        };
        let id = owner(&disk).map_err(unreadable)?;
        let id = match id {
            Some(id) => id,
            None => new_id(&session).map_err(failed)?,
        };
        let time_zone = options.calendar.time_zone();
        let mut ledger = PostgresLedger::open(runtime, &options.address, session, id, time_zone)
            .map_err(failed)?;
        let boot = options.boot.as_deref();
        let mut recovery = Recovery::read::<PostgresLedger>(ledger.tables(), &disk, None, boot)
            .map_err(|error| cannot_recover(&options, error))?;
        let files = lock.identity();
        if ledger.has_other_files(files.as_deref()).map_err(failed)? {
            recovery.take_for_copy();
        }
        let losses = losses(&recovery, &options);
        match losses.first() {
            Some(first) if !options.accept_loss => {
                let more = losses.len() - 1;
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                return Err(OpenError::loss(format!("{first}{more}")));
            }
            _ => {}
        }
        recovery.log_dropped();
        losses
            .iter()
            .for_each(|loss| tracing::warn!(loss, "changes are missing: accepted as lost"));
        let journal = recovery
            .start(&mut ledger, Box::new(disk), boot)
            .map_err(|error| cannot_recover(&options, error))?;
        // After the start, as what a copy lacks must count as used also if this process ends within it.
        ledger.note_files(files.as_deref()).map_err(failed)?;
        Ok(Self { ledger, journal, lock, losses, clock, options })
    }

    /// Starts the threads and the listener.
    fn serve(self) -> Result<PostgresStore, OpenError> {
        let Self { options, ledger, journal, lock, losses, clock } = self;
        let readers = pool(&options, READER, options.connections)?;
        let trips = Trips::new(pool(&options, TRIP_SETTINGS, TRIP_CONNECTIONS)?);
        let clock = Arc::new(clock);
        let engine_clock = options.clock.clone().unwrap_or_else(|| clock.clone());
        let engine = Engine::new(options.engine(engine_clock), journal);
        #[cfg(feature = "admin")]
        let node = ledger.tables().node.id;
        let core = Arc::new(Core::new(&options, engine, ledger.tables().node, trips, clock));
        let (engine, queue) = (core.engine.clone(), core.queue.clone());
        let hurried = Arc::downgrade(&queue);
        engine.set_hurry(move || hurried.upgrade().into_iter().for_each(|queue| queue.hurry()));
        let journal = engine.journal.clone();
        let syncer = Syncer::start(journal.clone()).map_err(OpenError::thread)?;
        let writer = Writer::start(engine, queue, ledger.serving(core.clone()));
        let writer = writer.map_err(OpenError::thread)?;
        let watchdog = Watchdog::start(journal, move || lock.is_in_place());
        let watchdog = watchdog.map_err(OpenError::thread)?;
        let listener = Listener::start(&core, options.address.clone());
        let inner = Inner {
            core,
            #[cfg(feature = "admin")]
            node,
            readers,
            tls: options.address.tls,
            report_permits: ReportPermits::new(options.connections),
            writer,
            syncer,
            watchdog,
            _listener: listener,
            losses,
            next_count: NextCount::new(),
        };
        Ok(PostgresStore(Arc::new(inner)))
    }
}

/// Checks that the server can hold the tables.
pub(super) fn check_server(session: &Session, options: &PostgresOptions) -> Result<(), OpenError> {
    let failed = |error| cannot_open(options, error);
    let query =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
        current_setting('server_encoding'), pg_is_in_recovery()
            OR current_setting('transaction_read_only')::bool";
    let row = session.run(sql::one(&session.client, query, &[])).map_err(failed)?;
    let facts = (row.try_get(0), row.try_get(1), row.try_get(2), row.try_get(3));
    let (Ok(number), Ok(version), Ok(encoding), Ok(is_read_only)) = facts else {
        return Err(OpenError::new(format!("{} does not say its version", options.address)));
    };
    let (number, version, encoding, is_read_only): (i32, String, String, bool) =
        (number, version, encoding, is_read_only);
    let shown = &options.address;
    if number < MIN_VERSION * 10_000 {
        return Err(OpenError::new(format!(
            "{shown} is PostgreSQL {version}; {MIN_VERSION} or later is needed"
        )));
    }
    if encoding != "UTF8" {
        return Err(OpenError::new(format!(
            "{shown} has the encoding {encoding}; create a database with ENCODING 'UTF8'"
        )));
    }
    if is_read_only {
        return Err(OpenError::new(format!("{shown} is read-only: it may be a replica")));
    }
    Ok(())
}

fn read_clock(session: &Session) -> Result<DatabaseClock, Error> {
    let query = "SELECT clock_timestamp()";
    let now = session.run(async { sql::one(&session.client, query, &[]).await?.try_get(0) })?;
    Ok(DatabaseClock::new(now))
}

/// Returns the id of a node whose journal is new.
fn new_id(session: &Session) -> Result<DatabaseId, Error> {
    let query = "SELECT uuid_send(gen_random_uuid())";
    let id: Vec<u8> =
        session.run(async { sql::one(&session.client, query, &[]).await?.try_get(0) })?;
    Ok(DatabaseId(id.try_into().unwrap_or_default()))
}

/// Returns descriptions of missing requests and changes.
fn losses(recovery: &Recovery, options: &PostgresOptions) -> Vec<String> {
    let journal = options.journal.display();
    let flaws = recovery.flaws().map(|flaw| {
        let segment = flaw.segment();
        format!(
            "the journal {journal}.journal.{segment} {flaw}, so what was counted may be missing"
        )
    });
    let mut losses: Vec<String> = flaws.collect();
    let (commits, noted) = (recovery.last_commit().number, recovery.noted_commit().number);
    if noted > commits {
        losses.push(format!(
            "{} is older than the journal {journal}.journal.*: it ends with commit {commits} of it, and the \
             journal says that commit {noted} was confirmed; changes of keys and counts are missing from \
             it",
            options.address
        ));
    }
    losses
}

pub(super) fn cannot_open(options: &PostgresOptions, error: Error) -> OpenError {
    let message = format!("{} cannot be used", options.address);
    OpenError::because(message, error)
        .temporary_if(|error| error.downcast_ref::<Error>().is_some_and(is_temporary))
}

/// Returns whether another attempt may succeed: the server is not reachable, is starting or ending, has too many
/// clients, or has rolled back one of two transactions that waited for each other.
fn is_temporary(error: &Error) -> bool {
    match error {
        Error::Timeout | Error::CommitLost | Error::Disconnected | Error::Occupied => true,
        Error::Sql(error) => match error.code() {
            Some(code) => ["08", "40", "53", "55", "57"].contains(&&code.code()[..2]),
            None => {
                error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>())
            }
        },
        Error::Displaced
        | Error::Behind { .. }
        | Error::Released { .. }
        | Error::TimeZone { .. } => false,
    }
}

pub(super) fn cannot_migrate(options: &PostgresOptions, error: MigrateError) -> OpenError {
    let shown = &options.address;
    match error {
        MigrateError::Foreign => OpenError::new(format!(
            "{shown} has tables of another program; create a database of its own"
        )),
        MigrateError::Newer(version) => OpenError::new(format!(
            "{shown} has schema version {version}, which needs a later version of this program"
        )),
        #[cfg(feature = "admin")]
        MigrateError::Older => OpenError::new(format!(
            "{shown} does not have the tables of this version; start the gateway once, which creates them"
        )),
        MigrateError::Sql(error) => cannot_open(options, error.into()),
    }
}

fn cannot_recover(options: &PostgresOptions, error: RecoveryError<Error>) -> OpenError {
    let journal = options.journal.display();
    match error {
        RecoveryError::Ledger(error) => cannot_open(options, error),
        RecoveryError::Read(error) => {
            OpenError::because(format!("the journal {journal}.journal.* cannot be read"), error)
        }
        RecoveryError::Write(error) => {
            OpenError::because(format!("the journal {journal}.journal.* cannot be written"), error)
        }
    }
}

fn pool(
    options: &PostgresOptions,
    settings: &'static str,
    connections: usize,
) -> Result<Pool, OpenError> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let address = &options.address;
    let manager = Manager::from_config(address.config.clone(), address.tls.clone(), config);
    let prepare = Hook::async_fn(move |client, _| {
        Box::pin(async move {
            client.batch_execute(settings).await.map_err(deadpool_postgres::HookError::Backend)
        })
    });
    Pool::builder(manager)
        .max_size(connections)
        .wait_timeout(Some(POOL_TIMEOUT))
        .create_timeout(Some(POOL_TIMEOUT))
        .recycle_timeout(Some(POOL_TIMEOUT))
        .post_create(prepare)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| OpenError::because("the connections could not be set up", error))
}

/// Lock of the journal, as two processes must not append to it.
struct JournalLock {
    lock: ProcessLock,
    path: PathBuf,
}

impl JournalLock {
    fn take(journal: &Path) -> Result<Self, OpenError> {
        let mut path = journal.as_os_str().to_owned();
        path.push(".journal.lock");
        let path = PathBuf::from(path);
        let in_use = || format!("the journal {} is in use by another process", journal.display());
        Ok(Self { lock: ProcessLock::create(&path, in_use)?, path })
    }

    /// Identifies the files of the journal, on systems that number them: a copy has other ones.
    fn identity(&self) -> Option<String> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = self.lock.file().metadata().ok();
            metadata.map(|file| format!("{}:{}", file.dev(), file.ino()))
        }
        #[cfg(not(unix))]
        None
    }

    /// Returns whether the lock file is still at its path.
    fn is_in_place(&self) -> bool {
        is_in_place(self.lock.file(), &self.path)
    }
}
