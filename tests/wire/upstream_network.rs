//! The way to the upstream through a proxy, and with authorities of one's own.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use crate::common::{Client, Gateway, GatewayCommand, Upstream, chat_json, json_response};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
};

/// The upstream in the settings of the gateway. Only the proxy of these tests knows where it is.
const UPSTREAM: &str = "https://upstream.test/v1";

/// A proxy that takes CONNECT and leads every tunnel to one address.
struct Proxy {
    address: String,
    /// The heads that it was sent.
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Rejects who does not present `authorization`, if there is one.
    async fn start(to: std::net::SocketAddr, authorization: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let seen = seen.clone();
                tunnels.spawn(async move {
                    let mut client = BufReader::new(client);
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n")
                        && client.read_line(&mut head).await.unwrap() > 0
                    {}
                    let may = authorization.is_none_or(|needed| head.contains(needed));
                    seen.lock().unwrap().push(head);
                    if !may {
                        let rejection = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                        let _ = client.write_all(rejection).await;
                        return;
                    }
                    let mut upstream = TcpStream::connect(to).await.unwrap();
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut upstream).await;
                });
            }
        });
        Self { address, heads, _tasks: tasks }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// An upstream behind TLS whose certificate nobody trusts who was not given it, and that certificate.
struct Tls {
    address: std::net::SocketAddr,
    authority: String,
    _tasks: JoinSet<()>,
}

async fn tls_before(upstream: &Upstream) -> Tls {
    let made = rcgen::generate_simple_self_signed(["upstream.test".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap(), upstream.address());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut upstream = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    Tls { address, authority: made.cert.pem(), _tasks: tasks }
}

async fn upstream() -> Upstream {
    Upstream::start(|_| json_response(chat_json().to_string())).await
}

async fn chat(gateway: &Gateway) -> u16 {
    let key = gateway.create_key(json!({})).await;
    let url = gateway.url("/v1/chat/completions");
    Client::http1().post_as(&key, &url, &json!({})).await.status.as_u16()
}

fn with_authority(command: GatewayCommand, authority: &str) -> GatewayCommand {
    fs::write(command.dir().join("ca.pem"), authority).unwrap();
    command.env("UPSTREAM_CA_FILE", "ca.pem")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_reached_through_a_proxy_and_its_own_authority_is_trusted() {
    let upstream = upstream().await;
    let tls = tls_before(&upstream).await;
    for variable in ["UPSTREAM_PROXY", "HTTPS_PROXY"] {
        let proxy = Proxy::start(tls.address, None).await;
        let command =
            GatewayCommand::before(UPSTREAM).env(variable, format!("http://{}", proxy.address));
        let gateway = with_authority(command, &tls.authority).start();
        let before = upstream.count();
        assert_eq!(chat(&gateway).await, 200, "{}", gateway.printed());
        assert_eq!(upstream.count(), before + 1);
        let heads = proxy.heads();
        assert!(heads[0].starts_with("CONNECT upstream.test:443 HTTP/1.1\r\n"), "{heads:?}");
        assert!(!heads.iter().any(|head| head.contains("sk-sponsor")), "{heads:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfigured_authority_is_not_trusted() {
    let upstream = upstream().await;
    let tls = tls_before(&upstream).await;
    let proxy = Proxy::start(tls.address, None).await;
    let gateway = GatewayCommand::before(UPSTREAM)
        .env("UPSTREAM_PROXY", format!("http://{}", proxy.address))
        .start();
    assert_eq!(chat(&gateway).await, 502);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_its_password_and_a_rejection_of_it_costs_nothing() {
    let upstream = upstream().await;
    let tls = tls_before(&upstream).await;
    // user:s3cr3t
    let proxy = Proxy::start(tls.address, Some("Basic dXNlcjpzM2NyM3Q=")).await;
    for (user, status) in [("user:s3cr3t@", 200), ("user:wrong@", 502), ("", 502)] {
        let command = GatewayCommand::before(UPSTREAM)
            .env("UPSTREAM_PROXY", format!("http://{user}{}", proxy.address));
        let gateway = with_authority(command, &tls.authority).start();
        let key = gateway.create_key(json!({})).await;
        let url = gateway.url("/v1/chat/completions");
        let response = Client::http1().post_as(&key, &url, &json!({})).await;
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(gateway.used(&key).await, u64::from(status == 200));
        let status = gateway.admin(http::Method::GET, "/admin/status", &json!(null)).await;
        assert!(!status.to_string().contains("s3cr3t") && !gateway.printed().contains("s3cr3t"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_proxy_applies_to_https_hosts_that_no_proxy_does_not_name() {
    let upstream = upstream().await;
    let proxy = Proxy::start(upstream.address(), None).await;
    let proxy_url = format!("http://{}", proxy.address);
    let plain = GatewayCommand::before(upstream.base_url()).env("HTTPS_PROXY", &proxy_url).start();
    assert_eq!(chat(&plain).await, 200);
    let excepted = GatewayCommand::before("https://upstream.test/v1")
        .env("HTTPS_PROXY", &proxy_url)
        .env("NO_PROXY", "localhost,.test")
        .start();
    assert_eq!(chat(&excepted).await, 502);
    assert!(proxy.heads().is_empty());
    // One that is named for the upstream is taken for it, whatever it is.
    let named = GatewayCommand::before("http://upstream.test/v1")
        .env("UPSTREAM_PROXY", &proxy_url)
        .env("NO_PROXY", "*")
        .start();
    assert_eq!(chat(&named).await, 200);
    assert!(proxy.heads()[0].starts_with("CONNECT upstream.test:80 "), "{:?}", proxy.heads());
}
