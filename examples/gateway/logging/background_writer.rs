//! Writes standard output and error on threads of their own, so that no request waits for a stalled
//! reader or fails because the log cannot be written.

use std::{
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Maximum number of bytes that wait to be written. Lines beyond it are dropped and counted.
const MAX_PENDING_BYTES: usize = 1 << 20;
/// Time between attempts to write to a stream that is in non-blocking mode and full.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Time that a line waits for others, so that a busy process writes many at once.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// Number of pending bytes that are written before that.
const BATCH_BYTES: usize = 64 << 10;

/// Queues whole lines for a stream, and never blocks or fails. Clones share the stream.
#[derive(Clone)]
pub(crate) struct BackgroundWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Whether the thread is writing lines that are no longer in `pending`, or waits for more to write with them.
    is_writing: bool,
    /// Whether the pending lines must be written at once.
    is_urgent: bool,
    dropped_lines: u64,
}

impl BackgroundWriter {
    /// Starts the thread that writes to `stream`.
    ///
    /// # Errors
    ///
    /// Fails if no thread or file descriptor is left.
    pub(crate) fn start(name: &'static str, stream: &impl AsFd) -> io::Result<Self> {
        // A descriptor of its own, so that a blocking write holds none of the standard library's locks.
        let stream = File::from(stream.as_fd().try_clone_to_owned()?);
        let shared = Arc::new(Shared::default());
        let writer = Self(shared.clone());
        thread::Builder::new().name(name.to_owned()).spawn(move || shared.run(name, stream))?;
        Ok(writer)
    }

    /// Queues these lines, the last of which ends with a line feed, all or none.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut state = self.0.lock();
        if state.pending.len() + lines.len() > MAX_PENDING_BYTES {
            state.dropped_lines += count(lines);
            return;
        }
        let was_idle = state.pending.is_empty() && !state.is_writing;
        let had_space = state.pending.len() < BATCH_BYTES;
        state.pending.extend_from_slice(lines);
        let is_full = had_space && state.pending.len() >= BATCH_BYTES;
        drop(state);
        if was_idle || is_full {
            self.0.changed.notify_all();
        }
    }

    /// Makes the queued lines wait for no others.
    pub(crate) fn hurry(&self) {
        self.0.lock().is_urgent = true;
        self.0.changed.notify_all();
    }

    /// Waits until all queued lines are written, but no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        self.hurry();
        let is_busy = |state: &mut State| state.is_writing || !state.pending.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.lock(), timeout, is_busy));
    }

    /// Returns the number of lines dropped so far.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.0.lock().dropped_lines
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, name: &'static str, mut stream: File) {
        let mut lines = Vec::new();
        let mut is_mid_line = false;
        let mut reported = 0;
        loop {
            self.take(&mut lines);
            if is_mid_line {
                lines.insert(0, b'\n');
            }
            let (taken, lost) = lines.split_at(write(&mut stream, &lines));
            // A write without losses may end mid-line on purpose, as progress lines do.
            is_mid_line =
                !lost.is_empty() && taken.last().map_or(is_mid_line, |last| *last != b'\n');
            let mut state = self.lock();
            state.dropped_lines += count(lost);
            if lost.is_empty() && state.pending.is_empty() && state.dropped_lines > reported {
                let dropped =
                    state.dropped_lines - mem::replace(&mut reported, state.dropped_lines);
                drop(state);
                tracing::warn!(
                    stream = name,
                    dropped,
                    "writing log lines failed: some were dropped"
                );
            }
        }
    }

    /// Waits for lines and takes all of them.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        let nothing = |state: &mut State| state.pending.is_empty();
        state = self.changed.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        let is_early = |state: &mut State| !state.is_urgent && state.pending.len() < BATCH_BYTES;
        let waited = self.changed.wait_timeout_while(state, BATCH_TIME, is_early);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_urgent = false;
        mem::swap(&mut state.pending, lines);
    }
}

/// Writes until the stream fails, and returns how many bytes it took.
fn write(stream: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(taken) => written += taken,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(RETRY_INTERVAL)
            }
            Err(_) => break,
        }
    }
    written
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    const LINE: [u8; 100] = {
        let mut line = [b'x'; 100];
        line[99] = b'\n';
        line
    };

    #[test]
    fn a_stalled_reader_blocks_no_writer_and_dropped_lines_are_counted() {
        let (mut reader, stream) = pipe().unwrap();
        let writer = BackgroundWriter::start("test", &stream).unwrap();
        drop(stream);
        let lines = 2 * MAX_PENDING_BYTES / LINE.len();
        for _ in 0..lines {
            writer.push(&LINE);
        }
        let dropped = writer.dropped_lines() as usize;
        assert!(dropped > 0 && dropped < lines, "{dropped} of {lines}");
        writer.flush(Duration::from_millis(1));
        let mut read = vec![0; (lines - dropped) * LINE.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read.chunks(LINE.len()).all(|line| line == LINE));
        assert_eq!(writer.dropped_lines() as usize, dropped);
    }

    #[test]
    fn lines_for_a_closed_or_full_stream_are_dropped_and_counted() {
        let (reader, closed) = pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for stream in [closed.as_fd(), full.as_fd()] {
            let writer = BackgroundWriter::start("test", &stream).unwrap();
            for _ in 0..3 {
                writer.push(&LINE);
            }
            writer.flush(Duration::from_secs(20));
            assert_eq!(writer.dropped_lines(), 3);
        }
    }
}
