//! Two gateways behind HAProxy are restarted one after the other, and no client notices.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    invariants,
    nodes::{self, Node, Outcome},
    upstream::CountingUpstream,
};
use crate::common::{Client, Wire, eventually, free_port, postgres::Postgres};

const CLIENTS: usize = 16;
/// More than the clients send meanwhile.
const LIMIT: u64 = 1_000_000;

/// HAProxy in front of gateways, with the checks that docs/scaling.md gives.
struct HaProxy {
    child: Child,
    _dir: TempDir,
    address: SocketAddr,
}

impl HaProxy {
    async fn start(nodes: &[Node]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut configuration = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout check 5s\n\
             retries 3\n option redispatch 1\n retry-on conn-failure\n\
             frontend public\n bind {address}\n default_backend gateways\n\
             backend gateways\n balance hash req.fhdr(authorization)\n hash-type consistent\n\
             option httpchk\n http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host gateways\n\
             http-check expect status 200\n default-server check inter 500ms fall 2 rise 1\n"
        );
        for (number, node) in nodes.iter().enumerate() {
            configuration.push_str(&format!(" server node{number} {}\n", node.address()));
        }
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = haproxy.spawn().unwrap();
        let listens = || async { Wire::connect(address).await.is_ok() };
        eventually("HAProxy listens", listens).await;
        Self { child, _dir: dir, address }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and haproxy"]
async fn a_rolling_restart_behind_haproxy_loses_no_request_and_no_count() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let command = || nodes::settings(&url, &upstream).env("SHUTDOWN_DELAY", "3s");
    let mut nodes = vec![Node::start(command()), Node::start(command())];
    for node in &nodes {
        node.is_ready().await;
    }
    let haproxy = HaProxy::start(&nodes).await;
    let mut keys = Vec::new();
    for number in 0..CLIENTS {
        let name = format!("client-{number}");
        keys.push((nodes::create_key(&nodes[0], &name, LIMIT).await, name));
    }

    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for (key, name) in keys.clone() {
        let (is_over, address) = (is_over.clone(), haproxy.address);
        clients.spawn(async move {
            let client = Client::http1();
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) {
                let outcome = nodes::send(&client, address, &key, &name).await;
                assert_eq!(outcome, Outcome::Served, "{name} after {served}");
                served += 1;
            }
            (key, name, served)
        });
    }
    for node in &mut nodes {
        node.stop_and_start();
        node.is_ready().await;
    }
    let before: u64 = keys.iter().map(|(_, name)| upstream.calls(name)).sum();
    // Both are back in the balancer's list.
    let goes_on =
        || async { keys.iter().map(|(_, name)| upstream.calls(name)).sum::<u64>() > before + 100 };
    eventually("clients are served after both restarts", goes_on).await;
    is_over.store(true, Ordering::Relaxed);
    for (key, name, served) in clients.join_all().await {
        assert_eq!(upstream.calls(&name), served, "{name}");
        nodes::usage_agrees(&nodes, &key, served).await;
    }
    for node in &mut nodes {
        node.stop();
    }
    invariants::hold_at_rest(&url);
}
