//! Every variant against the raw pass-through, in turns.
//!
//! A machine's speed drifts by more than what is measured here. So both proxies run all the time,
//! load goes to them in windows of the order A B B A, and only the ratio within such a group counts.

use std::{io, time::Duration};

use tower::BoxError;

use crate::{
    answers::Kind,
    bootstrap::{Estimate, estimate},
    load::{Load, Order, Until, Window},
    options::Plan,
    process::Server,
    stats,
    subject::Subject,
};

/// A subject that runs.
pub(crate) struct Running {
    // Before the subject, so that the process has ended when its files are removed.
    pub(crate) server: Server,
    pub(crate) subject: Subject,
    /// Requests that it has answered so far.
    pub(crate) answered: u64,
}

impl Running {
    pub(crate) fn start(subject: Subject) -> Result<Self, BoxError> {
        Ok(Self { server: subject.start()?, subject, answered: 0 })
    }

    fn restart(&mut self) -> Result<(), BoxError> {
        self.server.end();
        self.server = self.subject.start()?;
        Ok(())
    }

    pub(crate) fn window(
        &mut self,
        load: &mut Load,
        (kind, connections, until): (Kind, usize, Until),
    ) -> Result<Window, BoxError> {
        let order = Order { address: self.server.address, kind, connections, until };
        let window = load.run(order).map_err(|error| format!("{}: {error}", self.subject.name))?;
        self.answered += window.answered;
        Ok(window)
    }
}

/// One proxy's part of a group.
#[derive(Default)]
struct Side {
    cpu: Duration,
    answered: u64,
    elapsed: Duration,
    latencies: Vec<u64>,
}

impl Side {
    fn add(&mut self, window: Window) {
        self.answered += window.answered;
        self.elapsed += window.elapsed;
        self.latencies.extend(window.latencies);
    }

    /// Microseconds of CPU a request.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered as f64
    }

    /// Requests a second.
    fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

/// What is known of one variant under one kind of load. Times are in microseconds.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cpu: f64,
    pub(crate) rate: f64,
    pub(crate) latency: Latency,
    /// Against the raw pass-through; the raw pass-through itself has none.
    pub(crate) against: Option<Against>,
}

pub(crate) struct Against {
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

/// Groups of one variant, by round: the raw pass-through's part and the variant's.
type Rounds = Vec<Vec<[Side; 2]>>;

/// Measures all against the first.
///
/// Two processes of one program differ for as long as they live, by a per cent or two: memory lies
/// elsewhere, hashes are seeded anew. So all are started again for each round, and the interval
/// tells of this, too.
pub(crate) fn compare(
    running: &mut [Running],
    kind: Kind,
    plan: &Plan,
) -> Result<Vec<Row>, BoxError> {
    let (connections, until) = match kind {
        Kind::Slow => (1, Until::Requests(25)),
        _ => (plan.connections, Until::Elapsed(plan.window())),
    };
    let what = (kind, connections, until);
    let (rounds, groups) = plan.rounds_and_groups(kind);
    let mut measured: Vec<Rounds> = running.iter().map(|_| Rounds::new()).collect();
    for round in 1..=rounds {
        let mut load = Load::start()?;
        for subject in &mut *running {
            subject.restart()?;
            // Opens the connections on both sides, reads keys and counters.
            subject.window(&mut load, what)?;
        }
        measured.iter_mut().for_each(|rounds| rounds.push(Vec::new()));
        for group in 1..=groups {
            eprint!("\r{}: round {round} of {rounds}, group {group} of {groups} ", kind.name());
            let Some((raw, others)) = running.split_first_mut() else { continue };
            for (other, rounds) in others.iter_mut().zip(&mut measured[1..]) {
                rounds[round - 1].push(measure_group(&mut load, raw, other, what)?);
            }
        }
    }
    eprintln!();
    let names = running.iter().map(|running| &running.subject.name);
    let rows = names.zip(&measured).skip(1).map(|(name, rounds)| row(name, rounds));
    let mut rows: Vec<Row> = rows.collect();
    // What is known of the raw pass-through itself comes from its groups with the control.
    rows.insert(0, side_row(&running[0].subject.name, &measured[1], 0));
    Ok(rows)
}

fn measure_group(
    load: &mut Load,
    a: &mut Running,
    b: &mut Running,
    what: (Kind, usize, Until),
) -> Result<[Side; 2], BoxError> {
    let (mut side_a, mut side_b) = (Side::default(), Side::default());
    let clocks = |a: &Running, b: &Running| io::Result::Ok((a.server.cpu()?, b.server.cpu()?));
    let before = clocks(a, b)?;
    side_a.add(a.window(load, what)?);
    side_b.add(b.window(load, what)?);
    side_b.add(b.window(load, what)?);
    side_a.add(a.window(load, what)?);
    // Read at the end of the group, not of the window: work that was put off is not forgotten.
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
    let against = Against {
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
