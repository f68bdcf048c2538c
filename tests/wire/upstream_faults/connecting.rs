//! The upstream is never reached: the request costs nothing, and fails at once.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

use super::{
    common::{Client, Gateway, free_port},
    holder::{Holder, Mode},
    rogue::Rogue,
    trial::{HUSH, SPONSOR, check_own_error, command, equal, judge, serves, used},
};

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn before(base_url: &str) -> Gateway {
    command(base_url).env("UPSTREAM_CONNECT_TIMEOUT", "500ms").start()
}

/// Every request fails with `upstream_unreachable`, and none is charged.
async fn is_unreachable(gateway: &Gateway) {
    let failures = join_all(Mode::ALL.map(|mode| fails(gateway, mode))).await;
    judge(gateway, &failures.into_iter().filter_map(Result::err).collect::<Vec<_>>());
    assert_eq!(Client::http1().get(&gateway.url("/healthz")).await.status, 200);
}

async fn fails(gateway: &Gateway, mode: Mode) -> Result<(), String> {
    let key = gateway.create_key(json!({"daily_limit": 10})).await;
    let mut holder = Holder::new(gateway.address(), key.clone(), mode);
    for _ in 0..2 {
        let seen = holder.send("POST", "/v1/chat/completions", "{}").await?;
        check_own_error(&seen, 502, "upstream_unreachable")?;
        equal("units left", seen.header("x-ratelimit-remaining-requests"), "10")?;
        equal("text or key of the upstream", seen.shows(HUSH) || seen.shows(SPONSOR), false)?;
    }
    equal("units charged", used(gateway, &key).await, 0)
}

/// A new request succeeds.
async fn is_reachable(gateway: &Gateway) {
    for mode in Mode::ALL {
        let key = gateway.create_key(json!({"daily_limit": 10})).await;
        let mut holder = Holder::new(gateway.address(), key, mode);
        serves(&mut holder, "now it is there").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_unreachable_until_it_opens() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let gateway = before(&format!("http://{address}/v1"));
    is_unreachable(&gateway).await;
    let _rogue = Rogue::on(TcpListener::bind(address).await.unwrap(), &[]);
    is_reachable(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_unreachable() {
    is_unreachable(&before("http://no-such-host.invalid/v1")).await;
}

/// A listener whose queue is full, and the connections that fill it.
async fn full_queue() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let timeout = std::time::Duration::from_millis(200);
    while let Ok(connected) = tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    (listener, address, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_timeout_is_unreachable() {
    let (listener, address, waiting) = full_queue().await;
    let gateway = before(&format!("http://{address}/v1"));
    is_unreachable(&gateway).await;
    drop(waiting);
    let _rogue = Rogue::on(listener, &[]);
    is_reachable(&gateway).await;
}

/// The gateway before an upstream by TLS that does this with each connection.
async fn is_unreachable_by_tls<F: Future<Output = ()>>(does: impl Fn(TcpStream) -> F) {
    let (listener, address) = listener().await;
    let gateway = before(&format!("https://{address}/v1"));
    let serve = async {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            does(socket).await;
        }
    };
    tokio::select! {
        () = serve => {}
        () = is_unreachable(&gateway) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_plain_http_port_is_unreachable() {
    is_unreachable_by_tls(|mut socket| async move {
        let _ = socket.read(&mut [0; 1024]).await;
        let response = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\nbetween-us";
        let _ = socket.write_all(response).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_unreachable() {
    // Made by `openssl req -x509` for localhost; valid until 2126, and known to nobody.
    let certificate = CertificateDer::from(&include_bytes!("self_signed.der")[..]);
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("self_signed.key.der")[..]);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    let acceptor = &TlsAcceptor::from(Arc::new(config));
    is_unreachable_by_tls(|socket| async move {
        assert!(acceptor.accept(socket).await.is_err(), "nothing is sent to it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_tls_handshake_is_unreachable() {
    is_unreachable_by_tls(|socket| async move { drop(socket) }).await;
    is_unreachable_by_tls(|mut socket| async move {
        let _ = socket.read(&mut [0; 1024]).await;
        let _ = socket.set_zero_linger();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_tls_handshake_is_unreachable() {
    is_unreachable_by_tls(|mut socket| async move {
        while matches!(socket.read(&mut [0; 1024]).await, Ok(1..)) {}
    })
    .await;
}
