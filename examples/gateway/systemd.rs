//! Integration with systemd and similar service managers: an inherited listening socket that stays open
//! while the gateway restarts (`LISTEN_FDS`), and notifications of its state (`NOTIFY_SOCKET`).
//!
//! sd_notify(3) sends one datagram per message. The crates for it block the thread while the manager's
//! queue is full, so the datagrams are sent here.

use std::{
    convert::Infallible,
    env, future, io,
    net::{self, SocketAddr},
    path::PathBuf,
    process,
    time::Duration,
};

use listenfd::ListenFd;
use rustix::{
    net::sockopt::socket_acceptconn,
    time::{ClockId, clock_gettime},
};
use tokio::{
    net::{TcpListener, UnixDatagram},
    time::{interval, timeout},
};

use crate::settings::BadSetting;

/// Maximum time that a notification waits for a service manager that does not read.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time that closing the store may take after the grace period.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The sockets that the service manager has passed to the process.
pub(crate) struct InheritedSockets(ListenFd);

impl InheritedSockets {
    /// Removes them from the environment, so it must be called before a second thread is started.
    pub(crate) fn take() -> Self {
        Self(ListenFd::from_env())
    }

    /// Returns the listener that replaces one on `HOST` and `PORT`, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if there are several sockets, or if the socket is not a TCP listener.
    pub(crate) fn listener(mut self) -> Result<Option<TcpListener>, BadSetting> {
        let problem = match self.0.len() {
            0 => return Ok(None),
            1 => match self.0.take_tcp_listener(0).and_then(into_listener) {
                Ok(listener) => return Ok(Some(listener)),
                Err(error) => format!("got one that is none ({error})"),
            },
            several => format!("got {several} sockets"),
        };
        let expected = "expected one listening TCP socket, such as that of a .socket unit with one \
                        ListenStream=address:port and Accept=no";
        Err(BadSetting::new("LISTEN_FDS", format!("{expected}; {problem}")))
    }
}

fn into_listener(socket: Option<net::TcpListener>) -> io::Result<TcpListener> {
    let socket = socket.ok_or(io::ErrorKind::NotFound)?;
    if !socket_acceptconn(&socket)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Notifies the service manager, if there is one.
#[derive(Clone)]
pub(crate) struct ServiceManager {
    socket: Option<PathBuf>,
    watchdog: Option<Duration>,
    /// The status in normal operation.
    serving: String,
}

impl ServiceManager {
    /// Reads the environment. `address` is named in the status.
    pub(crate) fn from_env(address: SocketAddr) -> Self {
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process::id()));
        Self {
            socket: env::var_os("NOTIFY_SOCKET").map(PathBuf::from),
            watchdog: number("WATCHDOG_USEC")
                .filter(|micros| is_for_us && *micros > 0)
                .map(Duration::from_micros),
            serving: format!("serving on {address}"),
        }
    }

    /// Reports why the start is not complete.
    pub(crate) async fn waiting(&self, reason: &str) {
        self.notify(&format!("STATUS={}", line(reason))).await;
    }

    /// Reports that requests are served from now on.
    pub(crate) async fn ready(&self) {
        self.notify(&format!("READY=1\nSTATUS={}", self.serving)).await;
    }

    /// Reports that a reload begins.
    pub(crate) async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading")).await;
    }

    /// Reports that the reload is complete, except for these problems.
    pub(crate) async fn reloaded(&self, problems: &[String]) {
        let status = match problems {
            [] => self.serving.clone(),
            _ => format!("{}; not reloaded: {}", self.serving, line(&problems.join("; "))),
        };
        self.notify(&format!("READY=1\nSTATUS={status}")).await;
    }

    /// Reports that the process is shutting down, which may take `grace` for the responses in flight.
    pub(crate) async fn stopping(&self, grace: Duration) {
        // Extends the manager's own timeout, which may be shorter.
        let micros = (grace + CLOSE_TIMEOUT).as_micros();
        let status = format!("shutting down: responses in flight may take {grace:?}");
        self.notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS={status}")).await;
    }

    /// Feeds the manager's watchdog, if it has one, while `is_alive` returns `true`. Never completes.
    pub(crate) async fn keep_alive(&self, is_alive: impl Fn() -> bool) -> Infallible {
        let Some(watchdog) = self.watchdog else { return future::pending().await };
        let mut ticks = interval(watchdog / 3);
        loop {
            ticks.tick().await;
            if is_alive() {
                self.notify("WATCHDOG=1").await;
            }
        }
    }

    /// Sends one message. A failure is logged only.
    async fn notify(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = async {
            // A socket for each message, as the manager may have been restarted meanwhile.
            let datagrams = UnixDatagram::unbound()?;
            datagrams.connect(socket)?;
            datagrams.send(message.as_bytes()).await
        };
        match timeout(NOTIFY_TIMEOUT, sent).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    %error,
                    message,
                    "notifying the service manager failed: its status is out of date"
                )
            }
            Err(_) => tracing::warn!(
                message,
                "notifying the service manager timed out: its status may be out of date"
            ),
        }
    }
}

/// Replaces control characters, as a status is one line.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
