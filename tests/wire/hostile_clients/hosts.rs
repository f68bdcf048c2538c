use super::{
    common::DEADLINE,
    frames::{self, Frames},
    scene::Scene,
    socket::exchange,
};

/// Values of `Host` that name no host.
const BAD: [&str; 26] = [
    "",
    " ",
    "a b",
    "a\tb",
    "a,b",
    "a, b",
    "a/b",
    "a\\b",
    "a?b",
    "a#b",
    "a@b",
    "user:pass@a",
    "a:b",
    "a:-1",
    "a:+1",
    "a:65536",
    "a:99999999999",
    "a:80:80",
    ":80",
    "[::1",
    "::1]",
    "[x]",
    "[]",
    "http://a",
    "a%00",
    "é",
];

#[tokio::test]
async fn an_invalid_host_is_rejected_and_the_connection_closed() {
    let scene = Scene::start().await;
    let mut hosts: Vec<String> = BAD.iter().map(|host| format!("Host: {host}\r\n")).collect();
    hosts.extend(
        [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a\r\nhost:\r\n",
            "Host : a\r\n",
            " Host: a\r\n",
            "Host: a\r\n Host: b\r\n",
            "Host: a\0\r\n",
            "Host: a\rb\r\n",
            "X-Host: a\r\nX-Forwarded-Host: a\r\n",
        ]
        .map(str::to_owned),
    );
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        // HTTP/1.0 knows no such field.
        let may_lack_it = version == "HTTP/1.0";
        for host in hosts.iter().filter(|host| !may_lack_it || names_a_host(host)) {
            let head = format!("POST /v1/x {version}\r\nAuthorization: Bearer {}\r\n", scene.key);
            let request = format!("{head}{host}Content-Length: 0\r\n\r\n");
            let outcome = exchange(scene.gateway.address(), request.as_bytes(), DEADLINE).await;
            outcome.assert_rejected(&format!("{version} {host:?}"));
        }
    }
    assert_eq!(scene.upstream.requests().len(), 0);
    scene.assert_unharmed().await;
}

fn names_a_host(lines: &str) -> bool {
    lines.to_ascii_lowercase().split("\r\n").any(|line| line.trim_start().starts_with("host"))
}

/// Balancers ask so (`option httpchk GET /healthz`), and what is forwarded gets the upstream's name.
#[tokio::test]
async fn http_1_0_needs_no_host() {
    let scene = Scene::start().await;
    let authorization = format!("Authorization: Bearer {}", scene.key);
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET /usage HTTP/1.0\r\n\r\n".to_owned(), 401),
        (format!("GET /usage HTTP/1.0\r\n{authorization}\r\n\r\n"), 200),
        (format!("GET /v1/old HTTP/1.0\r\n{authorization}\r\n\r\n"), 200),
    ] {
        let outcome = exchange(scene.gateway.address(), request.as_bytes(), DEADLINE).await;
        let statuses: Vec<u16> = outcome.responses.iter().map(|response| response.status).collect();
        assert!(statuses == [status] && outcome.closed, "{request:?}: {outcome:?}");
    }
    assert_eq!(scene.upstream.requests_to("/old").len(), 1);
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn an_invalid_authority_is_rejected() {
    let scene = Scene::start().await;
    for host in BAD.into_iter().filter(|host| !host.trim().is_empty()) {
        for field in [":authority", "host"] {
            let mut fields = frames::fields("GET", "/v1/x", &scene.key);
            if field == "host" {
                fields.retain(|(name, _)| name != b":authority");
            }
            fields.retain(|(name, _)| name != field.as_bytes());
            let at = if field == "host" { fields.len() } else { 1 };
            fields.insert(at, (field.into(), host.into()));
            let mut connection = Frames::connect(scene.gateway.address(), &[]).await;
            connection.send(&frames::request(1, &fields)).await.unwrap();
            let outcome = connection.outcome(1, DEADLINE).await;
            let is_rejected =
                outcome.status == Some(400) || outcome.status.is_none() && outcome.cut;
            assert!(is_rejected, "{field} {host:?}: {outcome:?}");
        }
    }
    assert_eq!(scene.upstream.requests().len(), 0);
    scene.assert_unharmed().await;
}

/// The upstream gets its own host, whatever the client sends.
#[tokio::test]
async fn the_clients_host_does_not_reach_the_upstream() {
    let scene = Scene::start().await;
    for host in ["internal.example", "127.0.0.1:1", "[::1]:22", "localhost"] {
        let request = format!(
            "POST /v1/x HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: {host}\r\nForwarded: host={host}\r\n\
             Authorization: Bearer {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            scene.key
        );
        let outcome = exchange(scene.gateway.address(), request.as_bytes(), DEADLINE).await;
        assert_eq!(outcome.responses[0].status, 200, "{host}: {outcome:?}");
    }
    for seen in scene.upstream.requests() {
        assert!(scene.upstream.base_url().contains(seen.values("host")[0]), "{seen:?}");
        assert!(
            !seen.head.contains("internal.example") && !seen.head.contains("[::1]"),
            "{seen:?}"
        );
    }
    scene.assert_unharmed().await;
}
