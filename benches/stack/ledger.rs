//! Checks that the stores' counts are exact, also after `kill -9`.

use std::{path::Path, thread::sleep, time::Duration};

use tower::BoxError;
use tower_quota::{
    admin::store::{AdminStore, KeyPageQuery},
    store::sqlite::Durability,
};

use crate::{
    compare::RunningSubject,
    load::{Job, Load, Until},
    options::Runtime,
    proxy::{KEYS, open},
    responses::Kind,
};

/// Kills the proxy while it is idle, then once more during requests, and compares the counts with the
/// number of responses. Prints a line, and returns `false` if the counts are wrong.
pub(crate) fn check(
    running: RunningSubject,
    durability: Durability,
    connections: usize,
) -> Result<bool, BoxError> {
    let RunningSubject { subject, server, responses } = running;
    server.kill()?;
    let idle = total(&subject.database(), durability)?;

    let server = subject.start()?;
    let mut load = Load::start()?;
    let until = Until::Elapsed(Duration::from_secs(10));
    load.begin(Job { address: server.address, kind: Kind::Json, connections, until })?;
    sleep(Duration::from_millis(500));
    server.kill()?;
    let window = load.outcome()?;
    let counted = total(&subject.database(), durability)?;

    // A request without a response may be counted or not.
    let completed = responses + window.responses;
    let sent = completed + window.failed;
    let exact = idle == responses && (completed..=sent).contains(&counted);
    println!(
        "- {}: {responses} completed, {idle} counted after `kill -9`; killed again during \
         {connections} requests: {completed} completed, {counted} counted, {sent} sent. {}",
        subject.name,
        if exact { "Exact." } else { "**WRONG.**" },
    );
    Ok(exact)
}

/// Returns the units used by all keys.
fn total(database: &Path, durability: Durability) -> Result<u64, BoxError> {
    Runtime::Current.build()?.block_on(async {
        let store = open(database, durability)?;
        let query = KeyPageQuery::first(KEYS);
        let page = store.list(query).await?;
        store.close().await?;
        Ok(page.keys.iter().map(|key| key.total_used).sum())
    })
}
