use tokio::task::JoinSet;

use super::{
    common::{ADMIN_TOKEN, DEADLINE},
    frames::{self, Frames},
    scene::Scene,
    socket::exchange,
    upstream::BASE,
};

/// Ways to say `..`, or what somebody may take for it.
const UPS: [&str; 26] = [
    "..",
    "%2e%2e",
    ".%2e",
    "%2E.",
    "%252e%252e",
    "%25252e.",
    "%25%32%65%25%32%65",
    "..;",
    "..;a=b",
    "%2e%2e;",
    "..%3b",
    "..%00",
    "..%0d%0a",
    "..%09",
    "..%20",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae.",
    "\u{ff0e}\u{ff0e}",
    "%ef%bc%8e%ef%bc%8e",
    "\u{2025}",
    "%u002e%u002e",
    "...",
    ".",
    "%2e",
    "%%32%65%%32%65",
];
/// Ways to say `/`.
const SLASHES: [&str; 16] = [
    "/",
    "%2f",
    "%2F",
    "%252f",
    "%25252F",
    "\\",
    "%5c",
    "%255c",
    "//",
    "/./",
    "%c0%af",
    "%e0%80%af",
    "\u{ff0f}",
    "\u{2215}",
    ";/",
    "%00/",
];
/// Ways to another place that need no `..`.
const OTHERS: [&str; 24] = [
    "/%61dmin/keys",
    "/admin%2fkeys",
    "/admin;/keys",
    "/ADMIN/keys",
    "/admin./keys",
    "/admin%20/keys",
    "/./admin/keys",
    "//admin/keys",
    "/;/admin/keys",
    "/v1/;/admin/keys",
    "/v1/admin/keys",
    "/v1;/admin/keys",
    "/v1%2fadmin/keys",
    "/v1\\admin/keys",
    "/v1/%2fadmin/keys",
    "/v1/http://a/keys",
    "/v1/http:%2f%2fa/keys",
    "/v1/?/../admin/keys",
    "/v1/x?/../../admin",
    "/v1/x#/../admin",
    "/v1/x%23/../../admin",
    "/v1/x%3f/../../admin",
    "/v1",
    "/v1/",
];

/// Asserts that, however often it is decoded, a target does not lead out of the base path.
pub(crate) fn assert_below_base(target: &str) {
    let path = target.split(['?', '#']).next().unwrap_or("");
    let mut text = path.as_bytes().to_vec();
    for _ in 0..8 {
        let read: Vec<u8> =
            text.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
        let mut place: Vec<&[u8]> = Vec::new();
        for segment in read.split(|byte| *byte == b'/') {
            match segment.split(|byte| *byte == b';').next().unwrap_or(b"") {
                b"" | b"." => {}
                b".." => drop(place.pop()),
                _ => place.push(segment),
            }
            // What was left once is outside, even if it is entered again.
            let above = [&b"base"[..], b"v1"].into_iter().zip(&place);
            assert!(above.into_iter().all(|(base, here)| base == *here), "outside: {target}");
        }
        assert!(place.len() >= 2, "outside of the base path: {target}");
        assert!(path.starts_with(BASE), "outside of the base path: {target}");
        text = decoded(&text);
    }
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

fn spellings() -> Vec<String> {
    let mut spellings: Vec<String> = OTHERS.map(str::to_owned).into();
    for up in UPS {
        for slash in SLASHES {
            spellings.push(format!("/v1/{up}{slash}admin/keys"));
            spellings.push(format!("/v1/models{slash}{up}{slash}{up}{slash}{up}/admin/keys"));
            spellings.push(format!("/chat/completions/x{slash}{up}"));
        }
    }
    spellings
}

/// Asserts that a response is a rejection, or the upstream's. The admin API would send
/// something else, as its token comes with every request.
fn is_fine(status: u16, body: &[u8]) -> bool {
    (400..500).contains(&status) || (status == 200 && body == b"{}")
}

#[tokio::test]
async fn no_spelling_leads_out_of_the_base_path_or_to_the_admin_api() {
    let scene = Scene::start().await;
    let spellings = spellings();
    assert!(spellings.len() > 1000);
    let mut clients = JoinSet::new();
    for some in spellings.chunks(spellings.len() / 32 + 1) {
        let (some, key, gateway) = (some.to_vec(), scene.key.clone(), scene.gateway.address());
        clients.spawn(async move {
            for path in some {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: gateway\r\nX-Trial-Key: {key}\r\n\
                     X-Admin-Token: {ADMIN_TOKEN}\r\nConnection: close\r\n\r\n"
                );
                let outcome = exchange(gateway, request.as_bytes(), DEADLINE).await;
                assert!(outcome.closed && outcome.responses.len() == 1, "{path}: {outcome:?}");
                let response = &outcome.responses[0];
                assert!(is_fine(response.status, &response.body), "{path}: {outcome:?}");
            }
        });
    }
    clients.join_all().await;
    scene.assert_unharmed().await;
    assert_no_token_has_travelled(&scene);
}

#[tokio::test]
async fn no_http2_spelling_leads_out_of_the_base_path_or_to_the_admin_api() {
    let scene = Scene::start().await;
    let mut clients = JoinSet::new();
    for some in spellings().chunks(30) {
        let (some, key, gateway) = (some.to_vec(), scene.key.clone(), scene.gateway.address());
        clients.spawn(async move {
            let mut connection = Frames::connect(gateway, &[]).await;
            for (number, path) in some.into_iter().enumerate() {
                let stream = 2 * number as u32 + 1;
                let mut fields = frames::fields("GET", &path, "");
                fields.pop();
                fields.push(("x-trial-key".into(), key.clone().into()));
                fields.push(("x-admin-token".into(), ADMIN_TOKEN.into()));
                connection.send(&frames::request(stream, &fields)).await.unwrap();
                let outcome = connection.outcome(stream, DEADLINE).await;
                let fine = match outcome.status {
                    Some(status) => is_fine(status, &outcome.body),
                    None => outcome.cut,
                };
                assert!(fine, "{path}: {outcome:?}");
            }
        });
    }
    clients.join_all().await;
    scene.assert_unharmed().await;
    assert_no_token_has_travelled(&scene);
}

fn assert_no_token_has_travelled(scene: &Scene) {
    let seen = scene.upstream.requests();
    assert!(seen.len() > 1, "some spellings are fine");
    for request in seen {
        assert!(!request.head.contains(ADMIN_TOKEN), "{request:?}");
        assert!(!request.head.contains(&scene.key), "{request:?}");
    }
}
