//! A proxy to measure.

use std::{
    iter,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tower::BoxError;

use crate::{
    gateway,
    options::{DEFAULT_KEYS, Runtime, Setup},
    postgres::Postgres,
    process::Server,
    proxy::{self, BackEnd, Program, Variant},
    rivals,
};

/// How to start a proxy, and its directory.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) variant: Variant,
    pub(crate) conditions: Conditions,
    program: PathBuf,
    directory: TempDir,
    postgres: Option<Database>,
}

/// What is the same for all proxies of a run.
#[derive(Clone, Copy)]
pub(crate) struct Conditions {
    pub(crate) upstream: SocketAddr,
    pub(crate) runtime: Runtime,
    /// Number of keys for loads that use the same keys again.
    pub(crate) warm_keys: usize,
    /// Number of further keys, for loads that use each key once.
    first_keys: usize,
}

impl Conditions {
    pub(crate) fn new(setup: &Setup, first_keys: usize, upstream: SocketAddr) -> Self {
        let warm_keys = setup.keys.iter().copied().max().unwrap_or_default();
        Self { upstream, runtime: setup.runtime, warm_keys, first_keys }
    }

    pub(crate) fn keys(&self) -> usize {
        self.warm_keys + self.first_keys
    }
}

/// A database on a server of its own, with the default settings.
struct Database {
    url: String,
    _server: Postgres,
}

impl Database {
    fn start() -> Self {
        let server = Postgres::start(&[]);
        Self { url: server.create_database(), _server: server }
    }
}

impl Subject {
    /// Returns the base, by default the raw pass-through, the same again as a control, and the variants.
    pub(crate) fn all(setup: &Setup, conditions: Conditions) -> Result<Vec<Self>, BoxError> {
        let (base, variants) = (setup.base, setup.variants());
        let this = std::env::current_exe()?;
        let all = || iter::once(base).chain(variants.iter().copied());
        let gateway = match all().any(|variant| variant.program() == Program::Gateway) {
            true => gateway::program(setup.gateway.as_deref())?,
            false => PathBuf::new(),
        };
        let new = |name: String, variant: Variant| {
            let program = match variant.program() {
                Program::Gateway => &gateway,
                Program::Bench | Program::Rival => &this,
            };
            Self::new(name, variant, program, conditions)
        };
        let mut subjects =
            vec![new(base.name(), base)?, new(format!("{} (control)", base.name()), base)?];
        for &variant in &variants {
            subjects.push(new(variant.name(), variant)?);
        }
        let mut add_others = |of: Program, program: &Path, conditions| {
            for variant in all().filter(|variant| variant.program() == of) {
                let name = format!("other {}", variant.name());
                subjects.push(Self::new(name, variant, program, conditions)?);
            }
            Ok::<_, BoxError>(())
        };
        if let Some((other, runtime)) = setup.other(&this) {
            add_others(Program::Bench, &other, Conditions { runtime, ..conditions })?;
        }
        if let Some(other) = &setup.other_gateway {
            add_others(Program::Gateway, &gateway::program(Some(other))?, conditions)?;
        }
        Ok(subjects)
    }

    /// Returns the raw pass-through and the gateway.
    pub(crate) fn raw_and_gateway(
        setup: &Setup,
        conditions: Conditions,
    ) -> Result<[Self; 2], BoxError> {
        let new = |variant: Variant, program: &Path| {
            Self::new(variant.name(), variant, program, conditions)
        };
        let gateway = gateway::program(setup.gateway.as_deref())?;
        Ok([new(Variant::Raw, &std::env::current_exe()?)?, new(Variant::Gateway, &gateway)?])
    }

    fn new(
        name: String,
        variant: Variant,
        program: &Path,
        conditions: Conditions,
    ) -> Result<Self, BoxError> {
        // In the target directory, as temporary files may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let needs_server = matches!(variant.back_end(), Some(BackEnd::Postgres));
        let postgres = needs_server.then(Database::start);
        let program = program.to_owned();
        let subject = Self { name, variant, conditions, program, directory, postgres };
        // The others issue their keys themselves.
        if variant.program() == Program::Gateway {
            proxy::issue_keys(&subject.database(), conditions.keys())?;
        }
        Ok(subject)
    }

    /// Returns the path of the SQLite file, or the beginning of the journal's files beside PostgreSQL.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("quota.db")
    }

    /// Returns the URL of the PostgreSQL database, if the variant has one.
    pub(crate) fn url(&self) -> Option<&str> {
        self.postgres.as_ref().map(|database| &*database.url)
    }

    pub(crate) fn start(&self) -> Result<Server, BoxError> {
        match self.variant.program() {
            Program::Rival => rivals::start(self.variant, self.conditions, self.directory.path()),
            Program::Bench | Program::Gateway => self.start_as(Command::new(&self.program)),
        }
    }

    /// Starts this program's proxy or the gateway with `command`, which runs the program with further
    /// arguments.
    pub(crate) fn start_as(&self, mut command: Command) -> Result<Server, BoxError> {
        let Conditions { upstream, runtime, .. } = self.conditions;
        if self.variant.program() == Program::Gateway {
            let threads = runtime.threads();
            return gateway::start(&command, self.variant, upstream, threads, &self.database());
        }
        let runtime = match runtime {
            Runtime::Current => "current",
            Runtime::Multi => "multi",
        };
        command
            .args(["proxy", &self.variant.name(), &upstream.to_string()])
            .args(["--runtime", runtime, "--database"])
            .arg(self.database());
        // An older build, which has no such option, has the default number.
        if self.conditions.keys() != DEFAULT_KEYS {
            command.args(["--keys", &self.conditions.keys().to_string()]);
        }
        if let Some(url) = self.url() {
            command.args(["--url", url]);
        }
        Server::start(&mut command)
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}
