//! The command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    compare::{FIRST_REQUESTS, Requests as WindowRequests},
    load::Until,
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
    /// System calls per request (strace), one connection.
    Syscalls {
        #[command(flatten)]
        requests: Requests,
    },
    /// Instructions per request (callgrind), one connection.
    Instructions {
        #[command(flatten)]
        requests: Requests,
        /// Directory for the profiles, for `callgrind_annotate`.
        #[arg(long, value_name = "DIRECTORY")]
        profiles: Option<PathBuf>,
    },
    /// Resident memory at rest, and for each of many idle streams.
    Memory {
        #[arg(long, default_value_t = 5_000)]
        streams: usize,
    },
    /// Latency of JSON requests that are sent at fixed rates, whether responses are there or not.
    Rates {
        /// Requests per second.
        #[arg(long, value_delimiter = ',', default_values_t = [1_000, 2_000, 4_000, 8_000, 12_000, 16_000, 24_000, 32_000])]
        rates: Vec<u64>,
        /// Length of a window.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Instructions and system calls of the gateway; fails if they are above benches/budget.toml.
    Budget,
    /// Draws the pictures of docs/performance.md from its tables.
    Pictures,
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
    /// Numbers of keys among which requests are spread evenly, each measured by itself. One million are
    /// issued in minutes, and used once in as many before each round.
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [DEFAULT_KEYS])]
    pub(crate) keys: Vec<usize>,
    /// Variants to measure in addition to `raw`; all that are installed if none is given.
    #[arg(long, global = true, value_delimiter = ',')]
    variants: Vec<Variant>,
    /// Variant with which the others are compared in the place of `raw`.
    #[arg(long, global = true, default_value = "raw")]
    pub(crate) base: Variant,
    /// The proxy's runtime, by default that of the gateway on two cores; of HAProxy and nginx, the number
    /// of threads or workers.
    #[arg(long, global = true, default_value = "current")]
    pub(crate) runtime: Runtime,
    /// Gateway to measure; without it, the one of this checkout is built.
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub(crate) gateway: Option<PathBuf>,
    /// Another build of the gateway (other revision, other profile) to measure, too.
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub(crate) other_gateway: Option<PathBuf>,
    /// Another build of this program (other allocator, other revision) to measure, too.
    #[arg(long, global = true, value_name = "PROGRAM")]
    other: Option<PathBuf>,
    /// Runtime of the other build; without --other, this build is measured again with this runtime.
    #[arg(long, global = true, value_name = "RUNTIME")]
    other_runtime: Option<Runtime>,
}

/// Number of keys.
pub(crate) const DEFAULT_KEYS: usize = 16;

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
    pub(crate) fn other(&self, this: &Path) -> Option<(PathBuf, Runtime)> {
        let has_other = self.other.is_some() || self.other_runtime.is_some();
        let program = self.other.as_deref().unwrap_or(this).to_owned();
        has_other.then(|| (program, self.other_runtime.unwrap_or(self.runtime)))
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
    /// Prompts of 100 KB (not among the default ones).
    #[arg(long)]
    prompts: bool,
    /// JSON responses of 16 KB (not among the default ones).
    #[arg(long)]
    large: bool,
    /// Bursts of 200 events, flushed together (not among the default ones).
    #[arg(long)]
    bursts: bool,
    /// Requests with keys that were not used before (not among the default ones).
    #[arg(long)]
    first: bool,
    /// Groups of four windows per variant; a quarter of them for latency.
    #[arg(long, default_value_t = 60)]
    groups: usize,
    /// Length of a window in milliseconds.
    #[arg(long, default_value_t = 200)]
    window: u64,
    /// Number of times that all proxies are restarted; the groups are divided among these rounds.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Numbers of connections at full load, each measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    pub(crate) connections: Vec<usize>,
    /// Only two rounds of three groups: a smoke test without significance.
    #[arg(long)]
    quick: bool,
}

impl Plan {
    fn kinds(&self) -> Vec<Kind> {
        let flags = [
            (self.json, Kind::Json),
            (self.streams, Kind::Stream),
            (self.paced, Kind::Paced),
            (self.latency, Kind::Slow),
            (self.prompts, Kind::Prompt),
            (self.large, Kind::Large),
            (self.bursts, Kind::Burst),
            (self.first, Kind::First),
        ];
        let is_any_set = flags.iter().any(|(is_set, _)| *is_set);
        let is_default = |kind| matches!(kind, Kind::Json | Kind::Stream | Kind::Slow);
        let is_measured =
            |&(is_set, kind): &(bool, Kind)| is_set || (!is_any_set && is_default(kind));
        flags.into_iter().filter(is_measured).map(|(_, kind)| kind).collect()
    }

    /// Returns what is sent, table by table.
    pub(crate) fn tables(&self, keys: &[usize]) -> Vec<WindowRequests> {
        let mut tables = Vec::new();
        for kind in self.kinds() {
            let (connections, until) = match kind {
                Kind::Slow => (&[1][..], Until::Requests(25)),
                Kind::First => (&*self.connections, Until::Requests(FIRST_REQUESTS as u64)),
                _ => (&*self.connections, Until::Elapsed(Duration::from_millis(self.window))),
            };
            for &connections in connections {
                for &keys in keys {
                    tables.push(WindowRequests { kind, connections, keys, until });
                }
            }
        }
        tables
    }

    /// Returns the number of keys that loads of kind `first` use of each subject.
    pub(crate) fn first_keys(&self, subjects: usize, keys: &[usize]) -> usize {
        let first = self.tables(keys).iter().filter(|table| table.kind == Kind::First).count();
        let (rounds, groups) = self.rounds_and_groups(Kind::First);
        // A base has windows with each of the others.
        first * rounds * (1 + 2 * groups * subjects) * FIRST_REQUESTS
    }

    /// Returns the number of rounds, and of groups in each.
    pub(crate) fn rounds_and_groups(&self, kind: Kind) -> (usize, usize) {
        let (rounds, groups) = if self.quick { (2, 6) } else { (self.rounds.max(1), self.groups) };
        let groups = if kind == Kind::Slow { groups.div_ceil(4) } else { groups };
        (rounds, groups.div_ceil(rounds).max(1))
    }
}
