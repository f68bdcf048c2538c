//! Resident memory at rest and of idle streams.

use std::{fs, io, net::SocketAddr, thread::sleep, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tower::BoxError;

use crate::{
    options::{Runtime, Setup},
    process::Server,
    proxy,
    responses::Kind,
    start_upstream,
    subject::{Conditions, Subject},
};

/// Time in which a process gives memory back, or takes what it needs in the background.
const SETTLING_TIME: Duration = Duration::from_secs(2);
/// Number of streams that are opened at once.
const OPENING: usize = 64;

/// Prints a line for every variant.
pub(crate) fn measure(setup: &Setup, streams: usize) -> Result<(), BoxError> {
    raise_limit_of_files()?;
    let upstream = start_upstream()?;
    let conditions = Conditions::new(setup, 0, upstream.address);
    println!("\n### Resident memory, {streams} idle streams\n");
    println!(
        "| variant | at rest, MB | with the streams, MB | KB a stream | after them, MB |\n\
         |---|--:|--:|--:|--:|"
    );
    for subject in Subject::all(setup, conditions)? {
        let server = subject.start()?;
        let megabytes = |kilobytes: f64| kilobytes / 1024.0;
        let at_rest = resident(&server)?;
        let open = Runtime::Current.build()?;
        let held = open.block_on(open_streams(server.address, streams, conditions.warm_keys))?;
        let with_streams = resident(&server)?;
        drop((held, open));
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            subject.name,
            megabytes(at_rest),
            megabytes(with_streams),
            (with_streams - at_rest) / streams as f64,
            megabytes(resident(&server)?),
        );
    }
    Ok(())
}

/// Allows this process, and those that it starts, two sockets for each stream.
fn raise_limit_of_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Returns the resident kilobytes of a server once they are steady.
fn resident(server: &Server) -> io::Result<f64> {
    sleep(SETTLING_TIME);
    let mut sum = 0.0;
    for pid in &server.pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        sum += number.and_then(|number| number.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(sum)
}

/// Opens streams, and reads the first event of each.
async fn open_streams(to: SocketAddr, count: usize, keys: usize) -> io::Result<Vec<TcpStream>> {
    let (mut opening, mut open) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        if opening.len() == OPENING
            && let Some(stream) = opening.join_next().await
        {
            open.push(stream??);
        }
        opening.spawn(open_stream(to, Kind::Idle.request(&proxy::key(number % keys))));
    }
    while let Some(stream) = opening.join_next().await {
        open.push(stream??);
    }
    Ok(open)
}

async fn open_stream(to: SocketAddr, request: Vec<u8>) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(to).await?;
    socket.write_all(&request).await?;
    let mut response = Vec::new();
    while !response.windows(8).any(|window| window == b"\ndata: {") {
        if socket.read_buf(&mut response).await? == 0 {
            let response = String::from_utf8_lossy(&response).into_owned();
            return Err(io::Error::other(format!("no stream but: {response}")));
        }
    }
    Ok(socket)
}
