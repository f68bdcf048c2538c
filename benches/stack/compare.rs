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
    fn of(sides: &[Side]) -> Self {
        let mut all: Vec<u64> = sides.iter().flat_map(|side| &side.latencies).copied().collect();
        all.sort_unstable();
        let micros = |share| stats::percentile(&all, share) as f64 / 1e3;
        Self { p50: micros(0.5), p99: micros(0.99) }
    }

    fn minus(self, other: Self) -> Self {
        Self { p50: self.p50 - other.p50, p99: self.p99 - other.p99 }
    }
}

/// Measures all against the first.
pub(crate) fn compare(
    load: &mut Load,
    running: &mut [Running],
    kind: Kind,
    plan: &Plan,
) -> Result<Vec<Row>, BoxError> {
    let (connections, until) = match kind {
        Kind::Slow => (1, Until::Requests(25)),
        _ => (plan.connections, Until::Elapsed(plan.window())),
    };
    let Some((raw, others)) = running.split_first_mut() else {
        return Ok(Vec::new());
    };
    for subject in std::iter::once(&mut *raw).chain(&mut *others) {
        // Opens the connections on both sides, reads keys and counters.
        subject.window(load, (kind, connections, until))?;
    }
    let mut bases: Vec<Vec<Side>> = others.iter().map(|_| Vec::new()).collect();
    let mut sides: Vec<Vec<Side>> = others.iter().map(|_| Vec::new()).collect();
    for group in 1..=plan.groups(kind) {
        eprint!("\r{}: group {group} of {} ", kind.name(), plan.groups(kind));
        for (number, other) in others.iter_mut().enumerate() {
            let [base, side] = measure_group(load, raw, other, (kind, connections, until))?;
            bases[number].push(base);
            sides[number].push(side);
        }
    }
    eprintln!();
    let mut rows: Vec<Row> =
        (0..others.len()).map(|i| row(&others[i].subject.name, &bases[i], &sides[i])).collect();
    let all_bases: Vec<Side> = bases.into_iter().flatten().collect();
    rows.insert(0, Row { against: None, ..row(&raw.subject.name, &all_bases, &all_bases) });
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

fn row(name: &str, bases: &[Side], sides: &[Side]) -> Row {
    let median =
        |value: fn(&Side) -> f64| stats::median(&mut sides.iter().map(value).collect::<Vec<_>>());
    let ratios = |value: fn(&Side) -> f64| -> Vec<f64> {
        bases.iter().zip(sides).map(|(base, side)| value(side) / value(base)).collect()
    };
    let latency = Latency::of(sides);
    Row {
        name: name.to_owned(),
        cpu: median(Side::cost),
        rate: median(Side::rate),
        latency,
        against: Some(Against {
            cpu: estimate(&ratios(Side::cost)),
            rate: stats::median(&mut ratios(Side::rate)),
            latency: latency.minus(Latency::of(bases)),
        }),
    }
}
