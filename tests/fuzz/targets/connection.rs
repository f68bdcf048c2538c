//! What the gateway hands to hyper of a connection is a row of requests in which nobody could find
//! other ones, whatever is sent and however it is cut.
#![no_main]

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt;

use activity::Activity;
use socket::ClientSocket;

#[path = "../../../src/server/http1/mod.rs"]
#[allow(dead_code)]
mod http1;
#[path = "../../../src/server/http2.rs"]
#[allow(dead_code)]
mod http2;
#[path = "../../../src/server/timeout.rs"]
#[allow(dead_code)]
mod timeout;

/// Stands in for the socket: pieces that are ready at once, and an end.
mod socket {
    use std::{
        collections::VecDeque,
        io::Result,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    pub(crate) struct ClientSocket(pub(crate) VecDeque<Vec<u8>>);

    impl ClientSocket {
        pub(crate) fn close_unless_readable(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl AsyncRead for ClientSocket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for ClientSocket {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}

/// Stands in for the activity of a connection: no connection is ever evicted.
mod activity {
    use tokio::time::Instant;

    use crate::connection_limit::Inactivity;

    pub(crate) struct Activity;

    impl Activity {
        pub(crate) fn set_http2(&self) {}

        pub(crate) fn inactive(&self) -> Option<(Inactivity, Instant)> {
            None
        }

        pub(crate) fn begin_head(&self) {}

        pub(crate) fn is_evicted(&self) -> bool {
            false
        }

        pub(crate) fn flushed(&self) -> bool {
            false
        }
    }
}

mod connection_limit {
    #[allow(dead_code)]
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Inactivity {
        Head,
        Idle,
    }
}

/// As in the server.
mod limits {
    use std::time::Duration;

    pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
    pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
    pub(crate) const MAX_TARGET_BYTES: usize = 8 * 1024;
    pub(crate) const MAX_HEADERS: usize = 100;
}

const PLACEHOLDER_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n";

fuzz_target!(|data: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = data;
    let whole = forwarded(vec![bytes.to_vec()]);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, more) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = more;
    }
    pieces.push(rest.to_vec());
    let cut = forwarded(pieces);
    assert_eq!(cut.failed, whole.failed);
    // A head that comes in pieces is validated when it is complete: one that never is stays unvalidated.
    assert!(whole.rejected || !cut.rejected);
    let end = if whole.rejected && !cut.rejected { PLACEHOLDER_HEAD } else { b"" };
    let expected = whole.bytes.strip_suffix(end).expect("the stand-in comes last");
    // Of a body that fails, as much is forwarded as came before the piece with the fault.
    let same = if whole.failed { cut.bytes.starts_with(expected) } else { cut.bytes == expected };
    assert!(same, "{:?} {:?}", cut.bytes, whole.bytes);
    if bytes.starts_with(http2::PREFACE) {
        assert_eq!(whole.bytes, bytes);
    } else {
        for result in [&whole, &cut] {
            let end = if result.rejected { PLACEHOLDER_HEAD } else { b"" };
            let taken = result.bytes.strip_suffix(end).expect("the stand-in comes last");
            assert_requests(taken, result.rejected);
        }
    }
});

struct Forwarded {
    bytes: Vec<u8>,
    rejected: bool,
    failed: bool,
}

fn forwarded(pieces: Vec<Vec<u8>>) -> Forwarded {
    RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let socket = ClientSocket(pieces);
        let mut io = http1::ValidatedIo::new(socket, Activity, Duration::from_secs(75));
        let mut bytes = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        let protocol = io.poll_protocol(cx);
        assert!(matches!(protocol, Poll::Ready(Ok(_))));
        let read = pin!(io.read_to_end(&mut bytes));
        // The pieces are always there: only behind a rejected request is there nothing to come.
        let read = read.poll(cx);
        let rejected = io.rejection().get().is_some();
        assert!(rejected || read.is_ready());
        Forwarded { bytes, rejected, failed: matches!(read, Poll::Ready(Err(_))) }
    })
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

/// Reads requests as the standard has them; the last may be cut short, if nothing was rejected.
fn assert_requests(mut bytes: &[u8], rejected: bool) {
    while !bytes.is_empty() {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("heads are forwarded whole") + 4;
        let head = &bytes[..end];
        let lines: Vec<&[u8]> = split(&head[..end - 4]);
        assert!(lines.iter().all(|line| !line.contains(&b'\n') && !line.contains(&b'\r')));
        assert!(lines.iter().all(|line| !line.contains(&0)));
        let mut framing = Vec::new();
        for line in &lines[1..] {
            let colon = line.iter().position(|byte| *byte == b':').expect("a header has a colon");
            let name = &line[..colon];
            assert!(!name.is_empty() && !name.iter().any(|byte| b" \t".contains(byte)));
            let value = line[colon + 1..].trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit));
                framing.push(Some(str::from_utf8(value).unwrap().parse::<u64>().unwrap()));
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                assert!(value.eq_ignore_ascii_case(b"chunked"));
                assert!(lines[0].ends_with(b" HTTP/1.1"));
                framing.push(None);
            }
        }
        assert!(framing.len() <= 1, "the end of the body is said twice");
        bytes = &bytes[end..];
        let rest = match framing.pop() {
            None => Some(bytes),
            Some(Some(length)) => {
                usize::try_from(length).ok().and_then(|length| bytes.get(length..))
            }
            Some(None) => after_chunks(bytes),
        };
        let Some(rest) = rest else {
            assert!(!rejected, "a body that has not ended is no place for a head");
            return;
        };
        bytes = rest;
    }
}

fn split(head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

/// What comes after a chunked body; `None` if it is cut short.
fn after_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let end = memchr::memmem::find(bytes, b"\r\n")?;
        let mut parts = bytes[..end].split(|byte| *byte == b';');
        let line = str::from_utf8(parts.next()?).unwrap();
        // White space may stand before an extension (RFC 9112, section 7.1.1).
        let line = if parts.next().is_some() { line.trim_end_matches([' ', '\t']) } else { line };
        assert!(!line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line:?}");
        let size = usize::try_from(u64::from_str_radix(line, 16).unwrap()).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            break;
        }
        let data_end = bytes.get(size..)?;
        if data_end.len() < 2 {
            return None;
        }
        bytes = data_end.strip_prefix(b"\r\n").expect("data ends with CR LF");
    }
    loop {
        let end = memchr::memmem::find(bytes, b"\r\n")?;
        bytes = &bytes[end + 2..];
        if end == 0 {
            return Some(bytes);
        }
    }
}
