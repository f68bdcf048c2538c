//! `gateway release-node`: gives up a node of a PostgreSQL database.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;
use tower::BoxError;
use tower_quota::{
    admin::store::{Actor, NodeState, NodeSummary, ReleaseOutcome},
    clock::rfc3339,
    store::postgres::{self, OpenError},
};

use super::backup::explained;
use crate::{
    logging::{BackgroundWriter, Log},
    settings::{BadSetting, Database, Settings},
};

/// Give up a node of the PostgreSQL database whose journal is lost for good, and end
///
/// A node is a gateway with its journal; the admin page and GET /admin/nodes list them. Without --accept-loss it
/// prints what may be missing, and changes nothing. Other gateways may be running.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0 if the node was released; 1 without --accept-loss; 2 if there was an error.

Examples:
  gateway release-node 3
  gateway release-node 3 --accept-loss")]
pub(crate) struct ReleaseNode {
    /// Number of the node
    number: u32,
    /// Count units that the node may have used as used, and accept its journal no more
    #[arg(long)]
    accept_loss: bool,
}

/// Prints what a node holds, and gives it up if that is accepted.
pub(crate) async fn run(
    settings: Settings,
    command: &ReleaseNode,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, log, .. } = settings;
    Log::start(log, stderr.clone());
    let Database::Postgres(url) = &database.database else {
        let problem = "a SQLite database belongs to one gateway, so it has no nodes";
        return Err(BadSetting::new("DATABASE_URL", problem).into());
    };
    let options = database.postgres_options(url)?;
    let failed = |error: OpenError| BadSetting::new("DATABASE_URL", explained(&error));
    let number = command.number;
    let node = if command.accept_loss {
        let by = Actor::new("command_line", None);
        match postgres::release_node(&options, number, by).await.map_err(failed)? {
            ReleaseOutcome::Released(node) => {
                print(&lost(&node));
                return Ok(ExitCode::SUCCESS);
            }
            ReleaseOutcome::NotSilent(node) => Some(*node),
            _ => None,
        }
    } else {
        let nodes = postgres::nodes(&options).await.map_err(failed)?;
        nodes.into_iter().find(|node| node.number == number)
    };
    let Some(node) = node else {
        return Err(format!("there is no node {number}; GET /admin/nodes lists them").into());
    };
    if let Some(problem) = not_silent(&node) {
        return Err(problem.into());
    }
    print(&held(&node));
    Ok(ExitCode::FAILURE)
}

/// Returns why the node cannot be released, unless it is silent.
fn not_silent(node: &NodeSummary) -> Option<String> {
    let number = node.number;
    match node.state {
        NodeState::Silent => None,
        NodeState::Closed => {
            Some(format!("node {number} holds nothing: its journal is closed, nothing is missing"))
        }
        NodeState::Released => Some(format!("node {number} was released before")),
        _ => Some(format!(
            "node {number} is in use: it is connected, or was a few seconds ago; stop its process first: if it ends \
             by itself, nothing is missing"
        )),
    }
}

/// Describes what may be missing if the node is released.
fn held(node: &NodeSummary) -> String {
    let NodeSummary { number, id, leased_units, leased_keys, open_requests, .. } = node;
    let seen_at = rfc3339(node.seen_at);
    let mut text = format!("node {number} was last seen at {seen_at}; its journal is {id}\n");
    let _ =
        writeln!(text, "{leased_units} units of {leased_keys} keys are leased to it, used or not");
    let _ = writeln!(text, "{open_requests} requests had begun and not ended");
    text + "what it counted in its last half second is only in its journal\n\
            nothing was changed: start it again with its journal, and nothing is missing; if the journal is lost for \
            good, add --accept-loss\n"
}

/// Describes what is lost with a node.
fn lost(node: &NodeSummary) -> String {
    let NodeSummary { number, leased_units, leased_keys, open_requests, .. } = node;
    let seen_at = rfc3339(node.seen_at);
    let mut text = format!("node {number} is released; its journal is not accepted any more\n");
    let _ = writeln!(
        text,
        "lost: requests that only its journal has, up to half a second before {seen_at}"
    );
    if *leased_units > 0 {
        let _ = writeln!(
            text,
            "lost: {leased_units} units of {leased_keys} keys may not have been used, and count as used"
        );
    }
    if *open_requests > 0 {
        let _ = writeln!(
            text,
            "lost: {open_requests} requests may have succeeded, and count as failed"
        );
    }
    text
}

/// Ignores errors, as the work is done even if standard output is closed.
fn print(report: &str) {
    let _ = io::stdout().write_all(report.as_bytes());
}
