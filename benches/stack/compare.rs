//! Compares every variant with the base, by default the raw pass-through.
//!
//! A machine's speed drifts by more than what is measured here. So both proxies run all the time, they
//! get load in windows of the order A B B A, and only the ratio within such a group counts.

use std::{io, time::Duration};

use tower::BoxError;

use crate::{
    bootstrap::{Estimate, estimate},
    load::{Job, Keys, Load, Until, Window},
    options::Plan,
    process::Server,
    responses::Kind,
    stats,
    subject::Subject,
};

/// A running subject.
pub(crate) struct RunningSubject {
    // Before the subject, so that the process has ended when its files are removed.
    pub(crate) server: Server,
    pub(crate) subject: Subject,
    /// Number of responses so far.
    pub(crate) responses: u64,
    /// The first key that was not used in a load of kind `first`.
    next_key: usize,
}

/// Number of requests of a window in which each has a key that was not used before.
pub(crate) const FIRST_REQUESTS: usize = 400;

/// What a window sends.
#[derive(Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    /// Number of keys among which requests are spread evenly.
    pub(crate) keys: usize,
    pub(crate) until: Until,
}

impl RunningSubject {
    pub(crate) fn start(subject: Subject) -> Result<Self, BoxError> {
        Ok(Self {
            server: subject.start()?,
            responses: 0,
            next_key: subject.conditions.warm_keys,
            subject,
        })
    }

    fn restart(&mut self) -> Result<(), BoxError> {
        self.server.end();
        self.server = self.subject.start()?;
        Ok(())
    }

    pub(crate) fn window(
        &mut self,
        load: &mut Load,
        Requests { kind, connections, keys, until }: Requests,
    ) -> Result<Window, BoxError> {
        let keys = match kind {
            Kind::First => {
                self.next_key += FIRST_REQUESTS;
                Keys::From(self.next_key - FIRST_REQUESTS)
            }
            _ => Keys::Any(keys),
        };
        self.job(
            load,
            Job { address: self.server.address, kind, connections, keys, rate: 0, until },
        )
    }

    /// Uses each of the keys once, so that all are in memory and have a count of the day.
    fn use_keys(&mut self, load: &mut Load, requests: Requests) -> Result<(), BoxError> {
        let Requests { connections, keys, .. } = requests;
        let address = self.server.address;
        let until = Until::Requests(keys as u64);
        let keys = Keys::From(0);
        self.job(load, Job { address, kind: Kind::Json, connections, keys, rate: 0, until })
            .map(drop)
    }

    pub(crate) fn job(&mut self, load: &mut Load, job: Job) -> Result<Window, BoxError> {
        let window = load.run(job).map_err(|error| format!("{}: {error}", self.subject.name))?;
        self.responses += window.responses;
        Ok(window)
    }
}

/// One proxy's part of a group.
#[derive(Default)]
struct Side {
    cpu: Duration,
    responses: u64,
    elapsed: Duration,
    latencies: Vec<u64>,
}

impl Side {
    fn add(&mut self, window: Window) {
        self.responses += window.responses;
        self.elapsed += window.elapsed;
        self.latencies.extend(window.latencies);
    }

    /// Returns the CPU time per request in microseconds.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.responses as f64
    }

    /// Returns the requests per second.
    fn rate(&self) -> f64 {
        self.responses as f64 / self.elapsed.as_secs_f64()
    }
}

/// The result of one variant under one kind of load. Times are in microseconds.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cpu: f64,
    pub(crate) rate: f64,
    pub(crate) latency: Latency,
    /// The comparison with the base; `None` for itself.
    pub(crate) against: Option<Comparison>,
}

pub(crate) struct Comparison {
    pub(crate) cpu: Estimate,
    pub(crate) rate: f64,
    pub(crate) latency: Latency,
}

#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    fn minus(self, other: Self) -> Self {
        Self { p50: self.p50 - other.p50, p99: self.p99 - other.p99 }
    }
}

/// Groups of one variant by round: the base's side and the variant's.
type Rounds = Vec<Vec<[Side; 2]>>;

/// Compares all subjects with the first.
///
/// Two processes of one program differ by a per cent or two for as long as they live, by their memory
/// layout and hash seeds. So all are restarted for each round, and the interval includes this effect.
pub(crate) fn compare(
    running: &mut [RunningSubject],
    requests: Requests,
    plan: &Plan,
) -> Result<Vec<Row>, BoxError> {
    let kind = requests.kind;
    let (rounds, groups) = plan.rounds_and_groups(kind);
    let mut measured: Vec<Rounds> = running.iter().map(|_| Rounds::new()).collect();
    for round in 1..=rounds {
        let mut load = Load::start()?;
        for subject in &mut *running {
            subject.restart()?;
            // Warms up: opens the connections on both sides, reads keys and counters.
            subject.use_keys(&mut load, requests)?;
            subject.window(&mut load, requests)?;
        }
        measured.iter_mut().for_each(|rounds| rounds.push(Vec::new()));
        for group in 1..=groups {
            eprint!("\r{}: round {round} of {rounds}, group {group} of {groups} ", kind.name());
            let Some((base, others)) = running.split_first_mut() else { continue };
            for (other, rounds) in others.iter_mut().zip(&mut measured[1..]) {
                rounds[round - 1].push(measure_group(&mut load, base, other, requests)?);
            }
        }
    }
    eprintln!();
    let names = running.iter().map(|running| &running.subject.name);
    let rows = names.zip(&measured).skip(1).map(|(name, rounds)| row(name, rounds));
    let mut rows: Vec<Row> = rows.collect();
    // The row of the base itself comes from its groups with the control.
    rows.insert(0, side_row(&running[0].subject.name, &measured[1], 0));
    Ok(rows)
}

fn measure_group(
    load: &mut Load,
    a: &mut RunningSubject,
    b: &mut RunningSubject,
    requests: Requests,
) -> Result<[Side; 2], BoxError> {
    let (mut side_a, mut side_b) = (Side::default(), Side::default());
    let clocks =
        |a: &RunningSubject, b: &RunningSubject| io::Result::Ok((a.server.cpu()?, b.server.cpu()?));
    let before = clocks(a, b)?;
    side_a.add(a.window(load, requests)?);
    side_b.add(b.window(load, requests)?);
    side_b.add(b.window(load, requests)?);
    side_a.add(a.window(load, requests)?);
    // Read at the end of the group, not of the window, to include deferred work.
    let after = clocks(a, b)?;
    side_a.cpu = after.0 - before.0;
    side_b.cpu = after.1 - before.1;
    Ok([side_a, side_b])
}

fn row(name: &str, rounds: &Rounds) -> Row {
    let ratios = |value: fn(&Side) -> f64| -> Vec<Vec<f64>> {
        let ratio = |[base, side]: &[Side; 2]| value(side) / value(base);
        rounds.iter().map(|groups| groups.iter().map(ratio).collect()).collect()
    };
    let against = Comparison {
        cpu: estimate(&ratios(Side::cost)),
        rate: stats::median(&mut ratios(Side::rate).concat()),
        latency: latency(rounds, 1).minus(latency(rounds, 0)),
    };
    Row { against: Some(against), ..side_row(name, rounds, 1) }
}

fn side_row(name: &str, rounds: &Rounds, side: usize) -> Row {
    let median = |value: fn(&Side) -> f64| {
        let mut values: Vec<f64> =
            rounds.iter().flatten().map(|sides| value(&sides[side])).collect();
        stats::median(&mut values)
    };
    Row {
        name: name.to_owned(),
        cpu: median(Side::cost),
        rate: median(Side::rate),
        latency: latency(rounds, side),
        against: None,
    }
}

fn latency(rounds: &Rounds, side: usize) -> Latency {
    let latencies = rounds.iter().flatten().flat_map(|sides| &sides[side].latencies);
    let mut all: Vec<u64> = latencies.copied().collect();
    all.sort_unstable();
    let micros = |share| stats::percentile(&all, share) as f64 / 1e3;
    Latency { p50: micros(0.5), p99: micros(0.99) }
}
