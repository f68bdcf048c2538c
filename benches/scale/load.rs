//! Sends requests at a constant rate, however long the responses take.

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
    clients: JoinSet<Latencies>,
    stop: watch::Sender<bool>,
}

/// The latencies of requests.
#[derive(Default)]
pub(crate) struct Latencies {
    /// Nanoseconds from the time at which a request was due to the end of its response, sorted.
    nanos: Vec<u64>,
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

    pub(crate) async fn run_for(self, time: Duration) -> Result<Latencies, BoxError> {
        sleep(time).await;
        self.stop().await
    }

    pub(crate) async fn stop(mut self) -> Result<Latencies, BoxError> {
        self.stop.send_replace(true);
        let mut all = Latencies::default();
        while let Some(latencies) = self.clients.join_next().await {
            let latencies = latencies?;
            all.nanos.extend(latencies.nanos);
            all.failed += latencies.failed;
        }
        all.nanos.sort_unstable();
        Ok(all)
    }
}

async fn client(
    address: SocketAddr,
    number: usize,
    period: Duration,
    stopped: watch::Receiver<bool>,
) -> Latencies {
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut latencies = Latencies::default();
    sleep(period * number as u32 / CLIENTS).await;
    let mut ticks = interval(period);
    // A late request does not delay the next ones, and its latency counts from the time it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turn = 0;
    while !*stopped.borrow() {
        let due = ticks.tick().await;
        turn += CLIENTS as usize;
        match send(&client, address, &fill::key((number + turn) % 1000)).await {
            Ok(()) => latencies.nanos.push((Instant::now() - due).as_nanos() as u64),
            Err(_) => latencies.failed += 1,
        }
    }
    latencies
}

async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: &str,
) -> Result<(), BoxError> {
    let request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("x-api-key", key)
        .header(CONTENT_TYPE, "application/json")
        .body(PROMPT.into())?;
    let response = client.request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if status.is_success() { Ok(()) } else { Err(status.as_str().into()) }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |share| percentile(&self.nanos, share) as f64 / 1e6;
        let (p50, p99, max) = (millis(0.5), millis(0.99), millis(1.0));
        let sent = self.nanos.len() as u64 + self.failed;
        write!(f, "| {p50:.2} | {p99:.2} | {max:.1} | {} of {sent} |", self.failed)
    }
}
