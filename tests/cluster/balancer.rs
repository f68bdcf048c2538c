//! nginx and HAProxy with the blocks of `docs/scaling.md`, of which only addresses are replaced.

use std::net::SocketAddr;

use serde_json::Value;

use super::{
    nodes::{self, Outcome},
    upstream::CountingUpstream,
};
use crate::common::{Client, Program, Wire, eventually, free_port};

const GUIDE: &str = include_str!("../../docs/scaling.md");

/// A balancer that runs, until it is dropped.
pub(crate) struct Balancer {
    _program: Program,
    pub(crate) address: SocketAddr,
}

impl Balancer {
    /// HAProxy in front of two gateways.
    pub(crate) async fn haproxy(gateways: [SocketAddr; 2]) -> Self {
        let address = free();
        let configuration = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout check 5s\n\
             frontend public\n bind {address}\n default_backend gateways\n{}",
            block("haproxy", gateways)
        );
        Self::listening(Program::start(&["haproxy", "-f"], &configuration), address).await
    }

    /// nginx in front of two gateways.
    async fn nginx(gateways: [SocketAddr; 2]) -> Self {
        let address = free();
        let program = Program::nginx(&format!(
            "{}
            server {{ listen {address}; location / {{ proxy_pass http://gateways; }} }}",
            block("nginx", gateways)
        ));
        Self::listening(program, address).await
    }

    async fn listening(program: Program, address: SocketAddr) -> Self {
        let listens = || async { Wire::connect(address).await.is_ok() };
        eventually("the balancer listens", listens).await;
        Self { _program: program, address }
    }
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// The guide's block in this language, with these gateways.
fn block(language: &str, gateways: [SocketAddr; 2]) -> String {
    let start = format!("<!-- docs: run by tests/cluster/main.rs -->\n```{language}\n");
    let (block, _) = GUIDE.split_once(&start).unwrap().1.split_once("```").unwrap();
    let [first, second] = gateways.map(|gateway| gateway.to_string());
    let replaced = block.replace("10.0.0.1:8787", &first).replace("10.0.0.2:8787", &second);
    assert!(replaced.contains(&first) && replaced.contains(&second), "{block}");
    replaced
}

/// What stands for gateways counts requests by the names of their keys.
async fn a_key_has_one_gateway(start: impl AsyncFnOnce([SocketAddr; 2]) -> Balancer) {
    const KEYS: usize = 40;
    const REQUESTS: u64 = 5;
    let mut gateways = vec![CountingUpstream::start().await, CountingUpstream::start().await];
    let balancer = start([gateways[0].address(), gateways[1].address()]).await;
    let names: Vec<String> = (0..KEYS).map(|number| format!("trial-key-{number}")).collect();
    for name in &names {
        for _ in 0..REQUESTS {
            let client = Client::http1();
            let outcome = nodes::send(&client, balancer.address, name, name).await;
            assert_eq!(outcome, Outcome::Served, "{name}");
        }
    }
    let served = |gateway: &CountingUpstream| {
        let calls: Vec<u64> = names.iter().map(|name| gateway.calls(name)).collect();
        assert!(calls.iter().all(|calls| [0, REQUESTS].contains(calls)), "{calls:?}");
        calls.iter().sum::<u64>()
    };
    let each = [served(&gateways[0]), served(&gateways[1])];
    assert_eq!(each[0] + each[1], KEYS as u64 * REQUESTS);
    assert!(each.iter().all(|served| *served > 0), "{each:?}");

    // Without one of them the other serves all keys, some after its failure is noticed.
    gateways.pop();
    for name in &names {
        let serves = || async {
            let client = Client::http1();
            let url = format!("http://{}/v1/x", balancer.address);
            client.post_as(name, &url, &Value::Null).await.status == 200
        };
        eventually("the other gateway serves", serves).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs haproxy"]
async fn haproxy_sends_a_key_to_one_gateway_as_the_guide_says() {
    a_key_has_one_gateway(Balancer::haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn nginx_sends_a_key_to_one_gateway_as_the_guide_says() {
    a_key_has_one_gateway(Balancer::nginx).await;
}
