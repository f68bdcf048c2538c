//! The role `load`: clients with persistent connections that send the next request after each response,
//! and the handle with which the bench controls them.
//!
//! Each line on stdin is one job, `<address> <kind> <connections> <any|from> <keys> <rate> <requests|for>
//! <number>`; each line on stdout is its outcome, `<responses> <failed> <nanoseconds> <latency> <latency> …`.

use std::{
    collections::HashMap,
    fmt, io,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tower::BoxError;

use crate::{bootstrap::SplitMix, process::Role, proxy, responses::Kind, wire::Connection};

/// One window of load.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) keys: Keys,
    /// Requests per second, of all connections together; 0 is the next request after each response.
    pub(crate) rate: u64,
    pub(crate) until: Until,
}

/// Which keys requests have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    /// Each any of this number of keys.
    Any(usize),
    /// Each the next one, from this number on.
    From(usize),
}

/// When a window ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After a number of requests.
    Requests(u64),
    /// When the requests that began within this time are complete.
    Elapsed(Duration),
}

/// The outcome of a job.
#[derive(Clone, Default)]
pub(crate) struct Window {
    /// Number of complete responses with status 200.
    pub(crate) responses: u64,
    /// Number of other requests; each ended its connection.
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from request to complete response, without the upstream's delay; sorted.
    pub(crate) latencies: Vec<u64>,
}

/// The load process. It keeps its connections, so a restarted server at the same address needs a new
/// load process.
pub(crate) struct Load {
    role: Role,
    jobs: ChildStdin,
    outcomes: BufReader<ChildStdout>,
}

impl Load {
    pub(crate) fn start() -> Result<Self, BoxError> {
        let (role, jobs, outcomes) = Role::start(&std::env::current_exe()?, ["load"])?;
        Ok(Self { role, jobs, outcomes })
    }

    /// Runs a job in which no request may fail.
    pub(crate) fn run(&mut self, job: Job) -> Result<Window, BoxError> {
        self.begin(job)?;
        let window = self.outcome()?;
        if window.failed > 0 || window.responses == 0 {
            let Window { responses, failed, .. } = window;
            return Err(format!("{job}: {responses} completed, {failed} failed").into());
        }
        Ok(window)
    }

    pub(crate) fn begin(&mut self, job: Job) -> io::Result<()> {
        writeln!(self.jobs, "{job}")
    }

    /// Waits for the outcome of the job that was begun.
    pub(crate) fn outcome(&mut self) -> Result<Window, BoxError> {
        let mut line = String::new();
        self.outcomes.read_line(&mut line)?;
        line.parse().map_err(|error| format!("load {}: {error}", self.role).into())
    }
}

/// Runs jobs until stdin ends.
pub(crate) async fn serve() -> Result<(), BoxError> {
    let mut pools = HashMap::new();
    // May block, as there is nothing to do between two jobs.
    for line in io::stdin().lines() {
        let job: Job = line?.parse()?;
        let pool = pools.entry(job.address).or_insert_with(Vec::new);
        println!("{}", run_job(job, pool).await);
    }
    Ok(())
}

async fn run_job(job: Job, pool: &mut Vec<Connection>) -> Window {
    let start = Instant::now();
    let left = Arc::new(AtomicU64::new(match job.until {
        Until::Requests(requests) => requests,
        Until::Elapsed(_) => u64::MAX,
    }));
    let deadline = match job.until {
        Until::Requests(_) => None,
        Until::Elapsed(elapsed) => Some(start + elapsed),
    };
    let next_key = Arc::new(AtomicUsize::new(match job.keys {
        Keys::Any(_) => 0,
        Keys::From(first) => first,
    }));
    let mut clients = JoinSet::new();
    for number in 0..job.connections {
        let client = Client {
            connection: pool.pop(),
            latencies: Vec::new(),
            request: Request::new(job.kind),
            random: SplitMix(start.elapsed().as_nanos() as u64 ^ (number as u64) << 32),
            next_key: next_key.clone(),
            pace: Pace::of(job, number, start),
        };
        clients.spawn(client.run(job, left.clone(), deadline));
    }
    let mut window = Window::default();
    while let Some(Ok((client, outcome))) = clients.join_next().await {
        window.responses += client.latencies.len() as u64;
        window.latencies.extend(client.latencies);
        match outcome {
            Ok(()) => pool.extend(client.connection),
            Err(error) => {
                window.failed += 1;
                if window.failed == 1 {
                    eprintln!("{job}: {error}");
                }
            }
        }
    }
    window.elapsed = start.elapsed();
    window.latencies.sort_unstable();
    window
}

/// The bytes of a request, whose key is changed.
struct Request {
    bytes: Vec<u8>,
    key_at: usize,
}

impl Request {
    fn new(kind: Kind) -> Self {
        let key = proxy::key(0);
        let bytes = kind.request(&key);
        let key_at = bytes.windows(key.len()).position(|window| window == key.as_bytes());
        Self { bytes, key_at: key_at.expect("requests have a key") }
    }

    fn set_key(&mut self, number: usize) {
        let key = proxy::key(number);
        self.bytes[self.key_at..self.key_at + key.len()].copy_from_slice(key.as_bytes());
    }
}

/// When a connection sends requests, if that does not depend on responses.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    fn of(job: Job, connection: usize, start: Instant) -> Option<Self> {
        let between = Duration::from_secs(1).checked_div(u32::try_from(job.rate).ok()?)?;
        let next = start + between * connection as u32;
        Some(Self { next, interval: between * job.connections as u32 })
    }

    /// Waits until the next request is due. Returns when it was, so that a connection that is still busy
    /// then adds to the latency, or the time after waiting, as timers are coarser than what is measured.
    async fn due(&mut self) -> Instant {
        let due = self.next;
        self.next += self.interval;
        if Instant::now() >= due {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

struct Client {
    connection: Option<Connection>,
    latencies: Vec<u64>,
    request: Request,
    random: SplitMix,
    next_key: Arc<AtomicUsize>,
    pace: Option<Pace>,
}

impl Client {
    async fn run(
        mut self,
        job: Job,
        left: Arc<AtomicU64>,
        deadline: Option<Instant>,
    ) -> (Self, io::Result<()>) {
        let expected = job.kind.response_length();
        let is_running = || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
                && deadline.is_none_or(|deadline| Instant::now() < deadline)
        };
        while is_running() {
            let start = match &mut self.pace {
                Some(pace) => pace.due().await,
                None => Instant::now(),
            };
            self.request.set_key(match job.keys {
                Keys::Any(count) => self.random.below(count),
                Keys::From(_) => self.next_key.fetch_add(1, Ordering::Relaxed),
            });
            match self.send(job.address, start, expected).await {
                Ok(latency) => self.latencies.push(latency),
                Err(error) => return (self, Err(error)),
            }
        }
        (self, Ok(()))
    }

    async fn send(&mut self, to: SocketAddr, start: Instant, expected: usize) -> io::Result<u64> {
        if self.connection.is_none() {
            self.connection = Some(Connection::new(TcpStream::connect(to).await?)?);
        }
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        connection.socket.write_all(&self.request.bytes).await?;
        let response = connection.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let latency = start.elapsed().as_nanos() as u64;
        if !response.first_line.starts_with("HTTP/1.1 200 ") || response.length != expected {
            let (line, length) = (response.first_line, response.length);
            return Err(io::Error::other(format!("{line}, {length} bytes instead of {expected}")));
        }
        Ok(latency.saturating_sub(response.delay))
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, kind, connections, keys, rate, until } = self;
        write!(f, "{address} {} {connections} ", kind.name())?;
        match keys {
            Keys::Any(count) => write!(f, "any {count} {rate} ")?,
            Keys::From(first) => write!(f, "from {first} {rate} ")?,
        }
        match until {
            Until::Requests(requests) => write!(f, "requests {requests}"),
            Until::Elapsed(elapsed) => write!(f, "for {}", elapsed.as_millis()),
        }
    }
}

impl FromStr for Job {
    type Err = BoxError;

    fn from_str(line: &str) -> Result<Self, BoxError> {
        let [address, kind, connections, keys, key, rate, until, number] =
            line.split(' ').collect::<Vec<_>>()[..].try_into()?;
        let (number, key): (u64, usize) = (number.parse()?, key.parse()?);
        Ok(Self {
            address: address.parse()?,
            kind: Kind::from_str(kind, false)?,
            connections: connections.parse()?,
            keys: match keys {
                "any" => Keys::Any(key),
                _ => Keys::From(key),
            },
            rate: rate.parse()?,
            until: match until {
                "requests" => Until::Requests(number),
                _ => Until::Elapsed(Duration::from_millis(number)),
            },
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.responses, self.failed, self.elapsed.as_nanos())?;
        self.latencies.iter().try_for_each(|latency| write!(f, " {latency}"))
    }
}

impl FromStr for Window {
    type Err = BoxError;

    fn from_str(line: &str) -> Result<Self, BoxError> {
        let mut numbers = line.split_whitespace().map(u64::from_str);
        let mut next = || numbers.next().ok_or("it ended");
        let (responses, failed) = (next()??, next()??);
        let elapsed = Duration::from_nanos(next()??);
        let latencies = numbers.collect::<Result<_, _>>()?;
        Ok(Self { responses, failed, elapsed, latencies })
    }
}
