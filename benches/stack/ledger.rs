//! Whether the stores' counts are exact, after `kill -9` as well.

use std::{path::Path, thread::sleep, time::Duration};

use tower::BoxError;
use tower_quota::store::{AdminStore, KeyPageQuery, sqlite::Durability};

use crate::{
    answers::Kind,
    compare::Running,
    load::{Load, Order, Until},
    options::Runtime,
    proxy::{KEYS, open},
};

/// Kills the proxy when it is idle, then once more amid requests, and compares what is counted with
/// what was answered. Prints a line; `false` if the counts are wrong.
pub(crate) fn check(
    running: Running,
    durability: Durability,
    connections: usize,
) -> Result<bool, BoxError> {
    let Running { subject, server, answered } = running;
    server.kill()?;
    let idle = total(&subject.database(), durability)?;

    let server = subject.start()?;
    let mut load = Load::start()?;
    let until = Until::Elapsed(Duration::from_secs(10));
    load.begin(Order { address: server.address, kind: Kind::Json, connections, until })?;
    sleep(Duration::from_millis(500));
    server.kill()?;
    let amid = load.outcome()?;
    let counted = total(&subject.database(), durability)?;

    // A request that was not answered may be counted or not.
    let (least, most) = (answered + amid.answered, answered + amid.answered + amid.failed);
    let exact = idle == answered && (least..=most).contains(&counted);
    println!(
        "- {}: {answered} answered, {idle} counted after `kill -9`; killed again amid {connections} \
         requests: {least} answered, {counted} counted, {most} sent. {}",
        subject.name,
        if exact { "Exact." } else { "**WRONG.**" },
    );
    Ok(exact)
}

/// Units used by all keys.
fn total(database: &Path, durability: Durability) -> Result<u64, BoxError> {
    Runtime::Current.build()?.block_on(async {
        let store = open(database, durability)?;
        let query = KeyPageQuery { limit: KEYS, ..KeyPageQuery::default() };
        let page = store.list(query).await?;
        store.close().await?;
        Ok(page.keys.iter().map(|key| key.total_used).sum())
    })
}
