use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::task::JoinSet;

use crate::{
    common::{Client, eventually},
    scene::{Key, Log, Outcome, Scene, Sent, TIME_LIMIT, lock},
};

/// How many requests of the steady load are under way at once.
const WORKERS: usize = 4;
/// How soon service is back once the failure is over.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Requests that never cease, an operator who issues keys, a probe that looks at the state.
pub(crate) struct Load<'a> {
    scene: &'a Scene,
    before: usize,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// When `/readyz` was requested, when the response came, and whether it was 200.
    ready: Mutex<Vec<(Instant, Instant, bool)>>,
}

/// From when a failure was known until it was taken away.
pub(crate) struct Outage {
    pub(crate) known: Instant,
    pub(crate) healed: Instant,
}

impl<'a> Load<'a> {
    pub(crate) fn start(scene: &'a Scene) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let url = scene.gateway.url("");
        for _ in 0..WORKERS {
            tasks.spawn(hold(shared.clone(), scene.log.clone(), url.clone(), scene.key()));
        }
        tasks.spawn(issue(shared.clone(), scene.log.clone(), url.clone()));
        tasks.spawn(probe(shared.clone(), url));
        Self { scene, before: scene.log.sent(), shared, tasks }
    }

    /// The requests that have ended since the start.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.scene.log.sent_since(self.before)
    }

    /// Waits until this number of further requests was completed.
    pub(crate) async fn serve(&self, responses: usize) {
        let count = || count(&self.sent(), |sent| sent.outcome == Outcome::Completed);
        let enough = count() + responses;
        eventually("responses", || async { count() >= enough }).await;
    }

    /// Waits until the failure shows, both to holders and at `/readyz`, and then for a while longer.
    /// Returns when it was first known.
    pub(crate) async fn until_rejected(&self, struck: Instant) -> Instant {
        let rejected = |sent: &Sent| sent.outcome == Outcome::Rejected && sent.ended >= struck;
        eventually("rejections", || async {
            count(&self.sent(), rejected) >= 20 && self.unready(struck).len() >= 3
        })
        .await;
        let rejection = self.sent().into_iter().filter(rejected).map(|sent| sent.ended).min();
        let known = rejection.into_iter().chain(self.unready(struck)).min().unwrap();
        assert!(known - struck < TIME_LIMIT, "it was known after {:?} only", known - struck);
        known
    }

    /// While nothing can be written, no request is completed.
    pub(crate) fn none_was_completed_since(&self, struck: Instant) {
        let new = |sent: &Sent| sent.begun > struck && sent.outcome == Outcome::Completed;
        assert_eq!(count(&self.sent(), new), 0, "responses that were not recorded");
    }

    /// When `/readyz` has said that requests cannot be served.
    fn unready(&self, since: Instant) -> Vec<Instant> {
        let ready = lock(&self.shared.ready);
        let unready = ready.iter().filter(|(begun, _, ready)| !ready && *begun >= since);
        unready.map(|(_, completed, _)| *completed).collect()
    }

    /// Waits until service is back, after what made it fail was taken away.
    pub(crate) async fn until_served(&self, healed: Instant) {
        let new = |sent: &Sent| sent.begun >= healed && sent.outcome == Outcome::Completed;
        eventually("service again", || async {
            let ready = lock(&self.shared.ready).last().is_some_and(|probe| probe.2);
            ready && count(&self.sent(), new) >= 10
        })
        .await;
        let first = self.sent().into_iter().filter(new).map(|sent| sent.begun).min().unwrap();
        assert!(first - healed < BACK_WITHIN, "back after {:?} only", first - healed);
    }

    /// Ends the load and looks at every response. During an outage that was known nothing may have
    /// reached the upstream, and `/readyz` must never have said yes.
    pub(crate) async fn finish(mut self, outage: Option<Outage>) {
        self.shared.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        for sent in self.sent() {
            assert!(!matches!(sent.outcome, Outcome::Wrong(_)), "{:?}", sent.outcome);
            let took = sent.ended - sent.begun;
            assert!(took < TIME_LIMIT, "{:?} after {took:?} only", sent.outcome);
        }
        if let Some(outage) = outage {
            self.check(&outage);
        }
    }

    /// Ends the load as [`finish`](Self::finish) does, after a failure during which service may have
    /// come and gone: whenever `/readyz` said no twice running, nothing was served in between.
    pub(crate) async fn finish_with_partial_outage(self, since: Instant) {
        let shared = self.shared.clone();
        let before = self.before;
        let log = self.scene.log.clone();
        self.finish(None).await;
        let ready = lock(&shared.ready);
        let unready = ready.windows(2).filter(|two| two[0].0 >= since && !two[0].2 && !two[1].2);
        let sent = log.sent_since(before);
        for two in unready {
            let (known, still) = (two[0].1, two[1].0);
            for sent in sent.iter().filter(|sent| known < sent.begun && sent.begun < still) {
                let served = log.arrival(sent.number).is_some_and(|at| at < still);
                assert!(!served, "an upstream call while /readyz said no");
            }
        }
    }

    fn check(&self, outage: &Outage) {
        let &Outage { known, healed } = outage;
        for sent in self.sent().iter().filter(|sent| sent.begun > known) {
            let arrival = self.scene.log.arrival(sent.number);
            let served = arrival.is_some_and(|at| at < healed);
            assert!(
                !served,
                "an upstream call {:?} after the failure was known",
                sent.begun - known
            );
        }
        for (begun, completed, ready) in &*lock(&self.shared.ready) {
            let meanwhile = *begun > known && *completed < healed;
            assert!(!(meanwhile && *ready), "ready {:?} after the failure", *begun - known);
        }
    }
}

fn count(sent: &[Sent], filter: impl Fn(&Sent) -> bool) -> usize {
    sent.iter().filter(|sent| filter(sent)).count()
}

/// The steady load of one key.
async fn hold(shared: Arc<Shared>, log: Arc<Log>, url: String, key: Key) {
    let client = Client::http1();
    while !shared.over.load(Ordering::Relaxed) {
        if log.request(&client, &url, &key).await != Outcome::Completed {
            breathe().await;
        }
    }
}

/// An operator who issues key after key, each of which is used up at once: they are all cold.
async fn issue(shared: Arc<Shared>, log: Arc<Log>, url: String) {
    let client = Client::http1();
    let mut latest = None;
    while !shared.over.load(Ordering::Relaxed) {
        latest = log.issue_at(&client, &url, 3).await.or(latest);
        if let Some(key) = &latest {
            for _ in 0..4 {
                log.request(&client, &url, key).await;
            }
        }
        breathe().await;
    }
}

/// `/healthz` responds with 200 whatever happens; what `/readyz` says is written down.
async fn probe(shared: Arc<Shared>, url: String) {
    let client = Client::http1();
    while !shared.over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let health = client.get(&format!("{url}/healthz")).await;
        assert_eq!(health.status, 200);
        assert!(begun.elapsed() < TIME_LIMIT, "health after {:?}", begun.elapsed());
        let begun = Instant::now();
        let ready = client.get(&format!("{url}/readyz")).await;
        assert!(begun.elapsed() < TIME_LIMIT, "readiness after {:?}", begun.elapsed());
        let expected = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
        assert!(expected.contains(&ready.status), "{ready:?}");
        lock(&shared.ready).push((begun, Instant::now(), ready.status == StatusCode::OK));
        breathe().await;
    }
}

/// So that rejections do not take the machine for themselves.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
