//! Compares what the gateway executes for a request with what `benches/budget.toml` allows.

use std::{fs, process::ExitCode};

use toml::Table;
use tower::BoxError;

use crate::{
    compare::RunningSubject,
    instructions,
    load::Load,
    options::Setup,
    responses::Kind,
    start_upstream,
    subject::{Conditions, Subject},
    syscalls,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/budget.toml");
/// Kinds and numbers of requests whose instructions are counted. With fewer, the start of the process would have a part
/// in them, which differs, as it calibrates a clock. Events come together, as it depends on the time how many that are sent one by
/// one are read at once.
const REQUESTS: [(Kind, u64); 2] = [(Kind::Json, 10_000), (Kind::Burst, 2_000)];
/// Number of JSON requests whose system calls are counted.
const TRACED: u64 = 2_000;
/// Share above the budget that is allowed, as runs and machines differ.
const TOLERANCE: f64 = 0.03;

/// Prints a line for each figure. Fails if one is above the budget.
pub(crate) fn check(setup: &Setup) -> Result<ExitCode, BoxError> {
    let budget: Table = fs::read_to_string(FILE)?.parse()?;
    let upstream = start_upstream()?;
    let [raw, gateway] =
        Subject::raw_and_gateway(setup, Conditions::new(setup, 0, upstream.address))?;
    println!("| response | figure | budget | measured | |\n|---|---|--:|--:|---|");
    let mut is_within = true;
    let mut compare = |kind: Kind, figure: &str, measured: f64| {
        let allowed = budget.get(kind.name()).and_then(|kind| kind.get(figure));
        let allowed = allowed.and_then(|value| {
            value.as_float().or_else(|| value.as_integer().map(|value| value as f64))
        });
        let allowed = allowed.ok_or_else(|| format!("no {}.{figure} in {FILE}", kind.name()))?;
        let ratio = measured / allowed;
        let outcome = match ratio {
            _ if ratio > 1.0 + TOLERANCE => "**above**",
            _ if ratio < 1.0 - TOLERANCE => "below: lower the budget",
            _ => "",
        };
        is_within &= ratio <= 1.0 + TOLERANCE;
        let (kind, figure) = (kind.name(), figure.replace('_', " "));
        println!("| {kind} | {figure} | {allowed} | {measured:.2} | {outcome} |");
        Ok::<_, BoxError>(())
    };
    let profiles = tempfile::tempdir()?;
    let profile = profiles.path().join("profile");
    for (kind, requests) in REQUESTS {
        let each = instructions::per_request(&gateway, kind, requests, &profile)?;
        compare(kind, "instructions", each.serving.round())?;
    }
    let calls = |subject| {
        let (mut load, mut running) = (Load::start()?, RunningSubject::start(subject)?);
        syscalls::per_request(&mut load, &mut running, Kind::Json, TRACED)
    };
    compare(Kind::Json, "system_calls_over_raw", calls(gateway)? - calls(raw)?)?;
    Ok(if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
