//! The role `load`: keep-alive clients that ask again as soon as they are answered, and the handle
//! by which the bench drives them.
//!
//! Each line on stdin is one order, `<address> <kind> <connections> <requests|for> <number>`; each
//! line on stdout is its outcome, `<answered> <failed> <nanoseconds> <latency> <latency> …`.

use std::{
    collections::HashMap,
    fmt, io,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tower::BoxError;

use crate::{answers::Kind, process::Role, proxy, wire::Connection};

/// One window of load.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) until: Until,
}

/// When a window ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After so many requests.
    Requests(u64),
    /// When the answers to requests begun within this time are there.
    Elapsed(Duration),
}

/// What came of an order.
#[derive(Clone, Default)]
pub(crate) struct Window {
    /// Whole answers of status 200.
    pub(crate) answered: u64,
    /// Requests that got no such answer; each ended its connection.
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from request to whole answer, without what the upstream thought; sorted.
    pub(crate) latencies: Vec<u64>,
}

/// The load process. It keeps its connections, so a server that comes after another at the same
/// address needs a new one.
pub(crate) struct Load {
    role: Role,
    orders: ChildStdin,
    outcomes: BufReader<ChildStdout>,
}

impl Load {
    pub(crate) fn start() -> Result<Self, BoxError> {
        let (role, orders, outcomes) = Role::start(&std::env::current_exe()?, ["load"])?;
        Ok(Self { role, orders, outcomes })
    }

    /// Carries out an order in which every request must be answered.
    pub(crate) fn run(&mut self, order: Order) -> Result<Window, BoxError> {
        self.begin(order)?;
        let window = self.outcome()?;
        if window.failed > 0 || window.answered == 0 {
            let Window { answered, failed, .. } = window;
            return Err(format!("{order}: {answered} answered, {failed} failed").into());
        }
        Ok(window)
    }

    pub(crate) fn begin(&mut self, order: Order) -> io::Result<()> {
        writeln!(self.orders, "{order}")
    }

    /// Waits for the outcome of the order that was begun.
    pub(crate) fn outcome(&mut self) -> Result<Window, BoxError> {
        let mut line = String::new();
        self.outcomes.read_line(&mut line)?;
        line.parse().map_err(|error| format!("load {}: {error}", self.role).into())
    }
}

/// Carries out orders until stdin ends.
pub(crate) async fn serve() -> Result<(), BoxError> {
    let mut pools = HashMap::new();
    // Blocking is right here: between two orders there is nothing to do.
    for line in io::stdin().lines() {
        let order: Order = line?.parse()?;
        let pool = pools.entry(order.address).or_insert_with(Vec::new);
        println!("{}", carry_out(order, pool).await);
    }
    Ok(())
}

async fn carry_out(order: Order, pool: &mut Vec<Connection>) -> Window {
    let begun = Instant::now();
    let left = Arc::new(AtomicU64::new(match order.until {
        Until::Requests(requests) => requests,
        Until::Elapsed(_) => u64::MAX,
    }));
    let deadline = match order.until {
        Until::Requests(_) => None,
        Until::Elapsed(elapsed) => Some(begun + elapsed),
    };
    let mut clients = JoinSet::new();
    for number in 0..order.connections {
        let request = order.kind.request(&proxy::key(number));
        let client = Client { connection: pool.pop(), latencies: Vec::new() };
        clients.spawn(client.run(order, request, left.clone(), deadline));
    }
    let mut window = Window::default();
    while let Some(Ok((client, outcome))) = clients.join_next().await {
        window.answered += client.latencies.len() as u64;
        window.latencies.extend(client.latencies);
        match outcome {
            Ok(()) => pool.extend(client.connection),
            Err(error) => {
                window.failed += 1;
                if window.failed == 1 {
                    eprintln!("{order}: {error}");
                }
            }
        }
    }
    window.elapsed = begun.elapsed();
    window.latencies.sort_unstable();
    window
}

struct Client {
    connection: Option<Connection>,
    latencies: Vec<u64>,
}

impl Client {
    async fn run(
        mut self,
        order: Order,
        request: Vec<u8>,
        left: Arc<AtomicU64>,
        deadline: Option<Instant>,
    ) -> (Self, io::Result<()>) {
        let expected = order.kind.answer_length();
        let more = || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
                && deadline.is_none_or(|deadline| Instant::now() < deadline)
        };
        while more() {
            match self.ask(order.address, &request, expected).await {
                Ok(latency) => self.latencies.push(latency),
                Err(error) => return (self, Err(error)),
            }
        }
        (self, Ok(()))
    }

    async fn ask(&mut self, to: SocketAddr, request: &[u8], expected: usize) -> io::Result<u64> {
        if self.connection.is_none() {
            self.connection = Some(Connection::new(TcpStream::connect(to).await?)?);
        }
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let begun = Instant::now();
        connection.socket.write_all(request).await?;
        let answer = connection.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let latency = begun.elapsed().as_nanos() as u64;
        if !answer.first_line.starts_with("HTTP/1.1 200 ") || answer.length != expected {
            let (line, length) = (answer.first_line, answer.length);
            return Err(io::Error::other(format!("{line}, {length} bytes instead of {expected}")));
        }
        Ok(latency.saturating_sub(answer.thought))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, kind, connections, until } = self;
        write!(f, "{address} {} {connections} ", kind.name())?;
        match until {
            Until::Requests(requests) => write!(f, "requests {requests}"),
            Until::Elapsed(elapsed) => write!(f, "for {}", elapsed.as_millis()),
        }
    }
}

impl FromStr for Order {
    type Err = BoxError;

    fn from_str(line: &str) -> Result<Self, BoxError> {
        let [address, kind, connections, until, number] =
            line.split(' ').collect::<Vec<_>>()[..].try_into()?;
        let number: u64 = number.parse()?;
        Ok(Self {
            address: address.parse()?,
            kind: Kind::from_str(kind, false)?,
            connections: connections.parse()?,
            until: match until {
                "requests" => Until::Requests(number),
                _ => Until::Elapsed(Duration::from_millis(number)),
            },
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.answered, self.failed, self.elapsed.as_nanos())?;
        self.latencies.iter().try_for_each(|latency| write!(f, " {latency}"))
    }
}

impl FromStr for Window {
    type Err = BoxError;

    fn from_str(line: &str) -> Result<Self, BoxError> {
        let mut numbers = line.split_whitespace().map(u64::from_str);
        let mut next = || numbers.next().ok_or("it ended");
        let (answered, failed) = (next()??, next()??);
        let elapsed = Duration::from_nanos(next()??);
        let latencies = numbers.collect::<Result<_, _>>()?;
        Ok(Self { answered, failed, elapsed, latencies })
    }
}
