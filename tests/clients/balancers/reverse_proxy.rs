//! nginx, Caddy and HAProxy with the files of `docs/deploy/proxies`, of which only addresses, paths and
//! certificates are replaced, and a client that speaks TLS with them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer},
};

use crate::common::{CollectedResponse, DEADLINE, StubBody, Wire, eventually, free_port, full};

/// The name in the files.
pub(crate) const HOST: &str = "api.yourdomain.com";
/// Where clients connect from: no proxy is trusted here.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A program in front of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReverseProxy {
    Nginx,
    Caddy,
    HaProxy,
}

/// How one is to be started.
pub(crate) struct ProxyCommand {
    kind: ReverseProxy,
    gateway: SocketAddr,
    /// What else is replaced in its file.
    replaced: Vec<(String, String)>,
}

/// One that runs, until it is dropped.
pub(crate) struct RunningProxy {
    child: Child,
    dir: TempDir,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    client: Arc<ClientConfig>,
}

/// An address that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

pub(crate) async fn listens(address: SocketAddr) {
    eventually("the balancer listens", || async { Wire::connect(address).await.is_ok() }).await;
}

impl ReverseProxy {
    fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Caddy => "Caddyfile",
            Self::HaProxy => "haproxy.cfg",
        }
    }

    /// Its file.
    pub(crate) fn text(self) -> String {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deploy/proxies"));
        fs::read_to_string(dir.join(self.file())).unwrap()
    }
}

/// The text with `from`, which must be in it, replaced.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the file has no {from:?}:\n{text}");
    text.replace(from, to)
}

impl ProxyCommand {
    /// One in front of the gateway at this address.
    pub(crate) fn new(kind: ReverseProxy, gateway: SocketAddr) -> Self {
        Self { kind, gateway, replaced: Vec::new() }
    }

    /// The same with this in the place of that, which must be in its file.
    pub(crate) fn replace(mut self, from: &str, to: &str) -> Self {
        self.replaced.push((from.to_owned(), to.to_owned()));
        self
    }

    pub(crate) fn kind(&self) -> ReverseProxy {
        self.kind
    }

    /// Writes what it needs into a directory of its own.
    fn write(&self, dir: &Path, https: SocketAddr, http: SocketAddr) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        fs::write(dir.join("fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        let mut text = self.kind.text();
        for (from, to) in &self.replaced {
            text = replace(&text, from, to);
        }
        text = replace(&text, "127.0.0.1:8787", &self.gateway.to_string());
        let dir_name = dir.to_str().unwrap();
        match self.kind {
            ReverseProxy::Nginx => {
                for (from, to) in [
                    ("listen 80;", format!("listen {http};")),
                    ("listen 443 ssl http2;", format!("listen {https} ssl http2;")),
                    ("listen [::]:80;", String::new()),
                    ("listen [::]:443 ssl http2;", String::new()),
                    ("/etc/letsencrypt/live/api.yourdomain.com", dir_name.to_owned()),
                    ("/var/log/nginx", dir_name.to_owned()),
                ] {
                    text = replace(&text, from, &to);
                }
                fs::write(dir.join("site.conf"), text).unwrap();
                // Debian's own, with other paths.
                let mut main = fs::read_to_string("/etc/nginx/nginx.conf").unwrap();
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {dir_name}/{name};"))
                    .concat();
                for (from, to) in [
                    ("user www-data;", "user root;".to_owned()),
                    ("/run/nginx.pid", format!("{dir_name}/pid")),
                    ("/var/log/nginx", dir_name.to_owned()),
                    ("include /etc/nginx/modules-enabled/*.conf;", String::new()),
                    ("include /etc/nginx/sites-enabled/*;", temporary),
                    ("/etc/nginx/conf.d/*.conf", format!("{dir_name}/site.conf")),
                ] {
                    main = replace(&main, from, &to);
                }
                fs::write(dir.join("main.conf"), main).unwrap();
            }
            ReverseProxy::Caddy => {
                let options = format!(
                    "{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port {}\n\thttps_port {}\n\tlog {{",
                    http.port(),
                    https.port()
                );
                for (from, to) in [
                    ("{\n\tlog {", options),
                    ("\t# tls /etc/ssl/api.yourdomain.com", format!("\ttls {dir_name}")),
                    ("/etc/ssl/api.yourdomain.com", dir_name.to_owned()),
                ] {
                    text = replace(&text, from, &to);
                }
                fs::write(dir.join("Caddyfile"), text).unwrap();
            }
            ReverseProxy::HaProxy => {
                let pem = made.cert.pem() + &made.signing_key.serialize_pem();
                fs::write(dir.join("both.pem"), pem).unwrap();
                for (from, to) in [
                    ("bind :80\n", format!("bind {http}\n")),
                    ("bind :443 ", format!("bind {https} ")),
                    ("bind :::80 v6only\n", String::new()),
                    (
                        "bind :::443 v6only ssl crt /etc/haproxy/api.yourdomain.com.pem alpn h2,http/1.1",
                        String::new(),
                    ),
                    ("/etc/haproxy/api.yourdomain.com.pem", format!("{dir_name}/both.pem")),
                    ("/run/haproxy/admin.sock", format!("{dir_name}/admin.sock")),
                    ("log /dev/log local0", "log stdout format raw local0".to_owned()),
                ] {
                    text = replace(&text, from, &to);
                }
                fs::write(dir.join("haproxy.cfg"), text).unwrap();
            }
        }
        made.cert.der().clone()
    }

    fn command(&self, dir: &Path, checks: bool) -> Command {
        let mut command;
        match self.kind {
            ReverseProxy::Nginx => {
                command = Command::new("nginx");
                command.arg("-c").arg(dir.join("main.conf"));
                match checks {
                    true => command.arg("-t"),
                    false => command.args(["-g", "daemon off; master_process off;"]),
                };
            }
            ReverseProxy::Caddy => {
                command = Command::new("caddy");
                command.arg(if checks { "validate" } else { "run" });
                command.args(["--adapter", "caddyfile", "--config"]).arg(dir.join("Caddyfile"));
                command.envs([("HOME", dir), ("XDG_DATA_HOME", dir), ("XDG_CONFIG_HOME", dir)]);
            }
            ReverseProxy::HaProxy => {
                command = Command::new("haproxy");
                command
                    .args([if checks { "-c" } else { "-db" }, "-f"])
                    .arg(dir.join("haproxy.cfg"));
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// What the program says of its file.
    pub(crate) fn check(&self) -> Output {
        let dir = TempDir::new().unwrap();
        self.write(dir.path(), free(), free());
        self.command(dir.path(), true).output().unwrap()
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self) -> RunningProxy {
        let dir = TempDir::new().unwrap();
        let (https, http) = (free(), free());
        let certificate = self.write(dir.path(), https, http);
        let mut command = self.command(dir.path(), false);
        let log = |name| fs::File::create(dir.path().join(name)).unwrap();
        let child = command.stdout(log("stdout.log")).stderr(log("stderr.log")).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut proxy = RunningProxy { child, dir, https, http, client: Arc::new(client) };
        for address in [https, http] {
            eventually("the program listens", || {
                let ended = proxy.child.try_wait().unwrap();
                assert_eq!(ended, None, "the program has ended");
                async move { Wire::connect(address).await.is_ok() }
            })
            .await;
        }
        proxy
    }
}

impl RunningProxy {
    /// Ends it, so that it writes what it has not yet logged.
    pub(crate) fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    /// All that it has logged.
    pub(crate) fn logged(&self) -> String {
        let files = fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
        logs.map(|log| String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()).collect()
    }

    /// The file with the certificate that it shows.
    pub(crate) fn certificate(&self) -> std::path::PathBuf {
        self.dir.path().join("fullchain.pem")
    }

    /// A connection of a client at [`CLIENT`].
    pub(crate) async fn connect(&self, version: Version) -> Connection {
        self.connect_from(CLIENT, version).await
    }

    /// A socket of a client at this address.
    pub(crate) async fn connect_tls(
        &self,
        client: Ipv4Addr,
        version: Version,
    ) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((client, 0).into()).unwrap();
        let socket = socket.connect(self.https).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut config = (*self.client).clone();
        let is_http2 = version == Version::HTTP_2;
        let protocol = if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() };
        config.alpn_protocols = vec![protocol.clone()];
        let name = HOST.try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&*protocol));
        stream
    }

    /// A connection of a client at this address.
    #[expect(clippy::disallowed_methods, reason = "one task for the connection")]
    pub(crate) async fn connect_from(&self, client: Ipv4Addr, version: Version) -> Connection {
        let stream = TokioIo::new(self.connect_tls(client, version).await);
        if version == Version::HTTP_2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(driver);
            Connection::Http2(sender)
        } else {
            let (sender, driver) = http1::handshake(stream).await.unwrap();
            tokio::spawn(driver);
            Connection::Http1(sender)
        }
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.logged());
        }
    }
}

/// One connection to a program in front.
pub(crate) enum Connection {
    Http1(http1::SendRequest<StubBody>),
    Http2(http2::SendRequest<StubBody>),
}

impl Connection {
    /// Another handle on an HTTP/2 connection.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::Http1(_) => panic!("HTTP/1 has a request at a time"),
            Self::Http2(sender) => Self::Http2(sender.clone()),
        }
    }

    /// Sends a request and returns the response as soon as its head is there.
    pub(crate) async fn open(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: StubBody,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).unwrap();
        let sent = async {
            match self {
                Self::Http1(sender) => {
                    request.headers_mut().insert(header::HOST, HOST.parse().unwrap());
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    *request.uri_mut() = format!("https://{HOST}{path}").parse().unwrap();
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        timeout(DEADLINE, sent).await.expect("a response in time")
    }

    /// Sends a request and reads the whole response.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> CollectedResponse {
        let response = self.open(method, path, headers, full(body)).await.unwrap();
        read(response).await
    }

    /// Posts JSON as the holder of a key or token.
    pub(crate) async fn post_as(&mut self, key: &str, path: &str, body: &str) -> CollectedResponse {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", &*authorization), ("content-type", "application/json")];
        self.send(Method::POST, path, &headers, body.to_owned()).await
    }

    /// Gets a page or figures as the holder of a key or token.
    pub(crate) async fn get_as(&mut self, key: &str, path: &str) -> CollectedResponse {
        let authorization = format!("Bearer {key}");
        self.send(Method::GET, path, &[("authorization", &*authorization)], "").await
    }
}

/// The whole response.
pub(crate) async fn read(response: Response<Incoming>) -> CollectedResponse {
    let (head, body) = response.into_parts();
    let body = timeout(DEADLINE, body.collect()).await.expect("an end in time");
    CollectedResponse { status: head.status, headers: head.headers, body: body.unwrap().to_bytes() }
}
