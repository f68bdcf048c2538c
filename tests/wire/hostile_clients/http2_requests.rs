use tokio::task::JoinSet;

use super::{
    common::{DEADLINE, eventually},
    frames::{self, DATA, END_STREAM, Field, Frames, RST_STREAM},
    scene::Scene,
};

const INJECTED: &str = "x HTTP/1.1\r\nHost: gateway\r\n\r\nPOST /v1/smuggled HTTP/1.1\r\nA: ";

/// Fields that a request must not have. A pseudo-header takes the place of the good one; what
/// begins with `+` is added, behind all others.
const BAD_FIELDS: [(&str, &str, &str); 71] = [
    ("connection", "connection", "close"),
    ("connection, nominating", "connection", "content-length"),
    ("keep-alive", "keep-alive", "timeout=5"),
    ("proxy-connection", "proxy-connection", "keep-alive"),
    ("transfer-encoding", "transfer-encoding", "chunked"),
    ("transfer-encoding, identity", "transfer-encoding", "identity"),
    ("upgrade", "upgrade", "h2c"),
    ("te", "te", "gzip"),
    ("te, chunked", "te", "trailers, chunked"),
    ("name in capitals", "Transfer-Encoding", "chunked"),
    ("name with one capital", "foO", "bar"),
    ("name with a space", "foo bar", "baz"),
    ("name with a space behind", "transfer-encoding ", "chunked"),
    ("name with a space before", " transfer-encoding", "chunked"),
    ("name with a colon", "transfer-encoding: chunked\r\nx", "y"),
    ("name with a colon behind", "transfer-encoding:", "chunked"),
    ("name with a colon within", "a:b", "c"),
    ("name with CR LF", "a\r\ntransfer-encoding", "chunked"),
    ("name with LF", "a\ntransfer-encoding", "chunked"),
    ("name with CR", "a\rtransfer-encoding", "chunked"),
    ("name with NUL", "a\0b", "c"),
    ("name with DEL", "a\x7fb", "c"),
    ("name with a tab", "a\tb", "c"),
    ("name in another script", "ä", "c"),
    ("name empty", "", "c"),
    ("value with CR LF", "a", "b\r\nTransfer-Encoding: chunked"),
    ("value with CR LF CR LF", "a", "b\r\n\r\nPOST /v1/smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"),
    ("value with LF", "a", "b\nTransfer-Encoding: chunked"),
    ("value with CR", "a", "b\rTransfer-Encoding: chunked"),
    ("value with NUL", "a", "b\0c"),
    ("value with a vertical tab", "a", "b\x0bc"),
    ("value with DEL", "a", "b\x7fc"),
    ("path with CR LF", ":path", "/v1/x\r\nTransfer-Encoding: chunked"),
    ("path with a request", ":path", "INJECTED"),
    ("path with LF", ":path", "/v1/x\nA: b"),
    ("path with CR", ":path", "/v1/x\rA: b"),
    ("path with a space", ":path", "/v1/x y"),
    ("path with a tab", ":path", "/v1/x\ty"),
    ("path with NUL", ":path", "/v1/x\0y"),
    ("path empty", ":path", ""),
    ("path relative", ":path", "v1/x"),
    ("path absolute", ":path", "http://internal.example/v1/x"),
    ("path asterisk", ":path", "*"),
    ("path authority", ":path", "internal.example:80"),
    ("path of a network", ":path", "//internal.example/v1/x"),
    ("method with a request", ":method", "POST /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET"),
    ("method with a space", ":method", "POST /v1/smuggled"),
    ("method with CR LF", ":method", "POST\r\nA: b"),
    ("method with a colon", ":method", "A: b"),
    ("method empty", ":method", ""),
    ("method CONNECT", ":method", "CONNECT"),
    ("method TRACE", ":method", "TRACE"),
    ("scheme with CR LF", ":scheme", "http\r\nA: b"),
    ("scheme with a path", ":scheme", "http://internal.example/v1/smuggled?"),
    ("scheme empty", ":scheme", ""),
    ("scheme ftp", ":scheme", "ftp"),
    ("authority with CR LF", ":authority", "gateway\r\nTransfer-Encoding: chunked"),
    ("authority with a path", ":authority", "gateway/v1/smuggled"),
    ("authority with a user", ":authority", "user@gateway"),
    ("authority with a space", ":authority", "gate way"),
    ("authority with two ports", ":authority", "gateway:80:80"),
    ("authority with a huge port", ":authority", "gateway:99999"),
    ("authority and another host", "host", "internal.example"),
    ("path twice", "+:path", "/v1/smuggled"),
    ("method twice", "+:method", "GET"),
    ("authority twice", "+:authority", "internal.example"),
    ("scheme twice", "+:scheme", "https"),
    ("unknown pseudo-header", "+:unknown", "x"),
    ("protocol", "+:protocol", "websocket"),
    ("status", "+:status", "200"),
    ("missing path", "-:path", ""),
];

/// Declared lengths of a body that has six bytes in two pieces.
const BAD_LENGTHS: [(&str, &[&str]); 14] = [
    ("too short", &["5"]),
    ("too long", &["7"]),
    ("none", &["0"]),
    ("twice the same", &["6", "6"]),
    ("twice, first right", &["6", "0"]),
    ("twice, last right", &["0", "6"]),
    ("list of the same", &["6, 6"]),
    ("list", &["6, 0"]),
    ("with plus", &["+6"]),
    ("negative", &["-6"]),
    ("hexadecimal", &["0x6"]),
    ("with a space within", &["0 6"]),
    ("empty", &[""]),
    ("above 64 bits", &["18446744073709551622"]),
];

fn bad_request(key: &str, name: &str, value: &str) -> Vec<Field> {
    let mut fields = frames::fields("POST", "/v1/x", key);
    let value = value.replace("INJECTED", &format!("/v1/{INJECTED}")).into_bytes();
    if let Some(added) = name.strip_prefix('+') {
        fields.push((added.into(), value));
    } else if let Some(missing) = name.strip_prefix('-') {
        fields.retain(|(given, _)| given != missing.as_bytes());
    } else if let Some(field) = fields.iter_mut().find(|(given, _)| given == name.as_bytes()) {
        field.1 = value;
    } else {
        fields.push((name.into(), value));
    }
    fields
}

#[tokio::test]
async fn fields_that_mean_something_else_in_http_1_are_rejected() {
    let scene = Scene::start().await;
    let mut streams = JoinSet::new();
    for (name, field, value) in BAD_FIELDS {
        let fields = bad_request(&scene.key, field, value);
        let gateway = scene.gateway.address();
        streams.spawn(async move {
            let mut connection = Frames::connect(gateway, &[]).await;
            let body = frames::frame(DATA, END_STREAM, 1, b"0\r\n\r\nG");
            // The gateway may have given up on the head already.
            let _ = connection.send(&[frames::open(1, &fields), body].concat()).await;
            (name, connection.outcome(1, DEADLINE).await)
        });
    }
    for (name, outcome) in streams.join_all().await {
        let is_rejected = outcome.status.is_some_and(|status| (400..500).contains(&status));
        assert!(is_rejected || (outcome.cut && outcome.status.is_none()), "{name}: {outcome:?}");
    }
    assert_eq!(scene.upstream.requests().len(), 0, "{:?}", scene.upstream.requests());
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn a_body_of_another_length_than_declared_is_never_forwarded_as_complete() {
    let scene = Scene::start().await;
    let mut streams = JoinSet::new();
    for method in ["POST", "GET"] {
        for (number, (name, lengths)) in BAD_LENGTHS.into_iter().enumerate() {
            let mut fields = frames::fields(method, &format!("/v1/{method}/{number}"), &scene.key);
            let lengths = lengths.iter().map(|text| ("content-length".into(), (*text).into()));
            fields.extend(lengths);
            let gateway = scene.gateway.address();
            streams.spawn(async move {
                let mut connection = Frames::connect(gateway, &[]).await;
                let [first, last] = [(0, b"0\r\n"), (END_STREAM, b"\r\nG")];
                let first = frames::frame(DATA, first.0, 1, first.1);
                let last = frames::frame(DATA, last.0, 1, last.1);
                let _ = connection.send(&[frames::open(1, &fields), first, last].concat()).await;
                (format!("{method}, {name}"), connection.outcome(1, DEADLINE).await)
            });
        }
    }
    for (name, outcome) in streams.join_all().await {
        let is_rejected = outcome.status.is_some_and(|status| (400..500).contains(&status));
        assert!(is_rejected || (outcome.cut && outcome.status.is_none()), "{name}: {outcome:?}");
    }
    let seen = scene.upstream.requests();
    assert!(seen.iter().all(|request| !request.whole), "{seen:?}");
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn a_body_that_is_reset_is_never_forwarded_as_complete() {
    const NO_ERROR: u32 = 0;
    const CANCEL: u32 = 8;
    let scene = Scene::start().await;
    for reason in [NO_ERROR, CANCEL] {
        let path = format!("/v1/reset/{reason}");
        let mut connection = Frames::connect(scene.gateway.address(), &[]).await;
        let head = frames::open(1, &frames::fields("POST", &path, &scene.key));
        let begun = frames::frame(DATA, 0, 1, b"begun");
        connection.send(&[head, begun].concat()).await.unwrap();
        let body = || scene.upstream.requests_to(&path).first().map(|seen| seen.body.clone());
        eventually("the begin at the upstream", || async {
            body().is_some_and(|body| body.ends_with(b"begun"))
        })
        .await;
        let reset = frames::frame(RST_STREAM, 0, 1, &reason.to_be_bytes());
        connection.send(&reset).await.unwrap();
        eventually("the end at the upstream", || async {
            scene.upstream.requests_to(&path)[0].over
        })
        .await;
        assert!(!scene.upstream.requests_to(&path)[0].whole, "{reason}");
    }
    scene.assert_unharmed().await;
}

/// What hyper would take for no body at all is passed on.
#[tokio::test]
async fn a_body_without_a_declared_length_arrives_whole() {
    let scene = Scene::start().await;
    for method in ["POST", "PUT", "DELETE", "GET"] {
        let mut connection = Frames::connect(scene.gateway.address(), &[]).await;
        let fields = frames::fields(method, &format!("/v1/undeclared/{method}"), &scene.key);
        let body = frames::frame(DATA, END_STREAM, 1, b"0\r\n\r\nG");
        connection.send(&[frames::open(1, &fields), body].concat()).await.unwrap();
        let outcome = connection.outcome(1, DEADLINE).await;
        assert_eq!(outcome.status, Some(200), "{method}: {outcome:?}");
        let seen = scene.upstream.requests_to(&format!("undeclared/{method}"));
        assert_eq!(seen.len(), 1, "{method}: {seen:?}");
        assert_eq!(seen[0].body, b"0\r\n\r\nG", "{method}: {seen:?}");
    }
    scene.assert_unharmed().await;
}
