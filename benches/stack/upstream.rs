//! The role `upstream`: responds at minimal cost.

use std::{io, sync::Arc, time::Instant};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    responses::{self, Kind},
    wire::{Connection, DELAY_HEADER},
};

/// Prepared responses.
struct Responses {
    json: Vec<u8>,
    large: Vec<u8>,
    /// The chunks of a stream of 20 events: the first with the head before it, the last with the last chunk
    /// after it.
    frames: Vec<Vec<u8>>,
    burst: Vec<u8>,
    /// The first event of a stream without end.
    idle: Vec<u8>,
}

impl Responses {
    fn new() -> Self {
        let json = |kind: Kind| {
            let body = kind.json();
            (json_head(body.len(), "") + &body).into_bytes()
        };
        let mut frames = frames(Kind::Stream);
        let mut burst = self::frames(Kind::Burst).concat();
        for end in [frames.last_mut(), Some(&mut burst)].into_iter().flatten() {
            end.extend(b"0\r\n\r\n");
        }
        let idle = self::frames(Kind::Idle).concat();
        Self { json: json(Kind::Json), large: json(Kind::Large), frames, burst, idle }
    }
}

/// Returns the chunks of a stream, the first with the head before it.
fn frames(kind: Kind) -> Vec<Vec<u8>> {
    let mut head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    let events = responses::events(kind.events().unwrap_or_default()).into_iter();
    let frames = events.map(|event| {
        let head = std::mem::take(&mut head);
        format!("{head}{:x}\r\n{event}\r\n", event.len()).into_bytes()
    });
    frames.collect()
}

fn json_head(length: usize, more: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    )
}

#[expect(clippy::disallowed_methods, reason = "one task per connection")]
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    let responses = Arc::new(Responses::new());
    loop {
        let (socket, _) = listener.accept().await?;
        let connection = Connection::new(socket)?;
        let responses = responses.clone();
        // Errors are ignored: connections of a proxy that is killed break.
        tokio::spawn(async move { respond(connection, &responses).await.ok() });
    }
}

async fn respond(mut connection: Connection, responses: &Responses) -> io::Result<()> {
    while let Some(request) = connection.read().await? {
        let received = Instant::now();
        let socket = &mut connection.socket;
        match Kind::of_request(&request.first_line) {
            Some(Kind::Json | Kind::Prompt | Kind::First) => {
                socket.write_all(&responses.json).await?
            }
            Some(Kind::Large) => socket.write_all(&responses.large).await?,
            Some(Kind::Burst) => socket.write_all(&responses.burst).await?,
            Some(Kind::Idle) => socket.write_all(&responses.idle).await?,
            Some(Kind::Stream) => {
                for frame in &responses.frames {
                    socket.write_all(frame).await?;
                }
            }
            Some(Kind::Paced) => {
                for frame in &responses.frames {
                    sleep(Kind::PACE).await;
                    socket.write_all(frame).await?;
                }
            }
            Some(Kind::Slow) => respond_late(socket, received, &Kind::Slow.json()).await?,
            None => {
                socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?
            }
        }
    }
    Ok(())
}

/// Sends the actual delay in a header, as timers are too coarse to measure microseconds after it.
async fn respond_late(socket: &mut TcpStream, received: Instant, body: &str) -> io::Result<()> {
    sleep(Kind::DELAY).await;
    let delay = format!("{DELAY_HEADER}: {}\r\n", received.elapsed().as_nanos());
    let response = json_head(body.len(), &delay) + body;
    socket.write_all(response.as_bytes()).await
}
