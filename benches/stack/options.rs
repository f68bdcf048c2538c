//! The command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    postgres,
    proxy::{BackEnd, Variant},
    responses::Kind,
    rivals,
};

/// Complete requests over real sockets: the cost of each layer compared with a raw pass-through.
///
/// Without a task: CPU, throughput and latency of every variant, each compared with the raw
/// pass-through while both run, then the exact count of the SQLite and PostgreSQL variants.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench stack --")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
    #[command(flatten)]
    pub(crate) setup: Setup,
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// The flag that cargo passes.
    #[arg(long, global = true, hide = true)]
    pub(crate) bench: bool,
}

#[derive(Clone, Subcommand)]
pub(crate) enum Task {
    /// System calls per request (strace), one connection, one tokio thread unless --runtime is given.
    Syscalls {
        #[command(flatten)]
        requests: Requests,
    },
    /// Instructions per request (callgrind), one connection, one tokio thread unless --runtime is given.
    Instructions {
        #[command(flatten)]
        requests: Requests,
        /// Directory for the profiles, for `callgrind_annotate`.
        #[arg(long, value_name = "DIRECTORY")]
        profiles: Option<PathBuf>,
    },
    #[command(hide = true)]
    Upstream,
    #[command(hide = true)]
    Proxy {
        variant: Variant,
        upstream: SocketAddr,
        #[arg(long)]
        database: Option<PathBuf>,
        #[arg(long)]
        url: Option<String>,
    },
    #[command(hide = true)]
    Load,
}

/// The number of requests that are counted.
#[derive(Clone, Copy, Args)]
pub(crate) struct Requests {
    /// JSON requests.
    #[arg(long = "json-requests", default_value_t = 2_000)]
    json: u64,
    /// Streamed requests.
    #[arg(long = "stream-requests", default_value_t = 500)]
    stream: u64,
}

impl Requests {
    pub(crate) fn each(self) -> [(Kind, u64); 2] {
        [(Kind::Json, self.json), (Kind::Stream, self.stream)]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// One thread.
    Current,
    /// Two threads.
    Multi,
}

impl Runtime {
    pub(crate) fn threads(self) -> usize {
        match self {
            Self::Current => 1,
            Self::Multi => 2,
        }
    }

    pub(crate) fn build(self) -> std::io::Result<tokio::runtime::Runtime> {
        let mut builder = match self {
            Self::Current => tokio::runtime::Builder::new_current_thread(),
            Self::Multi => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.worker_threads(self.threads()).enable_all().build()
    }
}

/// What is measured.
#[derive(Clone, Args)]
pub(crate) struct Setup {
    /// Variants to measure in addition to `raw`; all that are installed if none is given.
    #[arg(long, global = true, value_delimiter = ',')]
    variants: Vec<Variant>,
    /// Variant with which the others are compared in the place of `raw`.
    #[arg(long, global = true, default_value = "raw")]
    pub(crate) base: Variant,
    /// The proxy's runtime; of HAProxy and nginx, the number of threads or workers.
    #[arg(long, global = true)]
    runtime: Option<Runtime>,
    /// Another build of this program (other allocator, other revision) to measure, too.
    #[arg(long, global = true, value_name = "PROGRAM")]
    other: Option<PathBuf>,
    /// Runtime of the other build; without --other, this build is measured again with this runtime.
    #[arg(long, global = true, value_name = "RUNTIME")]
    other_runtime: Option<Runtime>,
}

impl Setup {
    pub(crate) fn variants(&self) -> Vec<Variant> {
        let given = !self.variants.is_empty();
        let all = if given { &*self.variants } else { Variant::value_variants() };
        let is_measured = |variant: &Variant| match variant {
            variant if *variant == self.base => false,
            Variant::Haproxy | Variant::Nginx => given || rivals::is_installed(&variant.name()),
            variant => {
                let needs_server = matches!(variant.back_end(), Some(BackEnd::Postgres));
                given || !needs_server || postgres::is_installed()
            }
        };
        all.iter().copied().filter(is_measured).collect()
    }

    /// Returns the other build and its runtime, if there is one to measure.
    pub(crate) fn other(&self, this: &Path, runtime: Runtime) -> Option<(PathBuf, Runtime)> {
        let has_other = self.other.is_some() || self.other_runtime.is_some();
        let program = self.other.as_deref().unwrap_or(this).to_owned();
        has_other.then(|| (program, self.other_runtime.unwrap_or(runtime)))
    }

    pub(crate) fn runtime(&self, default: Runtime) -> Runtime {
        self.runtime.unwrap_or(default)
    }
}

/// How it is measured.
#[derive(Clone, Args)]
pub(crate) struct Plan {
    /// JSON requests at full load.
    #[arg(long)]
    json: bool,
    /// Streams of 20 events without delay, at full load.
    #[arg(long)]
    streams: bool,
    /// Streams of one event every 2 ms (not among the default ones).
    #[arg(long)]
    paced: bool,
    /// Latency on one connection with an upstream that delays responses by 20 ms.
    #[arg(long)]
    latency: bool,
    /// Groups of four windows per variant; a quarter of them for latency.
    #[arg(long, default_value_t = 60)]
    groups: usize,
    /// Length of a window in milliseconds.
    #[arg(long, default_value_t = 200)]
    window: u64,
    /// Number of times that all proxies are restarted; the groups are divided among these rounds.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Connections at full load.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Only two rounds of three groups: a smoke test without significance.
    #[arg(long)]
    quick: bool,
}

impl Plan {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let flags = [
            (self.json, Kind::Json),
            (self.streams, Kind::Stream),
            (self.paced, Kind::Paced),
            (self.latency, Kind::Slow),
        ];
        let is_any_set = flags.iter().any(|(is_set, _)| *is_set);
        let is_measured =
            |&(is_set, kind): &(bool, Kind)| is_set || (!is_any_set && kind != Kind::Paced);
        flags.into_iter().filter(is_measured).map(|(_, kind)| kind).collect()
    }

    /// Returns the number of rounds, and of groups in each.
    pub(crate) fn rounds_and_groups(&self, kind: Kind) -> (usize, usize) {
        let (rounds, groups) = if self.quick { (2, 6) } else { (self.rounds.max(1), self.groups) };
        let groups = if kind == Kind::Slow { groups.div_ceil(4) } else { groups };
        (rounds, groups.div_ceil(rounds).max(1))
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window)
    }
}
