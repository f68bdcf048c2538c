use std::{fs, time::Duration};

use http::Method;
use serde_json::json;

use super::{
    common::{Client, Gateway, GatewayCommand},
    upstream::{Recording, SPONSOR_KEY},
};

/// How long the gateway waits for its clients here.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it waits for a head.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// What a busy machine may add to a time limit.
pub(crate) const SLACK: Duration = Duration::from_secs(6);

/// A gateway with short timeouts, an upstream that records every request, and a key with no limit.
pub(crate) struct Scene {
    pub(crate) upstream: Recording,
    pub(crate) gateway: Gateway,
    pub(crate) key: String,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        let upstream = Recording::start().await;
        let gateway = GatewayCommand::before(upstream.base_url())
            .env("UPSTREAM_API_KEY", SPONSOR_KEY)
            .env("CLIENT_TIMEOUT", "2s")
            .env("CLIENT_IDLE_TIMEOUT", "2s")
            .start();
        let key = gateway.create_key(json!({"daily_limit": 0})).await;
        Self { upstream, gateway, key }
    }

    /// Asserts that the gateway is as it was before: alive, free of panics, and of use.
    pub(crate) async fn assert_unharmed(&self) {
        let response = self.chat("/v1/still/well").await;
        assert_eq!(response, 200, "{}", self.gateway.printed());
        let printed = self.gateway.printed();
        assert!(!printed.contains("panic"), "{printed}");
        self.upstream.assert_clean();
    }

    /// Sends a good request and returns the status of its response.
    pub(crate) async fn chat(&self, path: &str) -> u16 {
        let authorization = format!("Bearer {}", self.key);
        let headers = [("authorization", authorization.as_str())];
        let url = self.gateway.url(path);
        let client = Client::http1();
        client.send(Method::POST, &url, &headers, r#"{"model":"m"}"#).await.status.as_u16()
    }

    /// How much memory the gateway holds.
    pub(crate) fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}
