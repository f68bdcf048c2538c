use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};

use super::{
    common::Client,
    frames::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, INITIAL_WINDOW,
        PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    scene::{SLACK, Scene},
};

const MIB: usize = 1 << 20;
/// How long a flood goes on, if the gateway does not end it.
const FLOOD: Duration = Duration::from_secs(4);
/// How much memory the gateway may take for all of them.
const MOST: usize = 64 * MIB;

/// What an attacker sends, as pieces that are sent one after the other, over and over.
type Flood = Vec<Vec<u8>>;

/// Sends the flood on several connections until the gateway closes them or the time is over, while
/// others are served; then all must be as before.
async fn survives(
    name: &str,
    settings: &[(u16, u32)],
    reads: bool,
    flood: impl Fn(&Scene) -> Flood,
) {
    let scene = Scene::start().await;
    scene.assert_unharmed().await;
    let before = scene.resident();
    let flood = flood(&scene);
    let mut attackers = JoinSet::new();
    for _ in 0..8 {
        let Frames { reader, mut writer } =
            Frames::connect(scene.gateway.address(), settings).await;
        let flood = flood.clone();
        attackers.spawn(async move {
            let mut socket = reader.into_inner();
            let write = async {
                for piece in flood.iter().cycle() {
                    if writer.write_all(piece).await.is_err() {
                        return;
                    }
                }
            };
            let read = async {
                let mut sink = vec![0; 64 * 1024];
                while reads && matches!(socket.read(&mut sink).await, Ok(1..)) {}
                if !reads {
                    std::future::pending::<()>().await;
                }
            };
            let both = async {
                tokio::select! { () = write => {}, () = read => {} }
            };
            let _ = timeout(FLOOD, both).await;
        });
    }
    let over = AtomicBool::new(false);
    let attack = async {
        while attackers.join_next().await.is_some() {}
        over.store(true, Ordering::Relaxed);
    };
    let good = async {
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let health = Client::http1().get(&scene.gateway.url("/healthz")).await;
            assert_eq!((health.status.as_u16(), scene.chat("/v1/good").await), (200, 200));
            assert!(begun.elapsed() < SLACK, "{name}: good requests had to wait");
        }
    };
    tokio::join!(attack, good);
    let grown = scene.resident().saturating_sub(before);
    assert!(grown < MOST, "{name}: {} MiB more", grown / MIB);
    scene.assert_unharmed().await;
}

fn headers(stream: u32, scene: &Scene, path: &str) -> Vec<u8> {
    frames::open(stream, &frames::fields("POST", path, &scene.key))
}

/// As many streams as one connection may have.
fn streams() -> impl Iterator<Item = u32> {
    (0..20_000).map(|number| 2 * number + 1)
}

#[tokio::test]
async fn rapid_resets_are_survived() {
    survives("rapid reset", &[], true, |scene| {
        let reset = |stream| frames::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        streams()
            .map(|stream| [headers(stream, scene, "/v1/reset"), reset(stream)].concat())
            .collect()
    })
    .await;
}

#[tokio::test]
async fn provoked_resets_are_survived() {
    survives("made resets", &[], true, |scene| {
        let wrong = |stream| frames::frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes());
        streams()
            .map(|stream| [headers(stream, scene, "/v1/reset"), wrong(stream)].concat())
            .collect()
    })
    .await;
}

#[tokio::test]
async fn ping_floods_are_survived() {
    for reads in [true, false] {
        survives("PING", &[], reads, |_| vec![frames::frame(PING, 0, 0, &[7; 8]).repeat(1000)])
            .await;
    }
}

#[tokio::test]
async fn settings_floods_are_survived() {
    for reads in [true, false] {
        survives("SETTINGS", &[], reads, |_| {
            let settings: Vec<u8> =
                (0..50).flat_map(|size| frames::setting((4, 65_535 + size))).collect();
            vec![frames::frame(SETTINGS, 0, 0, &settings).repeat(50)]
        })
        .await;
    }
}

#[tokio::test]
async fn continuation_floods_are_survived() {
    for piece in [&b""[..], b"\0\x01a\x01b", &[0; 16_000]] {
        survives("CONTINUATION", &[], true, |scene| {
            let block = frames::block(&frames::fields("GET", "/v1/endless", &scene.key));
            let piece = frames::frame(CONTINUATION, 0, 1, piece);
            let begin = frames::frame(HEADERS, 0, 1, &block);
            [vec![begin], vec![piece; 1000]].concat()
        })
        .await;
    }
}

#[tokio::test]
async fn empty_data_frames_are_survived() {
    survives("empty DATA", &[], true, |scene| {
        let pieces = frames::frame(DATA, 0, 1, b"").repeat(1000);
        [vec![headers(1, scene, "/v1/empty")], vec![pieces; 100]].concat()
    })
    .await;
}

#[tokio::test]
async fn data_on_closed_streams_is_survived() {
    survives("DATA on closed streams", &[], true, |scene| {
        let end = frames::frame(DATA, END_STREAM, 1, b"{}");
        let more = frames::frame(DATA, 0, 1, &[b' '; 16_000]);
        [vec![headers(1, scene, "/v1/x"), end], vec![more; 100]].concat()
    })
    .await;
}

/// One small header, put into the compression table and named a thousand times over.
#[tokio::test]
async fn hpack_bombs_are_survived() {
    survives("HPACK bomb", &[], true, |scene| {
        let mut block = frames::block(&frames::fields("GET", "/v1/bomb", &scene.key));
        block.extend_from_slice(b"\x40\x01a\x7f\xa1\x1e");
        block.extend_from_slice(&[b'b'; 4000]);
        block.extend_from_slice(&[0xbe; 8000]);
        streams()
            .map(|stream| frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block))
            .collect()
    })
    .await;
}

#[tokio::test]
async fn window_update_floods_are_survived() {
    survives("windows", &[(INITIAL_WINDOW, 0)], true, |scene| {
        let long = frames::request(1, &frames::fields("GET", "/v1/windows/long", &scene.key));
        let initial =
            |size| frames::frame(SETTINGS, 0, 0, &frames::setting((INITIAL_WINDOW, size)));
        let one = frames::frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        let turn = [initial(70_000), initial(0), one].concat().repeat(100);
        [vec![long], vec![turn; 10_000]].concat()
    })
    .await;
}

/// What the standard calls an error ends the connection or the stream, and nothing else.
#[tokio::test]
async fn frames_that_break_the_rules_end_their_connection() {
    let scene = Scene::start().await;
    let update = |stream, by: u32| frames::frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let head = headers(1, &scene, "/v1/broken");
    let initial = |size| frames::frame(SETTINGS, 0, 0, &frames::setting((INITIAL_WINDOW, size)));
    for (name, bytes) in [
        ("window update of 0", update(0, 0)),
        ("window above its limit", [update(0, 0x7fff_ffff), update(0, 0x7fff_ffff)].concat()),
        ("stream's window above its limit", [&head[..], &update(1, 0x7fff_ffff)].concat()),
        ("initial window above its limit", initial(0x8000_0000)),
        ("update of a stream that is not there", update(99, 1)),
        ("SETTINGS of half a setting", frames::frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS on a stream", frames::frame(SETTINGS, 0, 1, &[])),
        ("PING of seven bytes", frames::frame(PING, 0, 0, &[0; 7])),
        ("PING on a stream", frames::frame(PING, 0, 1, &[0; 8])),
        ("DATA on no stream", frames::frame(DATA, 0, 0, b"x")),
        ("DATA before its head", frames::frame(DATA, 0, 1, b"x")),
        ("HEADERS on no stream", frames::frame(HEADERS, END_HEADERS, 0, &[])),
        ("HEADERS on an even stream", frames::frame(HEADERS, END_HEADERS, 2, &[0x82])),
        ("CONTINUATION of nothing", frames::frame(CONTINUATION, END_HEADERS, 1, &[])),
        ("RST_STREAM of nothing", frames::frame(RST_STREAM, 0, 1, &[0; 4])),
        ("a header index that is not there", frames::frame(HEADERS, 5, 1, &[0xff, 0xff, 0x7f])),
        ("padding longer than the frame", frames::frame(DATA, 8, 1, &[200, 0])),
        ("a frame above the limit", frames::frame(PING, 0, 0, &[0; 17_000])),
        ("GOAWAY", frames::frame(GOAWAY, 0, 0, &[0; 8])),
    ] {
        let mut connection = Frames::connect(scene.gateway.address(), &[]).await;
        let _ = connection.send(&bytes).await;
        let outcome = connection.outcome(1, SLACK).await;
        assert!(outcome.cut && outcome.status.is_none(), "{name}: {outcome:?}");
    }
    scene.assert_unharmed().await;
}
