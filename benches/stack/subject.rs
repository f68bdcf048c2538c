//! A proxy to measure.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tower::BoxError;

use crate::{
    options::{Runtime, Setup},
    postgres::Postgres,
    process::Server,
    proxy::{BackEnd, Variant},
    rivals,
};

/// How to start a proxy, and its directory.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) variant: Variant,
    program: PathBuf,
    runtime: Runtime,
    upstream: SocketAddr,
    directory: TempDir,
    postgres: Option<Database>,
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
    pub(crate) fn all(
        setup: &Setup,
        runtime: Runtime,
        upstream: SocketAddr,
    ) -> Result<Vec<Self>, BoxError> {
        let this = std::env::current_exe()?;
        let new = |name: String, variant: Variant, program: &Path, runtime| {
            // In the target directory, as temporary files may be in memory.
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
            let program = program.to_owned();
            let needs_server = matches!(variant.back_end(), Some(BackEnd::Postgres));
            let postgres = needs_server.then(Database::start);
            Ok::<_, BoxError>(Self {
                name,
                variant,
                program,
                runtime,
                upstream,
                directory,
                postgres,
            })
        };
        let base = setup.base;
        let mut subjects = vec![
            new(base.name(), base, &this, runtime)?,
            new(format!("{} (control)", base.name()), base, &this, runtime)?,
        ];
        for variant in setup.variants() {
            subjects.push(new(variant.name(), variant, &this, runtime)?);
        }
        if let Some((other, runtime)) = setup.other(&this, runtime) {
            let own = |variant: &Variant| !matches!(variant, Variant::Haproxy | Variant::Nginx);
            for variant in std::iter::once(base).chain(setup.variants()).filter(own) {
                subjects.push(new(format!("other {}", variant.name()), variant, &other, runtime)?);
            }
        }
        Ok(subjects)
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
        match self.variant {
            Variant::Haproxy | Variant::Nginx => {
                let threads = self.runtime.threads();
                rivals::start(self.variant, self.upstream, threads, self.directory.path())
            }
            _ => self.start_as(Command::new(&self.program)),
        }
    }

    /// Starts this program's proxy with `command`, which runs the program with further arguments.
    pub(crate) fn start_as(&self, mut command: Command) -> Result<Server, BoxError> {
        let runtime = match self.runtime {
            Runtime::Current => "current",
            Runtime::Multi => "multi",
        };
        command
            .args(["proxy", &self.variant.name(), &self.upstream.to_string()])
            .args(["--runtime", runtime, "--database"])
            .arg(self.database());
        if let Some(url) = self.url() {
            command.args(["--url", url]);
        }
        Server::start(&mut command)
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}
