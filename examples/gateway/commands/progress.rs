//! How far a command has come, on standard error, and stopping it by Ctrl-C.

use std::{
    fmt,
    io::{self, IsTerminal},
    ops::ControlFlow,
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};
use tower_quota::store::sqlite::{self, OnProgress, ProgressStep};

use crate::{OUTPUT_TIMEOUT, background_writer::BackgroundWriter};

/// How long a command may take without a word.
const QUIET_PERIOD: Duration = Duration::from_secs(1);
/// How often the line on a terminal is drawn anew.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// How often there is a line where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// What a shell says of a process that SIGINT has ended.
const SIGINT_CODE: u8 = 130;
const SIGTERM_CODE: u8 = 143;
const SIGHUP_CODE: u8 = 129;

/// Shows how far a command has come, and knows whether it is to stop. Clones share it.
///
/// Work that this program does itself reports what it is doing, and ends when that fails:
///
/// ```ignore
/// for (row, done) in rows.zip(0..) {
///     progress.report("reading keys", Amount::Count { done, total: None })?;
/// ```
///
/// Work that the crate does takes it as its observer, and is undone when it is stopped. All keys go
/// into one call, as only that is done whole or not at all:
///
/// ```ignore
/// let imported = store.import_with_progress(keys, dry_run, by, progress.clone()).await?;
/// let imported = imported.ok_or_else(|| progress.stopped("nothing was imported"))?;
/// progress.finish();
/// ```
///
/// [`Stopped`] as a command's error becomes its last line and its exit code. On a terminal there is
/// one line that is drawn anew, elsewhere one every few seconds, and none of a command that is done
/// within a second.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Shared>);

struct Shared {
    stderr: BackgroundWriter,
    /// Whether there is anything to undo when it is stopped.
    changes_things: bool,
    is_terminal: bool,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    what: &'static str,
    amount: Amount,
    /// Exit code of the signal that stops it.
    stop: Option<u8>,
    /// Whether it is too late to stop, as files are being renamed or an import is being committed.
    is_publishing: bool,
    /// Whether nothing more is to be shown.
    is_finished: bool,
    /// Whether a line stands on the terminal that is not ended.
    is_drawn: bool,
}

/// How much of something is done.
#[derive(Clone, Copy)]
pub(crate) enum Amount {
    /// Nobody knows.
    Unknown,
    Bytes {
        done: u64,
        total: Option<u64>,
    },
    Count {
        done: u64,
        total: Option<u64>,
    },
}

/// A command was stopped by a signal.
#[derive(Debug)]
pub(crate) struct Stopped {
    code: u8,
    /// What state things are in.
    state: String,
}

impl Stopped {
    pub(crate) fn exit_code(&self) -> process::ExitCode {
        self.code.into()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped: {}", self.state)
    }
}

impl std::error::Error for Stopped {}

impl Progress {
    /// Begins to show what is reported, and to catch SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn start(stderr: &BackgroundWriter) -> io::Result<Self> {
        Self::start_of(stderr, true)
    }

    /// The same for a command that changes nothing, which ends as soon as there is a signal.
    pub(crate) fn start_read_only(stderr: &BackgroundWriter) -> io::Result<Self> {
        Self::start_of(stderr, false)
    }

    fn start_of(stderr: &BackgroundWriter, changes_things: bool) -> io::Result<Self> {
        let progress = Self(Arc::new(Shared {
            stderr: stderr.clone(),
            changes_things,
            is_terminal: io::stderr().is_terminal(),
            begun: Instant::now(),
            state: Mutex::new(State {
                what: "starting",
                amount: Amount::Unknown,
                stop: None,
                is_publishing: false,
                is_finished: false,
                is_drawn: false,
            }),
        }));
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, begun) = mpsc::channel();
        let shared = progress.0.clone();
        let run = move || runtime.block_on(shared.run(&ready));
        thread::Builder::new().name("progress".to_owned()).spawn(run)?;
        begun.recv().map_err(io::Error::other)??;
        Ok(progress)
    }

    /// Reports what is being done.
    ///
    /// # Errors
    ///
    /// It is to be stopped, and nothing was changed so far.
    pub(crate) fn report(&self, what: &'static str, amount: Amount) -> Result<(), Stopped> {
        let mut state = self.0.lock();
        if state.stop.is_some() {
            drop(state);
            return Err(self.stopped("nothing was changed"));
        }
        (state.what, state.amount) = (what, amount);
        Ok(())
    }

    /// Prints something else while the progress is shown.
    pub(crate) fn print(&self, print: impl FnOnce()) {
        let mut state = self.0.lock();
        if state.is_drawn {
            self.0.erase(&mut state);
            self.0.stderr.flush(OUTPUT_TIMEOUT);
        }
        print();
    }

    /// Whether it is to be stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.lock().stop.is_some()
    }

    /// The end of a command that was stopped, with the state that things are in.
    pub(crate) fn stopped(&self, state: impl Into<String>) -> Stopped {
        self.finish();
        let code = self.0.lock().stop.unwrap_or(SIGINT_CODE);
        Stopped { code, state: state.into() }
    }

    /// Shows nothing more. From now on a signal ends the process.
    pub(crate) fn finish(&self) {
        let mut state = self.0.lock();
        state.is_finished = true;
        self.0.erase(&mut state);
    }
}

impl OnProgress for Progress {
    fn on_progress(&mut self, progress: &sqlite::Progress) -> ControlFlow<()> {
        let sqlite::Progress { step, done, total, .. } = *progress;
        let (what, amount) = match step {
            ProgressStep::Import => ("importing keys", Amount::Count { done, total }),
            ProgressStep::Copy => ("copying", Amount::Bytes { done, total }),
            ProgressStep::Checkpoint => ("applying the journal", Amount::Unknown),
            ProgressStep::Check => ("checking the copy", Amount::Unknown),
            ProgressStep::Sync => ("writing to the disk", Amount::Unknown),
            ProgressStep::Publish => ("finishing", Amount::Unknown),
            _ => ("working", Amount::Unknown),
        };
        let mut state = self.0.lock();
        if state.stop.is_some() {
            return ControlFlow::Break(());
        }
        (state.what, state.amount) = (what, amount);
        state.is_publishing = step == ProgressStep::Publish;
        ControlFlow::Continue(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws and waits for signals until the process ends.
    async fn run(&self, ready: &mpsc::Sender<io::Result<()>>) {
        let caught = || {
            let of = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = of.map(signal);
            Ok((interrupt?, terminate?, hangup?))
        };
        let (mut interrupt, mut terminate, mut hangup) = match caught() {
            Ok(caught) => caught,
            Err(error) => return ready.send(Err(error)).unwrap_or_default(),
        };
        ready.send(Ok(())).unwrap_or_default();
        let mut draw: Interval =
            interval(if self.is_terminal { DRAW_INTERVAL } else { LINE_INTERVAL });
        draw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => self.signalled(SIGINT_CODE),
                _ = terminate.recv() => self.signalled(SIGTERM_CODE),
                _ = hangup.recv() => self.signalled(SIGHUP_CODE),
                _ = draw.tick() => self.draw(),
            }
        }
    }

    /// The first signal stops the work, another one ends the process. The lock is held meanwhile, so
    /// that no work goes on to rename files.
    fn signalled(&self, code: u8) {
        let mut state = self.lock();
        let is_over = state.is_finished;
        self.erase(&mut state);
        if state.is_publishing && !is_over {
            self.stderr.push(b"it is too late to stop: all is done but for its last step\n");
        } else if state.stop.is_some() || is_over || !self.changes_things {
            if !is_over {
                let what = if self.changes_things {
                    "what was not complete is undone"
                } else {
                    "nothing was changed"
                };
                self.stderr.push(format!("stopped: {what}\n").as_bytes());
            }
            self.stderr.flush(OUTPUT_TIMEOUT);
            process::exit(code.into());
        } else {
            state.stop = Some(code);
            if self.is_terminal {
                self.stderr.push(b"stopping; Ctrl-C again ends at once\n");
            }
        }
    }

    fn draw(&self) {
        let mut state = self.lock();
        let elapsed = self.begun.elapsed();
        if elapsed < QUIET_PERIOD || state.is_finished || state.stop.is_some() {
            return;
        }
        let line = line(state.what, state.amount, elapsed);
        if self.is_terminal {
            self.stderr.push(format!("\r{line}\x1b[K").as_bytes());
            state.is_drawn = true;
        } else {
            self.stderr.push(format!("{line}\n").as_bytes());
        }
    }

    fn erase(&self, state: &mut State) {
        if std::mem::take(&mut state.is_drawn) {
            self.stderr.push(b"\r\x1b[K");
        }
    }
}

fn line(what: &str, amount: Amount, elapsed: Duration) -> String {
    let part = match amount {
        Amount::Unknown => String::new(),
        Amount::Bytes { done, total } => part(done, total, size),
        Amount::Count { done, total } => part(done, total, |count| count.to_string()),
    };
    let seconds = elapsed.as_secs();
    format!("{what}{part}, {}:{:02}", seconds / 60, seconds % 60)
}

fn part(done: u64, total: Option<u64>, shown: impl Fn(u64) -> String) -> String {
    match total {
        None => format!(": {}", shown(done)),
        Some(total) => {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!(": {percent} %, {} of {}", shown(done), shown(total))
        }
    }
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut shown = "B";
    for unit in UNITS {
        if size < 1024.0 {
            break;
        }
        (size, shown) = (size / 1024.0, unit);
    }
    if shown == "B" { format!("{bytes} B") } else { format!("{size:.1} {shown}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_done_where_that_is_known() {
        let line = |amount| line("copying", amount, Duration::from_secs(65));
        assert_eq!(line(Amount::Unknown), "copying, 1:05");
        let copied = Amount::Bytes { done: 3 << 19, total: Some(3 << 20) };
        assert_eq!(line(copied), "copying: 50 %, 1.5 MiB of 3.0 MiB, 1:05");
        assert_eq!(line(Amount::Count { done: 7, total: None }), "copying: 7, 1:05");
        assert_eq!(line(Amount::Count { done: 0, total: Some(0) }), "copying: 100 %, 0 of 0, 1:05");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
