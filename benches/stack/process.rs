//! Starts and ends processes.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tower::BoxError;

use crate::cpu;

/// A process that is ended on drop.
pub(crate) struct Role {
    child: Child,
}

impl Role {
    /// Starts a role of a build of this program, which ends when its stdin is closed.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        role: impl IntoIterator<Item = S>,
    ) -> io::Result<(Self, ChildStdin, BufReader<ChildStdout>)> {
        Self::piped(Command::new(program).args(role))
    }

    fn piped(command: &mut Command) -> io::Result<(Self, ChildStdin, BufReader<ChildStdout>)> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok((Self { child }, stdin, BufReader::new(stdout)))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn end(&mut self) {
        // The pid of a reaped process may belong to another one.
        if let Ok(None) = self.child.try_wait() {
            // SIGTERM, so that nginx ends its workers.
            kill(self.pid(), Signal::SIGTERM).ok();
            self.child.wait().ok();
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.child.id())
    }
}

/// A process that listens.
pub(crate) struct Server {
    role: Role,
    stdin: Option<ChildStdin>,
    /// The process and, for nginx, its workers.
    pub(crate) pids: Vec<Pid>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a role of a build of this program, which prints its address on stdout.
    pub(crate) fn start(command: &mut Command) -> Result<Self, BoxError> {
        let (role, stdin, mut stdout) = Role::piped(command)?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.split_whitespace().last().unwrap_or_default();
        let address = address
            .trim_start_matches("http://")
            .parse()
            .map_err(|_| format!("{command:?} printed no address: {line}"))?;
        Ok(Self { pids: vec![role.pid()], role, stdin: Some(stdin), address })
    }

    /// Starts a gateway, which announces its URL on stdout and ends by SIGTERM.
    pub(crate) fn start_gateway(command: &mut Command) -> Result<Self, BoxError> {
        Ok(Self { stdin: None, ..Self::start(command)? })
    }

    /// Starts another program, and waits until it listens on `address`.
    pub(crate) fn foreign(command: &Command, address: SocketAddr) -> Result<Self, BoxError> {
        let mut command = ending_with_us(command);
        let role = Role { child: command.stdin(Stdio::null()).spawn()? };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{command:?} does not listen").into());
            }
            sleep(Duration::from_millis(10));
        }
        // nginx has started its workers by now.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", role.pid()))?;
        let workers = children.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>()?;
        let pids = std::iter::once(role.pid()).chain(workers.into_iter().map(Pid::from_raw));
        Ok(Self { pids: pids.collect(), role, stdin: None, address })
    }

    /// Returns the CPU time used so far.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        Ok(self.pids.iter().map(|&pid| cpu::of_process(pid)).sum::<Result<_, _>>()?)
    }

    /// Ends the process with SIGTERM, as dropping it does.
    pub(crate) fn end(&mut self) {
        self.role.end();
    }

    /// Ends the process with SIGKILL.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.role.child.kill()?;
        self.role.child.wait().map(drop)
    }

    /// Waits for the process to end in order: when its stdin is closed, or by SIGTERM if it has none.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match self.stdin.take() {
            Some(stdin) => {
                drop(stdin);
                self.role.child.wait().map(drop)
            }
            None => {
                self.end();
                Ok(())
            }
        }
    }
}

/// Returns a command that ends with this process, as the program does not exit when its stdin is closed.
pub(crate) fn ending_with_us(command: &Command) -> Command {
    let mut ending = Command::new("setpriv");
    ending.args(["--pdeathsig", "TERM"]).arg(command.get_program()).args(command.get_args());
    ending
}
