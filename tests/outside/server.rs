//! A program of 60 lines that serves its own service by `server::serve` holds against slow clients, and ends in order.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Heads have 10 seconds, bodies 2, idle connections 3. Much longer than any of them.
const TOO_LONG: Duration = Duration::from_secs(60);
/// Between two bytes of a slow client.
const PAUSE: Duration = Duration::from_millis(100);

/// The program as a process, killed at the end.
struct Program {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Program {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = process.stdin.take().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut address = String::new();
        stdout.read_line(&mut address).unwrap();
        Self { process, stdin, stdout, address: address.trim().to_owned() }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(TOO_LONG)).unwrap();
        socket
    }

    /// Takes the next step of the shutdown.
    fn step(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    /// Sends a request on a connection of its own, and returns the response.
    fn send(&self, request: &str) -> String {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        response
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

/// Sends `begin`, then `pieces` slowly, and returns what came until the server has closed the connection.
fn until_closed(mut socket: TcpStream, begin: &[u8], piece: &[u8]) -> Vec<u8> {
    let began = Instant::now();
    let mut writer = socket.try_clone().unwrap();
    writer.write_all(begin).unwrap();
    let piece = piece.to_owned();
    let trickle = thread::spawn(move || {
        while !piece.is_empty() && writer.write_all(&piece).is_ok() && began.elapsed() < TOO_LONG {
            thread::sleep(PAUSE);
        }
    });
    let mut received = Vec::new();
    // A reset is an end, too.
    let _ = socket.read_to_end(&mut received);
    let _ = socket.shutdown(std::net::Shutdown::Both);
    assert!(began.elapsed() < TOO_LONG, "not closed: {}", received.escape_ascii());
    trickle.join().unwrap();
    received
}

#[test]
fn the_program_has_60_lines() {
    assert!(include_str!("apps/server.rs").lines().count() <= 60);
}

#[test]
fn slow_clients_are_cut_off_while_others_are_served() {
    let program = Program::start();
    let headers = b"\0\0\xff\x01\x04\0\0\0\x01\x82";
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], headers].concat();
    let slow: [(&[u8], &[u8]); 5] = [
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: ", b"y"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (&preface, b"\0"),
        (b"PRI * HTTP/2.0\r\n", b""),
    ];
    thread::scope(|scope| {
        let slow = slow.map(|(begin, piece)| {
            let socket = program.connect();
            scope.spawn(move || until_closed(socket, begin, piece))
        });
        // One that reads nothing of its response.
        let mut reader = program.connect();
        reader.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        while slow.iter().any(|client| !client.is_finished()) {
            let response = program.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            assert!(response.ends_with("127.0.0.1"), "{response}");
        }
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        assert!(
            rest.len() < 64 << 20,
            "the whole response was kept for a client that did not read"
        );
        // What a handler says of a body that does not come.
        for (client, expected) in slow.into_iter().zip(["", "stalled", "stalled", "", ""]) {
            let response = client.join().unwrap();
            let response = String::from_utf8_lossy(&response);
            assert!(response.is_empty() || response.contains(expected), "{response}");
        }
    });
}

#[test]
fn an_idle_connection_is_closed_and_an_ambiguous_head_rejected() {
    let program = Program::start();
    let mut idle = program.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut response = String::new();
    idle.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let twice = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx";
    let rejected = program.send(twice);
    assert!(
        rejected.starts_with("HTTP/1.1 400") && rejected.contains("connection: close"),
        "{rejected}"
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(9000));
    assert!(program.send(&long).starts_with("HTTP/1.1 414"));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert!(program.send(&many).starts_with("HTTP/1.1 431"));
}

#[test]
fn a_shutdown_takes_its_steps_and_waits_for_requests_in_flight() {
    let mut program = Program::start();
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    program.step();
    // Draining: still accepted, and each response is the last one of its connection.
    let mut response = program.send(request);
    while !response.contains("connection: close") {
        response = program.send(request);
    }
    let mut in_flight = program.connect();
    in_flight.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n1").unwrap();
    // The server has it once another connection, accepted later, is served.
    program.send(request);
    program.step();
    while TcpStream::connect(&program.address).is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    in_flight.write_all(b"2").unwrap();
    let mut response = String::new();
    in_flight.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("12"), "{response}");
    program.step();
    let mut line = String::new();
    program.stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ended\n");
    assert!(program.process.wait().unwrap().success());
}
