//! HAProxy and nginx in comparable configurations.

use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
};

use tower::BoxError;

use crate::{
    forward::CREDENTIAL,
    process::Server,
    proxy::{LIMIT, Variant, key},
    subject::Conditions,
};

/// Returns whether a program is installed.
pub(crate) fn is_installed(program: &str) -> bool {
    let run = Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// Starts HAProxy or nginx with its files in `directory`.
pub(crate) fn start(
    variant: Variant,
    conditions: Conditions,
    directory: &Path,
) -> Result<Server, BoxError> {
    let (keys, threads) = (conditions.keys(), conditions.runtime.threads());
    let address = free_address()?;
    let config = directory.join("config");
    match variant {
        Variant::Haproxy => {
            let map: String =
                (0..keys).map(|number| format!("{} k{number}\n", key(number))).collect();
            let map_path = directory.join("keys.map");
            fs::write(&map_path, map)?;
            fs::write(&config, haproxy(address, conditions.upstream, threads, &map_path))?;
            let mut haproxy = Command::new("haproxy");
            haproxy.arg("-f").arg(config);
            Server::foreign(&haproxy, address)
        }
        _ => {
            fs::write(&config, nginx(address, conditions.upstream, threads, keys, directory)?)?;
            let mut nginx = Command::new("nginx");
            nginx.arg("-c").arg(config);
            Server::foreign(&nginx, address)
        }
    }
}

/// Returns a free address below the ephemeral ports, so that no outgoing connection takes it in between.
/// Starts at a port that depends on the process, so that two benches do not choose the same.
fn free_address() -> Result<SocketAddr, BoxError> {
    let first = 20_000 + (std::process::id() % 1_000 * 10) as u16;
    let free = (first..32_000).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    free.into_iter()
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| "no free port".into())
}

/// Returns HAProxy's configuration. The count is in memory and lost with the process.
fn haproxy(listen: SocketAddr, upstream: SocketAddr, threads: usize, map: &Path) -> String {
    let map = map.display();
    format!(
        r#"global
    nbthread {threads}
    maxconn 9000
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-request 600s
frontend keys
    bind {listen}
    http-request set-var(txn.key) req.hdr(authorization),word(2,\ ),map_str({map})
    http-request deny deny_status 401 unless {{ var(txn.key) -m found }}
    http-request track-sc0 var(txn.key) table today
    http-request deny deny_status 429 if {{ sc0_http_req_rate gt {LIMIT} }}
    http-request set-header authorization "{CREDENTIAL}"
    default_backend upstream
backend today
    stick-table type string len 32 size 2m expire 1d store http_req_rate(1d)
backend upstream
    http-reuse always
    server upstream {upstream}
"#
    )
}

fn nginx(
    listen: SocketAddr,
    upstream: SocketAddr,
    workers: usize,
    keys: usize,
    directory: &Path,
) -> Result<String, std::fmt::Error> {
    let directory = directory.display();
    let mut map = String::new();
    for number in 0..keys {
        writeln!(map, "        \"Bearer {}\" k{number};", key(number))?;
    }
    // Its default is too small for many keys.
    let map_size = (2 * keys).max(2_048);
    let proxy = format!(
        r#"if ($key_id = "") {{ return 401; }}
            proxy_pass http://upstream;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header connection "";
            proxy_set_header authorization "{CREDENTIAL}";"#
    );
    Ok(format!(
        r#"daemon off;
worker_processes {workers};
pid {directory}/pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    map_hash_bucket_size 128;
    map_hash_max_size {map_size};
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    map $http_authorization $key_id {{
        default "";
{map}    }}
    upstream upstream {{
        server {upstream};
        keepalive 128;
        keepalive_timeout 600s;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            {proxy}
        }}
        location ~ ^/v1/(stream|paced|burst|idle)/ {{
            proxy_buffering off;
            {proxy}
        }}
    }}
}}
"#
    ))
}
