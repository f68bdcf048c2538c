//! The one thread that writes.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    adopt,
    core::Core,
    file::WRITE_PATIENCE,
    ops::{self, Op, Reply},
    queue::{Batch, Work},
    rows, usage,
};
use crate::{error::StoreError, key::KeyId, store::UsageEvent};

/// How often `api_keys` is looked at for edits from outside, and the longest that a usage event
/// waits for a transaction.
const WATCH: Duration = Duration::from_millis(250);
/// How many usage events are held while the store cannot be written.
const MOST_HELD: usize = 100_000;

pub(super) struct Writer {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(core: Arc<Core>, connection: Connection) -> std::io::Result<Self> {
        let state = State {
            core: core.clone(),
            connection,
            held: Vec::new(),
            lost_count: HashSet::new(),
            data_version: None,
            watched: None,
            scrub: true,
        };
        let run = move || {
            let _end = EndQueue(state.core.clone());
            state.run();
        };
        let thread = thread::Builder::new().name("quota-writer".to_owned()).spawn(run)?;
        Ok(Self { core, thread: Mutex::new(Some(thread)) })
    }

    /// Writes what is queued and ends the thread.
    pub(super) fn stop(&self) {
        self.core.queue.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer thread has panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whoever waits for the writer is told when it ends, also by a panic.
struct EndQueue(Arc<Core>);

impl Drop for EndQueue {
    fn drop(&mut self) {
        self.0.queue.end();
    }
}

struct State {
    core: Arc<Core>,
    connection: Connection,
    /// Usage events that wait for a write that succeeds.
    held: Vec<UsageEvent>,
    /// Subjects whose counters must be read back, because ops of theirs were not written.
    lost_count: HashSet<KeyId>,
    data_version: Option<i64>,
    watched: Option<Instant>,
    /// Whether clear text may be left in the WAL.
    scrub: bool,
}

impl State {
    fn run(mut self) {
        loop {
            let Work { mut batch, stopped } = self.core.queue.take(WATCH);
            self.held.append(&mut batch.usage);
            if !batch.ops.is_empty() || !self.held.is_empty() {
                self.commit(batch);
            }
            if self.core.queue.has_failed() {
                self.recover();
            }
            if stopped {
                return;
            }
            self.watch();
        }
    }

    fn commit(&mut self, batch: Batch) {
        let Batch { ops, committed, .. } = batch;
        let counts: Vec<KeyId> = ops.iter().filter_map(Op::counts).cloned().collect();
        match self.transaction(|state| state.write(ops)) {
            Ok(replies) => {
                self.held.clear();
                replies.into_iter().for_each(|reply| reply());
                // Nobody waits where nobody asked.
                let _ = committed.send(Ok(()));
            }
            Err(error) => {
                let error = StoreError::unavailable(error);
                tracing::error!(source = ?error, "a write failed: nothing is admitted until one succeeds");
                self.fail(counts, &error);
                let _ = committed.send(Err(error));
            }
        }
    }

    fn write(&self, ops: Vec<Op>) -> rusqlite::Result<Vec<Reply>> {
        let replies = ops::write(&self.connection, ops)?;
        // Events that cannot be written must not keep units from being counted.
        let write =
            |connection: &Connection| usage::write(connection, &self.core.calendar, &self.held);
        if ops::apart(&self.connection, write)?.is_none() {
            tracing::error!(lost = self.held.len(), "usage events were lost");
        }
        Ok(replies)
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let worked = work(self).and_then(|answer| {
            self.connection.execute_batch("COMMIT")?;
            Ok(answer)
        });
        if worked.is_err() && !self.connection.is_autocommit() {
            // Its own failure adds nothing: the transaction is void either way.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        worked
    }

    /// Closes the queue, and refuses what came into it meanwhile.
    fn fail(&mut self, counts: Vec<KeyId>, error: &StoreError) {
        self.lost_count.extend(counts);
        let mut refused = self.core.queue.close();
        self.held.append(&mut refused.usage);
        self.lost_count.extend(refused.ops.iter().filter_map(Op::counts).cloned());
        let _ = refused.committed.send(Err(error.clone()));
        if self.held.len() > MOST_HELD {
            let lost = self.held.len() - MOST_HELD;
            tracing::error!(lost, "usage events were lost while the store could not be written");
            self.held.drain(..lost);
        }
    }

    /// Tries a write; if it succeeds, reads lost counters back and opens the queue again.
    fn recover(&mut self) {
        let probed = self.transaction(|state| ops::probe(&state.connection));
        let restored = probed.and_then(|()| self.restore_counters());
        match restored {
            Ok(()) => {
                self.lost_count.clear();
                self.core.forget_keys();
                self.core.queue.reopen();
                tracing::info!("the store can be written again");
            }
            Err(error) => tracing::debug!(%error, "the store still cannot be written"),
        }
    }

    fn restore_counters(&self) -> rusqlite::Result<()> {
        for id in &self.lost_count {
            if let Some(counter) = self.core.counter(id) {
                counter.restore(rows::read_count(&self.connection, id, counter.day())?);
            }
        }
        Ok(())
    }

    /// Looks for what another process has changed, and adopts keys typed in clear.
    fn watch(&mut self) {
        let due = self.watched.is_none_or(|watched| watched.elapsed() >= WATCH);
        if !due || self.core.queue.has_failed() {
            return;
        }
        self.watched = Some(Instant::now());
        if let Err(error) = self.look_for_edits() {
            tracing::warn!(%error, "api_keys could not be looked at");
        }
    }

    fn look_for_edits(&mut self) -> rusqlite::Result<()> {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if self.data_version != Some(version) {
            self.core.forget_keys();
            if adopt::is_needed(&self.connection)? {
                let default = self.core.default_daily_limit;
                let adopted = self.transaction(|state| adopt::all(&state.connection, default))?;
                tracing::info!(adopted, "keys typed in clear were hashed");
                self.core.forget_keys();
            }
            self.scrub = true;
            self.data_version = Some(version);
        }
        self.scrub_wal()
    }

    /// Empties the WAL, where clear text may be left. Never waits for a reader that keeps it: the
    /// next look tries again.
    fn scrub_wal(&mut self) -> rusqlite::Result<()> {
        if self.scrub {
            self.connection.busy_timeout(Duration::ZERO)?;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            self.connection.busy_timeout(WRITE_PATIENCE)?;
            self.scrub = busy? != 0;
        }
        Ok(())
    }
}
