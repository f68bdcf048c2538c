//! Notifications of changes of `api_keys`, and of leases that other nodes need.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client};

use super::{
    address::Address,
    core::Core,
    sql::{self, flag, int4, text},
};
use crate::{
    key::KeyId,
    store::{
        counter::CounterKey,
        engine::{
            Counter, Engine,
            trip::{News, SharedLedger, TripError},
        },
    },
};

/// Channels on which a trigger notifies changes of keys, and functions those of leases.
const LISTEN: &str = "LISTEN tower_quota_keys; LISTEN tower_quota_leases";
const LEASES: &str = "tower_quota_leases";
/// Interval at which the database is read for recalled leases where nothing is heard, as through a pooler.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Number of times after which what is known of other nodes is not used any more where nothing is heard.
const POLLS: u32 = 10;
/// Time after which the connection is tested if nothing was heard.
const TEST_INTERVAL: Duration = Duration::from_millis(250);
/// Time for which a test may take before the connection counts as lost.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Time after which units that were not used are given back.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Interval of looking for such units.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// Tasks that run until this is dropped, two of a store: one listens, the other gives units back.
pub(super) struct Listener([JoinHandle<()>; 2]);

impl Listener {
    #[expect(clippy::disallowed_methods, reason = "two tasks of a store")]
    pub(super) fn start(core: &Arc<Core>, address: Address) -> Self {
        let (recalled, recalls) = unbounded_channel();
        let giver = tokio::spawn(give_back(Arc::downgrade(core), recalls));
        let core = Arc::downgrade(core);
        let listener = tokio::spawn(async move {
            while core.strong_count() > 0 {
                let ended = listen(&core, &address, &recalled).await;
                let Some(core) = core.upgrade() else { return };
                if core.is_listening() {
                    tracing::warn!(
                        error = ended.err().map(tracing::field::display),
                        "notifications are interrupted: reading keys from the database"
                    );
                }
                core.set_listening(false);
                drop(core);
                sleep(RETRY_INTERVAL).await;
            }
        });
        Self([giver, listener])
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Listens until the connection ends or does not respond.
async fn listen(
    core: &Weak<Core>,
    address: &Address,
    recalled: &UnboundedSender<Arc<Counter>>,
) -> sql::Result<()> {
    let (client, mut connection) = address.config.connect(address.tls.clone()).await?;
    // Ends with the connection, or with the store.
    let messages = poll_fn(|cx| {
        loop {
            match std::task::ready!(connection.poll_message(cx)) {
                Some(Ok(AsyncMessage::Notification(news))) => {
                    let Some(core) = core.upgrade() else { return Poll::Ready(Ok(())) };
                    if news.channel() == LEASES {
                        hear(&core, news.payload(), recalled);
                    } else {
                        core.keys.forget();
                        // What was used up may not be so within the limit of a changed key.
                        core.miss_news();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
    });
    let tests = async {
        client.batch_execute(LISTEN).await?;
        // Listening begins with this notification: a pooler accepts `LISTEN`, and nothing comes.
        let test = core.upgrade().map(|core| test_of(&core)).unwrap_or_default();
        let sql = "SELECT pg_notify('tower_quota_leases', $1)";
        sql::execute(&client, sql, &[text(&test)]).await?;
        let (mut looked_at, mut is_first, mut polls) = (Instant::now(), true, 0);
        loop {
            let is_listening = core.upgrade().is_some_and(|core| core.is_listening());
            sleep(if is_listening { TEST_INTERVAL } else { POLL_INTERVAL }).await;
            if is_first || !is_listening {
                let Some(core) = core.upgrade() else { return Ok(()) };
                reconcile(&core, &client, is_first, recalled).await?;
                is_first = false;
                polls = (polls + 1) % POLLS;
                if polls == 0 {
                    core.miss_news();
                }
            }
            if looked_at.elapsed() >= IDLE_INTERVAL
                && let Some(core) = core.upgrade()
            {
                looked_at = Instant::now();
                let is_idle = |counter: &Counter| counter.is_share_idle(looked_at, IDLE_TIME);
                for counter in core.engine.counters_where(is_idle) {
                    let _ = recalled.send(counter);
                }
            }
            match timeout(TEST_TIMEOUT, client.check_connection()).await {
                Ok(tested) => tested?,
                Err(_) => return Ok(()),
            }
        }
    };
    match future::select(pin!(messages), pin!(tests)).await {
        Either::Left((ended, _)) => ended,
        Either::Right((ended, _)) => ended,
    }
}

/// Takes note of a notification: `<kind> <detail> <quota> <day> <key>`. The detail of `over` is the limit, that of
/// `recall` the nodes.
fn hear(core: &Core, news: &str, recalled: &UnboundedSender<Arc<Counter>>) {
    if news == test_of(core) {
        return core.set_listening(true);
    }
    let mut parts = news.splitn(5, ' ');
    let [Some(kind), Some(detail), Some(quota), Some(day), Some(id)] =
        std::array::from_fn(|_| parts.next())
    else {
        return;
    };
    let Ok(quota) = quota.parse() else { return };
    let counter = core.engine.counter(&CounterKey { quota, subject: KeyId::from(id) });
    let Some(counter) = counter.filter(|counter| counter.count().day.to_string() == day) else {
        return;
    };
    match kind {
        "free" => counter.hear(&News::Free, core.hearing()),
        "over" => {
            if let Ok(limit) = detail.parse() {
                counter.hear(&News::UsedUp { limit }, core.hearing());
            }
        }
        "recall" if detail.split(',').any(|node| node.parse() == Ok(core.node().number)) => {
            // Fails at the end of the store only.
            let _ = recalled.send(counter);
        }
        _ => {}
    }
}

/// Returns the notification with which this node tests whether it hears any.
fn test_of(core: &Core) -> String {
    format!("test {}", core.node().session)
}

/// Finds the leases that were recalled while nothing was heard: all of them, or those of the last seconds.
async fn reconcile(
    core: &Core,
    client: &Client,
    all: bool,
    recalled: &UnboundedSender<Arc<Counter>>,
) -> sql::Result<()> {
    let sql = "SELECT l.key_id, l.quota FROM leases l
        JOIN counters c ON (c.key_id, c.quota, c.day) = (l.key_id, l.quota, l.day)
        WHERE l.node = $1 AND l.granted > l.spent AND l.recalls < c.recalls
            AND ($2 OR c.recalled_at > clock_timestamp() - interval '5 seconds')";
    let node = core.node().number;
    let values = [int4(&node), flag(&all)];
    for row in sql::query(client, sql, &values).await? {
        let (id, quota): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let Ok(quota) = quota.parse() else { continue };
        let counter = core.engine.counter(&CounterKey { quota, subject: KeyId::from(id) });
        if let Some(counter) = counter {
            let _ = recalled.send(counter);
        }
    }
    Ok(())
}

/// Gives units back that other nodes need, or that were not used for a while.
async fn give_back(core: Weak<Core>, mut recalls: UnboundedReceiver<Arc<Counter>>) {
    let mut given: FuturesUnordered<BoxFuture<'static, Arc<Counter>>> = FuturesUnordered::new();
    // Whether the counters that are given back have been recalled again meanwhile.
    let mut under_way: HashMap<CounterKey, bool> = HashMap::new();
    loop {
        let counter = if given.is_empty() {
            recalls.recv().await
        } else {
            match future::select(pin!(recalls.recv()), given.next()).await {
                Either::Left((counter, _)) => counter,
                Either::Right((ended, _)) => {
                    let Some(counter) = ended else { continue };
                    match under_way.remove(counter.key()) {
                        Some(true) => Some(counter),
                        _ => continue,
                    }
                }
            }
        };
        let (Some(counter), Some(core)) = (counter, core.upgrade()) else { return };
        if let Some(is_recalled_again) = under_way.get_mut(counter.key()) {
            *is_recalled_again = true;
            continue;
        }
        under_way.insert(counter.key().clone(), false);
        given.push(Box::pin(async move {
            if let Err(TripError::Store(error)) = Engine::give_back(&counter, &*core).await {
                tracing::debug!(source = ?error, "units could not be given back");
            }
            counter
        }));
    }
}
