//! Checks that the stores' counts are exact, also after `kill -9`.

use std::{thread::sleep, time::Duration};

use tower::BoxError;
use tower_quota::{
    admin::store::{AdminStore, KeyPageQuery},
    error::StoreError,
};

use crate::{
    compare::RunningSubject,
    load::{Job, Keys, Load, Until},
    options::Runtime,
    proxy::{BackEnd, open_postgres, open_sqlite},
    responses::Kind,
    subject::Subject,
};

/// Connections at the second kill.
const CONNECTIONS: usize = 64;

/// Kills the proxy while it is idle, then once more during requests, and compares the counts with the
/// number of responses. Prints a line, and returns `false` if the counts are wrong.
pub(crate) fn check(running: RunningSubject, back_end: BackEnd) -> Result<bool, BoxError> {
    let RunningSubject { subject, server, responses, .. } = running;
    server.kill()?;
    let idle = total(&subject, back_end)?;

    let server = subject.start()?;
    let mut load = Load::start()?;
    load.begin(Job {
        address: server.address,
        kind: Kind::Json,
        connections: CONNECTIONS,
        keys: Keys::Any(subject.conditions.warm_keys),
        rate: 0,
        until: Until::Elapsed(Duration::from_secs(10)),
    })?;
    sleep(Duration::from_millis(500));
    server.kill()?;
    let window = load.outcome()?;
    let counted = total(&subject, back_end)?;

    // A request without a response may be counted or not.
    let completed = responses + window.responses;
    let sent = completed + window.failed;
    let exact = idle == responses && (completed..=sent).contains(&counted);
    println!(
        "- {}: {responses} completed, {idle} counted after `kill -9`; killed again during \
         {CONNECTIONS} requests: {completed} completed, {counted} counted, {sent} sent. {}",
        subject.name,
        if exact { "Exact." } else { "**WRONG.**" },
    );
    Ok(exact)
}

/// Returns the units used by all keys.
fn total(subject: &Subject, back_end: BackEnd) -> Result<u64, BoxError> {
    let path = subject.database();
    Runtime::Current.build()?.block_on(async {
        match back_end {
            BackEnd::Sqlite(durability) => {
                let store = open_sqlite(&path, durability)?;
                let total = total_of(&store).await?;
                store.close().await?;
                Ok(total)
            }
            BackEnd::Postgres => {
                let url = subject.url().ok_or("the subject has no server")?;
                let store = open_postgres(url, &path).await?;
                let total = total_of(&store).await?;
                store.close().await?;
                Ok(total)
            }
        }
    })
}

async fn total_of(store: &impl AdminStore) -> Result<u64, StoreError> {
    let (mut query, mut total) = (KeyPageQuery::first(1_000), 0);
    loop {
        let page = store.list(query.clone()).await?;
        total += page.keys.iter().map(|key| key.total_used).sum::<u64>();
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(total),
        }
    }
}
