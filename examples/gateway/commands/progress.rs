//! Progress of a command on standard error, and stopping it with Ctrl-C.

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

use crate::{OUTPUT_TIMEOUT, logging::BackgroundWriter};

/// Time before the first line of progress.
const QUIET_PERIOD: Duration = Duration::from_secs(1);
/// Interval at which the line on a terminal is redrawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of lines if standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// Exit code of a process that was ended by SIGINT, as shells report it.
const SIGINT_CODE: u8 = 130;
/// Exit code of a process that was ended by SIGTERM.
const SIGTERM_CODE: u8 = 143;
/// Exit code of a process that was ended by SIGHUP.
const SIGHUP_CODE: u8 = 129;

/// Shows the progress of a command, and stops it on a signal. Clones share it.
///
/// Work of this program reports its steps, and returns when a report fails:
///
/// ```ignore
/// for (row, done) in rows.zip(0..) {
///     progress.report("reading keys", Amount::Count { done, total: None })?;
/// ```
///
/// Work of the crate takes it as an observer, and is rolled back when it is stopped. All keys go into one
/// call, which is atomic:
///
/// ```ignore
/// let imported = store.import_with_progress(keys, dry_run, by, progress.clone()).await?;
/// let imported = imported.ok_or_else(|| progress.stopped("nothing was imported"))?;
/// progress.finish();
/// ```
///
/// [`Stopped`] as a command's error becomes its last line and its exit code. On a terminal one line is
/// redrawn, elsewhere a line is printed every few seconds. A command that ends within a second prints
/// none.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Shared>);

struct Shared {
    stderr: BackgroundWriter,
    /// Whether the command changes anything, so that stopping it requires a rollback.
    changes_things: bool,
    is_terminal: bool,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    step: &'static str,
    amount: Amount,
    /// Exit code of the signal that stops the command.
    stop: Option<u8>,
    /// Whether it is too late to stop, as files are being renamed or an import is being committed.
    is_publishing: bool,
    /// Whether nothing more may be printed.
    is_finished: bool,
    /// Exit code of the completed work.
    exit_code: Option<u8>,
    /// Whether there is an unterminated line on the terminal.
    is_drawn: bool,
}

/// How much of a step is done.
#[derive(Clone, Copy)]
pub(crate) enum Amount {
    Unknown,
    Bytes { done: u64, total: Option<u64> },
    Count { done: u64, total: Option<u64> },
}

/// The error of a command that was stopped by a signal.
#[derive(Debug)]
pub(crate) struct Stopped {
    code: u8,
    /// The state in which the command leaves things.
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
    /// Starts showing progress and catching SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn start(stderr: &BackgroundWriter) -> io::Result<Self> {
        Self::start_inner(stderr, true)
    }

    /// As [`start`](Self::start), for a command that changes nothing. It exits at the first signal.
    pub(crate) fn start_read_only(stderr: &BackgroundWriter) -> io::Result<Self> {
        Self::start_inner(stderr, false)
    }

    fn start_inner(stderr: &BackgroundWriter, changes_things: bool) -> io::Result<Self> {
        let progress = Self(Arc::new(Shared {
            stderr: stderr.clone(),
            changes_things,
            is_terminal: io::stderr().is_terminal(),
            start: Instant::now(),
            state: Mutex::new(State {
                step: "starting",
                amount: Amount::Unknown,
                stop: None,
                is_publishing: false,
                is_finished: false,
                exit_code: None,
                is_drawn: false,
            }),
        }));
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, is_ready) = mpsc::channel();
        let shared = progress.0.clone();
        let run = move || runtime.block_on(shared.run(&ready));
        thread::Builder::new().name("progress".to_owned()).spawn(run)?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(progress)
    }

    /// Sets the current step.
    ///
    /// # Errors
    ///
    /// Fails if the command must stop. Call it only while nothing is changed yet.
    pub(crate) fn report(&self, step: &'static str, amount: Amount) -> Result<(), Stopped> {
        let mut state = self.0.lock();
        if state.stop.is_some() {
            drop(state);
            return Err(self.stopped("nothing was changed"));
        }
        (state.step, state.amount) = (step, amount);
        Ok(())
    }

    /// Sets the last step, which cannot be stopped.
    ///
    /// # Errors
    ///
    /// As [`report`](Self::report).
    pub(crate) fn publish(&self, step: &'static str) -> Result<(), Stopped> {
        self.report(step, Amount::Unknown)?;
        self.0.lock().is_publishing = true;
        Ok(())
    }

    /// Runs `print` with the line of progress erased.
    pub(crate) fn print(&self, print: impl FnOnce()) {
        let mut state = self.0.lock();
        if state.is_drawn {
            self.0.erase(&mut state);
            self.0.stderr.flush(OUTPUT_TIMEOUT);
        }
        print();
    }

    /// Returns whether the command must stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.lock().stop.is_some()
    }

    /// Finishes, and returns the error of the stopped command. `state` says how it leaves things.
    pub(crate) fn stopped(&self, state: impl Into<String>) -> Stopped {
        self.finish();
        let code = self.0.lock().stop.unwrap_or(SIGINT_CODE);
        Stopped { code, state: state.into() }
    }

    /// Prints nothing more. From now on a signal ends the process.
    pub(crate) fn finish(&self) {
        let mut state = self.0.lock();
        state.is_finished = true;
        self.0.erase(&mut state);
    }

    /// Finishes a command whose work is done. From now on a signal ends the process with this exit
    /// code, as the work is not undone.
    pub(crate) fn complete(&self, code: u8) {
        self.0.lock().exit_code = Some(code);
        self.finish();
    }
}

impl OnProgress for Progress {
    fn on_progress(&mut self, progress: &sqlite::Progress) -> ControlFlow<()> {
        let sqlite::Progress { step, done, total, .. } = *progress;
        let (step_name, amount) = match step {
            ProgressStep::Import => ("importing keys", Amount::Count { done, total }),
            ProgressStep::Copy => ("copying", Amount::Bytes { done, total }),
            ProgressStep::Checkpoint => ("applying the journal", Amount::Unknown),
            ProgressStep::Check => ("checking the copy", Amount::Unknown),
            ProgressStep::Move => ("moving rows", Amount::Count { done, total }),
            ProgressStep::Compare => ("comparing", Amount::Unknown),
            ProgressStep::Sync => ("writing to the disk", Amount::Unknown),
            ProgressStep::Publish => ("finishing", Amount::Unknown),
            _ => ("working", Amount::Unknown),
        };
        let mut state = self.0.lock();
        if state.stop.is_some() {
            return ControlFlow::Break(());
        }
        (state.step, state.amount) = (step_name, amount);
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
        let signals = || {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = kinds.map(signal);
            Ok((interrupt?, terminate?, hangup?))
        };
        let (mut interrupt, mut terminate, mut hangup) = match signals() {
            Ok(signals) => signals,
            Err(error) => return ready.send(Err(error)).unwrap_or_default(),
        };
        ready.send(Ok(())).unwrap_or_default();
        let mut draw: Interval =
            interval(if self.is_terminal { DRAW_INTERVAL } else { LINE_INTERVAL });
        draw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => self.on_signal(SIGINT_CODE),
                _ = terminate.recv() => self.on_signal(SIGTERM_CODE),
                _ = hangup.recv() => self.on_signal(SIGHUP_CODE),
                _ = draw.tick() => self.draw(),
            }
        }
    }

    /// Stops the work at the first signal, and ends the process at the second. The lock is held meanwhile,
    /// so that the work cannot go on to rename files.
    fn on_signal(&self, code: u8) {
        let mut state = self.lock();
        let is_finished = state.is_finished;
        self.erase(&mut state);
        if state.is_publishing && !is_finished {
            self.stderr.push(b"it is too late to stop: only the last step is left\n");
        } else if state.stop.is_some() || is_finished || !self.changes_things {
            if !is_finished {
                let outcome = if self.changes_things {
                    "what was not complete is undone"
                } else {
                    "nothing was changed"
                };
                self.stderr.push(format!("stopped: {outcome}\n").as_bytes());
            }
            self.stderr.flush(OUTPUT_TIMEOUT);
            process::exit(state.exit_code.unwrap_or(code).into());
        } else {
            state.stop = Some(code);
            if self.is_terminal {
                self.stderr.push(b"stopping; Ctrl-C again ends at once\n");
            }
        }
    }

    fn draw(&self) {
        let mut state = self.lock();
        let elapsed = self.start.elapsed();
        if elapsed < QUIET_PERIOD || state.is_finished || state.stop.is_some() {
            return;
        }
        let line = line(state.step, state.amount, elapsed);
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

fn line(step: &str, amount: Amount, elapsed: Duration) -> String {
    let part = match amount {
        Amount::Unknown => String::new(),
        Amount::Bytes { done, total } => part(done, total, size),
        Amount::Count { done, total } => part(done, total, |count| count.to_string()),
    };
    let seconds = elapsed.as_secs();
    format!("{step}{part}, {}:{:02}", seconds / 60, seconds % 60)
}

fn part(done: u64, total: Option<u64>, format: impl Fn(u64) -> String) -> String {
    match total {
        None => format!(": {}", format(done)),
        Some(total) => {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!(": {percent} %, {} of {}", format(done), format(total))
        }
    }
}

/// Formats a size with a binary unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_amount_if_it_is_known() {
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
