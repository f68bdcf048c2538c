//! The command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{answers::Kind, proxy::Variant, rivals};

/// Whole requests over real sockets: what each layer costs over a raw pass-through.
///
/// Without a task: CPU, throughput and latency of every variant, each compared with the raw
/// pass-through while both run, then the exact count of the SQLite variants.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench stack --")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
    #[command(flatten)]
    pub(crate) setup: Setup,
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// What cargo passes.
    #[arg(long, global = true, hide = true)]
    pub(crate) bench: bool,
}

#[derive(Clone, Subcommand)]
pub(crate) enum Task {
    /// System calls a request (strace), one connection, one thread of tokio's unless --runtime says otherwise.
    Syscalls {
        #[command(flatten)]
        requests: Requests,
    },
    /// Instructions a request (callgrind), one connection, one thread of tokio's unless --runtime says otherwise.
    Instructions {
        #[command(flatten)]
        requests: Requests,
        /// Keeps the profiles here, for `callgrind_annotate`.
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
    },
    #[command(hide = true)]
    Load,
}

/// How many requests are counted.
#[derive(Clone, Copy, Args)]
pub(crate) struct Requests {
    /// JSON requests.
    #[arg(long = "json-requests", default_value_t = 2_000)]
    json: u64,
    /// Requests for a stream.
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
    /// Variants beside `raw`; all that are installed if none is given.
    #[arg(long, global = true, value_delimiter = ',')]
    variants: Vec<Variant>,
    /// The proxy's runtime; of HAProxy and nginx, the number of threads or workers.
    #[arg(long, global = true)]
    runtime: Option<Runtime>,
    /// Another build of this program (other allocator, other revision): its variants too.
    #[arg(long, global = true, value_name = "PROGRAM")]
    other: Option<PathBuf>,
    /// Another runtime for the other build; without --other, for this one once more.
    #[arg(long, global = true, value_name = "RUNTIME")]
    other_runtime: Option<Runtime>,
}

impl Setup {
    pub(crate) fn variants(&self) -> Vec<Variant> {
        let given = !self.variants.is_empty();
        let all = if given { &*self.variants } else { Variant::value_variants() };
        let here = |variant: &Variant| match variant {
            Variant::Raw => false,
            Variant::Haproxy | Variant::Nginx => given || rivals::is_installed(&variant.name()),
            _ => true,
        };
        all.iter().copied().filter(here).collect()
    }

    /// The other build and its runtime, if one is to be measured.
    pub(crate) fn other(&self, this: &Path, runtime: Runtime) -> Option<(PathBuf, Runtime)> {
        let wanted = self.other.is_some() || self.other_runtime.is_some();
        let program = self.other.as_deref().unwrap_or(this).to_owned();
        wanted.then(|| (program, self.other_runtime.unwrap_or(runtime)))
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
    /// Streams of 20 events sent at once, at full load.
    #[arg(long)]
    streams: bool,
    /// Streams of one event every 2 ms (not among the default ones).
    #[arg(long)]
    paced: bool,
    /// Latency on one connection before an upstream that thinks for 20 ms.
    #[arg(long)]
    latency: bool,
    /// Groups of four windows a variant; a quarter of them for latency.
    #[arg(long, default_value_t = 60)]
    groups: usize,
    /// Length of a window in milliseconds.
    #[arg(long, default_value_t = 200)]
    window: u64,
    /// How often all proxies are started anew; the groups are shared among these rounds.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Connections at full load.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Two rounds of three groups only: shows that all works, proves nothing.
    #[arg(long)]
    quick: bool,
}

impl Plan {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let asked = [
            (self.json, Kind::Json),
            (self.streams, Kind::Stream),
            (self.paced, Kind::Paced),
            (self.latency, Kind::Slow),
        ];
        let some = asked.iter().any(|(asked, _)| *asked);
        let wanted = |&(asked, kind): &(bool, Kind)| asked || (!some && kind != Kind::Paced);
        asked.into_iter().filter(wanted).map(|(_, kind)| kind).collect()
    }

    /// How many rounds, and groups in each.
    pub(crate) fn rounds_and_groups(&self, kind: Kind) -> (usize, usize) {
        let (rounds, groups) = if self.quick { (2, 6) } else { (self.rounds.max(1), self.groups) };
        let groups = if kind == Kind::Slow { groups.div_ceil(4) } else { groups };
        (rounds, groups.div_ceil(rounds).max(1))
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window)
    }
}
