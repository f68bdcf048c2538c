//! The role `upstream`: answers at next to no cost.

use std::{io, sync::Arc, time::Instant};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    answers::{self, Kind},
    wire::{Connection, THOUGHT_HEADER},
};

/// Answers, ready to be sent.
struct Answers {
    json: Vec<u8>,
    body: String,
    /// The first with the head before it, the last with the end of the body behind it.
    frames: Vec<Vec<u8>>,
}

impl Answers {
    fn new() -> Self {
        let body = answers::json();
        let json = json_head(body.len(), "") + &body;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |event: String| format!("{:x}\r\n{event}\r\n", event.len());
        let mut frames: Vec<String> = answers::events().into_iter().map(chunk).collect();
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
    let answers = Arc::new(Answers::new());
    loop {
        let (socket, _) = listener.accept().await?;
        let connection = Connection::new(socket)?;
        let answers = answers.clone();
        // A proxy that is killed breaks its connections: no concern of this one.
        tokio::spawn(async move { answer(connection, &answers).await.ok() });
    }
}

async fn answer(mut connection: Connection, answers: &Answers) -> io::Result<()> {
    while let Some(request) = connection.read().await? {
        let asked = Instant::now();
        let socket = &mut connection.socket;
        match Kind::asked_by(&request.first_line) {
            Some(Kind::Json) => socket.write_all(&answers.json).await?,
            Some(Kind::Stream) => {
                for frame in &answers.frames {
                    socket.write_all(frame).await?;
                }
            }
            Some(Kind::Paced) => {
                for frame in &answers.frames {
                    sleep(Kind::PACE).await;
                    socket.write_all(frame).await?;
                }
            }
            Some(Kind::Slow) => think(socket, asked, &answers.body).await?,
            None => {
                socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?
            }
        }
    }
    Ok(())
}

/// Tells how long the thought really took: timers are too coarse to measure microseconds behind.
async fn think(socket: &mut TcpStream, asked: Instant, body: &str) -> io::Result<()> {
    sleep(Kind::THOUGHT).await;
    let thought = format!("{THOUGHT_HEADER}: {}\r\n", asked.elapsed().as_nanos());
    let answer = json_head(body.len(), &thought) + body;
    socket.write_all(answer.as_bytes()).await
}
