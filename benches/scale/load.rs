//! Requests at a steady rate, whatever the answers take.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tower::BoxError;

use crate::{fill, stats::percentile};

const CLIENTS: u32 = 32;
const PROMPT: &str =
    r#"{"model":"deepseek-chat","messages":[{"role":"user","content":"Say hello"}]}"#;

pub(crate) struct Load {
    clients: JoinSet<Noticed>,
    stop: watch::Sender<bool>,
}

/// What the requests noticed.
#[derive(Default)]
pub(crate) struct Noticed {
    /// Nanoseconds from when a request was due to its whole answer.
    latencies: Vec<u64>,
    failed: u64,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, rate: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (stopped, period) = (stopped.clone(), Duration::from_secs(1) * CLIENTS / rate);
            clients.spawn(client(address, number as usize, period, stopped));
        }
        Self { clients, stop }
    }

    pub(crate) async fn for_a(self, time: Duration) -> Result<Noticed, BoxError> {
        sleep(time).await;
        self.end().await
    }

    pub(crate) async fn end(mut self) -> Result<Noticed, BoxError> {
        self.stop.send_replace(true);
        let mut all = Noticed::default();
        while let Some(noticed) = self.clients.join_next().await {
            let noticed = noticed?;
            all.latencies.extend(noticed.latencies);
            all.failed += noticed.failed;
        }
        all.latencies.sort_unstable();
        Ok(all)
    }
}

async fn client(
    address: SocketAddr,
    number: usize,
    period: Duration,
    stopped: watch::Receiver<bool>,
) -> Noticed {
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut noticed = Noticed::default();
    sleep(period * number as u32 / CLIENTS).await;
    let mut ticks = interval(period);
    // A request that comes late does not make the following ones wait, and counts from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turn = 0;
    while !*stopped.borrow() {
        let due = ticks.tick().await;
        turn += CLIENTS as usize;
        match ask(&client, address, &fill::key((number + turn) % 1000)).await {
            Ok(()) => noticed.latencies.push((Instant::now() - due).as_nanos() as u64),
            Err(_) => noticed.failed += 1,
        }
    }
    noticed
}

async fn ask(
    client: &Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: &str,
) -> Result<(), BoxError> {
    let request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("x-api-key", key)
        .header(CONTENT_TYPE, "application/json")
        .body(PROMPT.into())?;
    let answer = client.request(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    if status.is_success() { Ok(()) } else { Err(status.as_str().into()) }
}

impl fmt::Display for Noticed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |share| percentile(&self.latencies, share) as f64 / 1e6;
        let (middle, most, all) = (millis(0.5), millis(0.99), millis(1.0));
        let asked = self.latencies.len() as u64 + self.failed;
        write!(f, "| {middle:.2} | {most:.2} | {all:.1} | {} of {asked} |", self.failed)
    }
}
