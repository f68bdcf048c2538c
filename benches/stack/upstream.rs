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
    body: String,
    /// The chunks of a stream: the first with the head before it, the last with the last chunk after it.
    frames: Vec<Vec<u8>>,
}

impl Responses {
    fn new() -> Self {
        let body = responses::json();
        let json = json_head(body.len(), "") + &body;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |event: String| format!("{:x}\r\n{event}\r\n", event.len());
        let mut frames: Vec<String> = responses::events().into_iter().map(chunk).collect();
        frames[0].insert_str(0, head);
        let last = frames.len() - 1;
        frames[last].push_str("0\r\n\r\n");
        let frames = frames.into_iter().map(String::into_bytes).collect();
        Self { json: json.into_bytes(), body, frames }
    }
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
            Some(Kind::Json) => socket.write_all(&responses.json).await?,
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
            Some(Kind::Slow) => respond_late(socket, received, &responses.body).await?,
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
