//! Notifications of changes of `api_keys`.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{self, Either};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::AsyncMessage;

use super::{address::Address, core::Core, sql};

/// Channel on which a trigger notifies changes.
const LISTEN: &str = "LISTEN tower_quota_keys";
/// Time after which the connection is tested if nothing was heard.
const TEST_INTERVAL: Duration = Duration::from_millis(250);
/// Time for which a test may take before the connection counts as lost.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Task that listens until it is dropped, one of a store.
pub(super) struct Listener(JoinHandle<()>);

impl Listener {
    #[expect(clippy::disallowed_methods, reason = "one task of a store")]
    pub(super) fn start(core: &Arc<Core>, address: Address) -> Self {
        let core = Arc::downgrade(core);
        Self(tokio::spawn(async move {
            while core.strong_count() > 0 {
                let ended = listen(&core, &address).await;
                let Some(core) = core.upgrade() else { return };
                if core.is_listening() {
                    tracing::warn!(
                        error = ended.err().map(tracing::field::display),
                        "notifications of changed keys are interrupted: reading keys from the database"
                    );
                }
                core.set_listening(false);
                drop(core);
                sleep(RETRY_INTERVAL).await;
            }
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens until the connection ends or does not respond.
async fn listen(core: &Weak<Core>, address: &Address) -> sql::Result<()> {
    let (client, mut connection) = address.config.connect(address.tls.clone()).await?;
    let changed = {
        let core = core.clone();
        move || core.upgrade().map(|core| core.keys.forget()).is_some()
    };
    // Ends with the connection, or with the store.
    let messages = poll_fn(move |cx| {
        loop {
            match std::task::ready!(connection.poll_message(cx)) {
                Some(Ok(AsyncMessage::Notification(_))) if !changed() => {
                    return std::task::Poll::Ready(Ok(()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return std::task::Poll::Ready(Err(error)),
                None => return std::task::Poll::Ready(Ok(())),
            }
        }
    });
    let tests = async {
        client.batch_execute(LISTEN).await?;
        if let Some(core) = core.upgrade() {
            core.set_listening(true);
        }
        loop {
            sleep(TEST_INTERVAL).await;
            match timeout(TEST_TIMEOUT, client.check_connection()).await {
                Ok(tested) => tested?,
                Err(_) => return Ok(()),
            }
        }
    };
    match future::select(std::pin::pin!(messages), std::pin::pin!(tests)).await {
        Either::Left((ended, _)) => ended,
        Either::Right((ended, _)) => ended,
    }
}
