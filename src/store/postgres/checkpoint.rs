//! Checkpoints: apply the records of the journal to the tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::future;
use tokio_postgres::Client;

use super::{
    leases::{LeaseChanges, Reported},
    ledger::Tables,
    reports::requests,
    session::{Error, Node},
    sql::{self, bigint, bytes, int, int4, ints, text, texts},
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        Quota,
        counter::{Count, CounterKey, MAX_UNITS},
        engine::{
            journal::{DatabaseId, Position},
            pending::{Delta, Figures, PendingBatch, Subject},
            share::Share,
        },
        report::{FIGURES, MAX_MODELS_PER_DAY, OTHER_MODELS, UsageFigures},
    },
};

/// Writes what no other process changes, and notes what the transaction [changes at its end](Ending) of the rows that
/// all share, with the position in the journal.
pub(super) fn write(tables: &Tables, batch: &PendingBatch) -> Result<(), Error> {
    // A failure to write figures must not prevent the units from being counted.
    if !batch.requests.is_empty() {
        let write = || tables.run(|client| requests::write(client, &batch.requests)).map(Some);
        if tables.session.in_savepoint(write)?.is_none() {
            tracing::error!("writing single requests failed: they are lost");
        }
    }
    let mut subjects: Vec<_> = batch.subjects().collect();
    subjects.sort_unstable_by_key(|(id, _)| id.as_str());
    let mut counts = Counts::rounds(&subjects);
    let last_counts = counts.pop().unwrap_or_default();
    for earlier in counts {
        tables.run(|client| async move { earlier.write(client).await })?;
    }
    let figures = tables.run(|client| Sums::of_keys(client, batch))?;
    let mut ending = tables.ending.borrow_mut();
    ending.counts = last_counts;
    ending.open = OpenRequests::of(&subjects);
    ending.figures = figures;
    ending.leases.report(batch);
    drop(ending);
    match batch.position {
        Some(position) => tables.run(|client| write_position(client, tables.node.id, position)),
        None => Ok(()),
    }
}

/// What the open transaction changes at its end of rows that other nodes change, too, in statements that are sent
/// together with its commit. So these rows are locked only while the server executes it, even if the process is stopped.
#[derive(Default)]
pub(super) struct Ending {
    counts: Counts,
    open: OpenRequests,
    figures: Sums,
    /// Whether requests are open that have ended with an earlier process.
    pub(super) fails_open_requests: bool,
    pub(super) leases: LeaseChanges,
}

impl Ending {
    /// Makes the changes, in statements that do not wait for each other.
    pub(super) async fn write(self, client: &Client, node: Node) -> sql::Result<Vec<Reported>> {
        // Each sends its statement when it is polled first, in this order. Trips of other nodes wait for counters only, so
        // that those are locked last.
        let (units, (counted, opened, added, failed, (counters, reported))) = future::join(
            self.lock("lock_ended_units", client, node.number),
            future::join5(
                self.counts.write(client),
                self.open.write(client, node.id),
                self.figures.add(client),
                self.fail_open_requests(client, node.id),
                future::join(
                    self.lock("lock_ended_counters", client, node.number),
                    self.leases.write(client, node.number),
                ),
            ),
        )
        .await;
        units?;
        counted?;
        opened?;
        if let Some(error) = added? {
            tracing::error!(error, "writing usage figures failed: they are lost");
        }
        failed?;
        counters?;
        reported
    }

    /// Locks the rows of a table that change if all leases end, of which the other statements lock only a part each.
    async fn lock(&self, function: &str, client: &Client, node: i32) -> sql::Result<()> {
        if !self.leases.ends_all() {
            return Ok(());
        }
        let (keys, quotas) = self.counts.names();
        let sql = format!("SELECT {function}($1, $2, $3, $4)");
        let values = [int4(&node), texts(&keys), texts(&quotas), texts(&self.counts.days)];
        sql::execute(client, &sql, &values).await.map(drop)
    }

    async fn fail_open_requests(&self, client: &Client, node: DatabaseId) -> sql::Result<()> {
        match self.fails_open_requests {
            true => fail_open_requests(client, node).await,
            false => Ok(()),
        }
    }
}

/// Changes of counters, in the order of their keys, in which every transaction locks their rows.
#[derive(Default)]
struct Counts {
    keys: Vec<KeyId>,
    quotas: Vec<Quota>,
    days: Vec<String>,
    epochs: Vec<i64>,
    used: Vec<i64>,
    refunded: Vec<i64>,
    last_used_at: Vec<Option<i64>>,
}

impl Counts {
    /// Returns the changes in as many rounds as a row has changed in epochs: a statement changes each row once.
    fn rounds(subjects: &[(&KeyId, &Subject)]) -> Vec<Self> {
        let mut rounds: Vec<Self> = Vec::new();
        for (id, subject) in subjects {
            let mut counts: Vec<_> = subject.counts.iter().collect();
            counts.sort_by_key(|(quota, origin, _)| (quota.as_str(), origin.day));
            let mut round = 0;
            let mut last = None;
            for (quota, origin, delta) in counts {
                let Delta { used, refunded, last_used_at, granted: _, share: _ } = delta;
                // The end of a request does not change the count.
                if *used == 0 && *refunded == 0 && last_used_at.is_none() {
                    continue;
                }
                let row = Some((quota, origin.day));
                round = if last == row { round + 1 } else { 0 };
                last = row;
                if rounds.len() <= round {
                    rounds.push(Self::default());
                }
                let counts = &mut rounds[round];
                counts.keys.push((*id).clone());
                counts.quotas.push(*quota);
                counts.days.push(origin.day.to_string());
                counts.epochs.push(origin.epoch.into());
                counts.used.push((*used).clamp(-bigint(MAX_UNITS), bigint(MAX_UNITS)));
                counts.refunded.push((*refunded).min(bigint(MAX_UNITS)));
                counts.last_used_at.push(*last_used_at);
            }
        }
        rounds
    }

    /// Returns the columns of keys and quotas.
    fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let keys = self.keys.iter().map(KeyId::as_str).collect();
        (keys, self.quotas.iter().map(|quota| quota.as_str()).collect())
    }

    async fn write(&self, client: &Client) -> sql::Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let (keys, quotas) = self.names();
        let insert = "INSERT INTO daily_usage (key_id, quota, day, epoch)
            SELECT * FROM unnest($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let (keys, quotas) = (texts(&keys), texts(&quotas));
        let (days, epochs) = (texts(&self.days), ints(&self.epochs));
        let rows = [keys.clone(), quotas.clone(), days.clone(), epochs.clone()];
        // `reset_used` sums up the units from before a reset. One statement locks the rows and changes them, in the order
        // of their keys, so that two checkpoints never wait for each other.
        let update = "WITH c AS (
                SELECT c.* FROM unnest($1, $2, $3, $4, $5, $6, $7)
                    AS c (key_id, quota, day, epoch, used, refunded, last_used_at)
                JOIN daily_usage d ON (d.key_id, d.quota, d.day) = (c.key_id, c.quota, c.day)
                ORDER BY d.key_id, d.quota, d.day FOR NO KEY UPDATE OF d
            )
            UPDATE daily_usage d SET
                used = CASE WHEN d.epoch = c.epoch THEN least($8, greatest(0, d.used + c.used))
                    WHEN d.epoch < c.epoch THEN least($8, greatest(0, c.used)) ELSE d.used END,
                refunded = CASE WHEN d.epoch = c.epoch THEN least($8, d.refunded + c.refunded)
                    WHEN d.epoch < c.epoch THEN least($8, c.refunded) ELSE d.refunded END,
                reset_used = CASE WHEN d.epoch = c.epoch THEN d.reset_used
                    WHEN d.epoch < c.epoch THEN least($8, d.reset_used + d.used)
                    ELSE least($8, greatest(0, d.reset_used + c.used)) END,
                epoch = greatest(d.epoch, c.epoch),
                last_used_at = greatest(d.last_used_at, c.last_used_at)
            FROM c WHERE (d.key_id, d.quota, d.day) = (c.key_id, c.quota, c.day)";
        let (used, refunded) = (ints(&self.used), ints(&self.refunded));
        let (last_used_at, max) = (ints(&self.last_used_at), bigint(MAX_UNITS));
        let changes = [keys, quotas, days, epochs, used, refunded, last_used_at, int(&max)];
        let (inserted, updated) = future::join(
            sql::execute(client, insert, &rows),
            sql::execute(client, update, &changes),
        )
        .await;
        inserted?;
        updated.map(drop)
    }
}

/// Changes of the numbers of open requests.
#[derive(Default)]
struct OpenRequests {
    keys: Vec<KeyId>,
    days: Vec<Option<String>>,
    events: Vec<i64>,
}

impl OpenRequests {
    fn of(subjects: &[(&KeyId, &Subject)]) -> Self {
        let mut open = Self::default();
        for (id, subject) in subjects.iter().filter(|(_, subject)| subject.open != 0) {
            open.keys.push((*id).clone());
            open.days.push(subject.last_day().map(|day| day.to_string()));
            open.events.push(subject.open);
        }
        open
    }

    async fn write(&self, client: &Client, node: DatabaseId) -> sql::Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let (node, keys) = (&node.0[..], self.keys.iter().map(KeyId::as_str).collect::<Vec<_>>());
        let sql = "INSERT INTO awaited_events AS a (node, key_id, day, events)
            SELECT $1, * FROM unnest($2, $3, $4)
            ON CONFLICT (node, key_id) DO UPDATE
            SET events = a.events + excluded.events, day = greatest(a.day, excluded.day)";
        let values = [bytes(&node), texts(&keys), texts(&self.days), ints(&self.events)];
        sql::execute(client, sql, &values).await.map(drop)
    }
}

/// Counts the requests that were open at the end of the process as failed, on the last day on which their
/// key was used.
pub(super) async fn fail_open_requests(client: &Client, node: DatabaseId) -> sql::Result<()> {
    let node = &node.0[..];
    let sql = "WITH awaited AS (
            DELETE FROM awaited_events WHERE node = $1 RETURNING key_id, day, events
        ), of_models AS (
            INSERT INTO model_totals AS m (day, model, requests, failed)
            SELECT day, '', sum(events)::bigint, sum(events)::bigint FROM awaited WHERE events > 0
            GROUP BY day ORDER BY day
            ON CONFLICT (day, model) DO UPDATE SET
                requests = m.requests + excluded.requests, failed = m.failed + excluded.failed
        )
        INSERT INTO usage_totals AS u (day, key_id, model, requests, failed)
        SELECT day, key_id, '', events, events FROM awaited WHERE events > 0
        ORDER BY day, key_id
        ON CONFLICT (day, key_id, model) DO UPDATE SET
            requests = u.requests + excluded.requests, failed = u.failed + excluded.failed";
    sql::execute(client, sql, &[bytes(&node)]).await.map(drop)
}

/// Sums of usage events, as columns.
#[derive(Default)]
struct Sums {
    days: Vec<String>,
    keys: Vec<KeyId>,
    models: Vec<String>,
    /// Columns in the order of [`FIGURES`].
    numbers: [Vec<Option<i64>>; FIGURES.len()],
}

impl Sums {
    /// Returns the sums of a batch by day, key and model, in this order.
    async fn of_keys(client: &Client, batch: &PendingBatch) -> sql::Result<Self> {
        let figures = || {
            batch
                .subjects()
                .flat_map(|(id, subject)| subject.figures.iter().map(move |of| (id, of)))
        };
        // The response of an upstream may name a model in any way.
        let models: Vec<_> = figures().map(|(_, of)| sql::storable(&of.model)).collect();
        let figures: Vec<(Day, &KeyId, &str, UsageFigures)> = figures()
            .zip(&models)
            .map(|((id, Figures { day, figures, .. }), model)| (*day, id, &**model, *figures))
            .collect();
        let others = models_without_row(client, &figures).await?;
        let mut of_keys: BTreeMap<(Day, &str, &str), (&KeyId, UsageFigures)> = BTreeMap::new();
        for (day, id, model, figures) in figures {
            let is_other = others.contains(&(day, id.as_str(), model));
            let model = if is_other { OTHER_MODELS } else { model };
            let (_, sums) =
                of_keys.entry((day, id.as_str(), model)).or_insert((id, UsageFigures::default()));
            *sums += figures;
        }
        let mut sums = Self::default();
        for ((day, _, model), (id, figures)) in of_keys {
            sums.push(day, id, model, &figures);
        }
        Ok(sums)
    }

    fn push(&mut self, day: Day, key: &KeyId, model: &str, figures: &UsageFigures) {
        let UsageFigures {
            requests,
            succeeded,
            failed,
            refunded,
            rejected,
            tokens_unknown,
            tokens,
        } = figures;
        self.days.push(day.to_string());
        self.keys.push(key.clone());
        self.models.push(model.to_owned());
        let known = [
            requests,
            succeeded,
            failed,
            refunded,
            rejected,
            tokens_unknown,
            &tokens.prompt,
            &tokens.completion,
            &tokens.total,
        ];
        let known = known.map(|number| Some(bigint(*number)));
        let optional = [tokens.cached, tokens.reasoning].map(|number| number.map(bigint));
        for (column, number) in self.numbers.iter_mut().zip(known.into_iter().chain(optional)) {
            column.push(number);
        }
    }

    /// Adds the sums to those of the keys and of the models. If that fails because of the rows, nothing has changed, and
    /// the reason is returned.
    async fn add(&self, client: &Client) -> sql::Result<Option<String>> {
        if self.days.is_empty() {
            return Ok(None);
        }
        let keys: Vec<&str> = self.keys.iter().map(KeyId::as_str).collect();
        let sql = "SELECT add_figures($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        let mut values = vec![texts(&self.days), texts(&keys), texts(&self.models)];
        values.extend(self.numbers.iter().map(ints));
        sql::one(client, sql, &values).await?.try_get(0)
    }
}

/// Returns the models that neither have nor can get a row of their key and day.
async fn models_without_row<'a>(
    client: &Client,
    figures: &[(Day, &'a KeyId, &'a str, UsageFigures)],
) -> sql::Result<BTreeSet<(Day, &'a str, &'a str)>> {
    let is_named = |model: &str| !model.is_empty() && model != OTHER_MODELS;
    let named: Vec<_> = figures.iter().filter(|(_, _, model, _)| is_named(model)).collect();
    let mut others = BTreeSet::new();
    if named.is_empty() {
        return Ok(others);
    }
    let days: Vec<String> = named.iter().map(|(day, ..)| day.to_string()).collect();
    let keys: Vec<&str> = named.iter().map(|(_, id, ..)| id.as_str()).collect();
    let models: Vec<&str> = named.iter().map(|(_, _, model, _)| *model).collect();
    let sql = "SELECT
            EXISTS (SELECT 1 FROM usage_totals t
                WHERE (t.day, t.key_id, t.model) = (named.day, named.key_id, named.model)),
            (SELECT count(*) FROM usage_totals t
                WHERE (t.day, t.key_id) = (named.day, named.key_id) AND t.model NOT IN ('', $4))
        FROM unnest($1, $2, $3) WITH ORDINALITY AS named (day, key_id, model, number)
        ORDER BY number";
    let values = [texts(&days), texts(&keys), texts(&models), text(&OTHER_MODELS)];
    let rows = sql::query(client, sql, &values).await?;
    // Rows that this batch adds.
    let mut added: HashMap<(Day, &str), i64> = HashMap::new();
    for ((day, id, model, _), row) in named.into_iter().zip(rows) {
        let (has_row, models): (bool, i64) = (row.try_get(0)?, row.try_get(1)?);
        let added = added.entry((*day, id.as_str())).or_default();
        if has_row {
            continue;
        }
        if models + *added < bigint(MAX_MODELS_PER_DAY) {
            *added += 1;
        } else {
            others.insert((*day, id.as_str(), *model));
        }
    }
    Ok(others)
}

async fn write_position(client: &Client, node: DatabaseId, position: Position) -> sql::Result<()> {
    let node = &node.0[..];
    let (segment, offset) = (bigint(position.segment), bigint(position.offset));
    let sql = r#"UPDATE nodes SET segment = $2, "offset" = $3, is_closed = false WHERE id = $1"#;
    sql::execute(client, sql, &[bytes(&node), int(&segment), int(&offset)]).await.map(drop)
}

/// Returns the [count](read_used) of a counter, and the share of the node.
pub(super) async fn read_count(
    client: &Client,
    node: i32,
    key: &CounterKey,
    day: Day,
) -> sql::Result<(Count, Share)> {
    let count = read_used(client, key, day).await?;
    let sql = "SELECT granted, spent, seq FROM leases
        WHERE (key_id, quota, day, node) = ($1, $2, $3, $4)";
    let (id, quota, day) = (key.subject.as_str(), key.quota.as_str(), count.day.to_string());
    let values = [text(&id), text(&quota), text(&day), int4(&node)];
    let share = match sql::optional(client, sql, &values).await? {
        None => Share::new(0, 0, 0),
        Some(row) => {
            let [granted, spent, seq] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
            Share::new(sql::count(granted), sql::count(spent), sql::count(seq))
        }
    };
    Ok((count, share))
}

/// Returns the count of the period that begins on this day, or of a later one if there is one: setting
/// the clock back does not return to an earlier period, but a reset does.
pub(super) async fn read_used(client: &Client, key: &CounterKey, day: Day) -> sql::Result<Count> {
    // The index has the epochs of all days.
    let sql = "SELECT day, epoch, used, refunded FROM daily_usage
        WHERE (key_id, quota, day) = (
            SELECT key_id, quota, day FROM daily_usage
            WHERE (key_id, quota) = ($1, $2) ORDER BY epoch DESC, day DESC LIMIT 1
        )";
    let (id, quota) = (key.subject.as_str(), key.quota.as_str());
    let Some(row) = sql::optional(client, sql, &[text(&id), text(&quota)]).await? else {
        return Ok(Count::new(day));
    };
    let count = Count {
        day: row.try_get::<_, &str>(0)?.parse().unwrap_or(day),
        epoch: u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(u32::MAX),
        used: sql::count(row.try_get(2)?),
        refunded: sql::count(row.try_get(3)?),
    };
    Ok(if count.day < day { count.on(day) } else { count })
}
