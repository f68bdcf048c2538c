//! The upstream's responses in content codings: unchanged, except for 4xx, which may hold the sponsor's
//! key.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{
    rogue::Step::{Bytes, Close, ReadBody},
    trial::{
        Kind,
        Outcome::{Cut, Error, Raw},
        kind, try_all,
    },
};

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// The steps of an upstream that sends this body in this coding.
fn coded(status: u16, coding: &str, body: &[u8]) -> &'static [super::rogue::Step] {
    let head = format!(
        "HTTP/1.1 {status} So\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    vec![ReadBody, Bytes([head.as_bytes(), body].concat().leak())].leak()
}

const TEXT: &str = "{\"error\":{\"message\":\"between-us: sk-sponsor-secret\"}}";
const MASKED: &str = "{\"error\":{\"message\":\"between-us: *****************\"}}";

#[tokio::test(flavor = "multi_thread")]
async fn successful_responses_keep_their_coding() {
    let good = gzip("{\"id\":1}").leak();
    let noise: &[u8] = b"\x8b\x03no coding at all\x00";
    let kinds: Vec<Kind> = vec![
        kind("gzip", coded(200, "gzip", good), Raw(200, good), 1)
            .showing(&[("content-encoding", "gzip")]),
        kind("gzip that is none", coded(200, "gzip", noise), Raw(200, noise), 1)
            .showing(&[("content-encoding", "gzip")]),
        kind("br", coded(200, "br", noise), Raw(200, noise), 1)
            .showing(&[("content-encoding", "br")]),
        kind("a coding that nobody knows", coded(200, "x", noise), Raw(200, noise), 1)
            .showing(&[("content-encoding", "x")]),
    ];
    try_all(kinds.leak()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_in_gzip_are_searched_for_the_sponsors_key() {
    let good = gzip(TEXT);
    let mut half = coded(400, "gzip", &good)[1..].to_vec();
    if let Some(Bytes(bytes)) = half.pop() {
        half = vec![ReadBody, Bytes(&bytes[..bytes.len() - 4]), Close];
    }
    let kinds: Vec<Kind> = vec![
        kind("gzip", coded(400, "gzip", &good), Raw(400, MASKED.as_bytes()), 1)
            .showing(&[("content-encoding", "")]),
        kind("x-gzip", coded(422, "x-gzip", &good), Raw(422, MASKED.as_bytes()), 1),
        kind("gzip that is none", coded(400, "gzip", b"sk-sponsor-secret"), Cut(400, ""), 1),
        kind("half of it", half.leak(), Cut(400, ""), 1),
    ];
    try_all(kinds.leak()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_in_other_codings_are_replaced_and_charged() {
    const REJECTED: super::trial::Outcome = Error(400, "upstream_refused");
    let kinds: Vec<Kind> = vec![
        kind("br", coded(400, "br", TEXT.as_bytes()), REJECTED, 1)
            .showing(&[("content-encoding", "")]),
        kind("zstd", coded(400, "zstd", TEXT.as_bytes()), REJECTED, 1),
        kind("deflate", coded(400, "deflate", TEXT.as_bytes()), REJECTED, 1),
        kind("two of them", coded(400, "gzip, br", TEXT.as_bytes()), REJECTED, 1),
        kind("404", coded(404, "br", TEXT.as_bytes()), Error(404, "upstream_refused"), 1),
    ];
    try_all(kinds.leak()).await;
}
