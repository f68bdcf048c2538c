//! What the gateway has of systemd, or of a service manager like it: a listening socket that stays open
//! while the gateway restarts (`LISTEN_FDS`), and somebody who wants to know how it is (`NOTIFY_SOCKET`).
//!
//! sd_notify(3) is one datagram per message. The crates for it block the thread until the manager
//! has read enough of those before, so it is sent here.

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

/// How long a message may wait for a service manager that does not read.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// What a shutdown may take beyond the time that it is given, to close the store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The sockets that the process was started with.
pub(crate) struct InheritedSockets(ListenFd);

impl InheritedSockets {
    /// Takes them out of the environment, so it must be called before there is a second thread.
    pub(crate) fn take() -> Self {
        Self(ListenFd::from_env())
    }

    /// The listener to be used in the place of one on `HOST` and `PORT`, if there is one.
    ///
    /// # Errors
    ///
    /// There are several, or it is no listener for TCP.
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

/// The service manager that wants to know how the process is, if there is one.
#[derive(Clone)]
pub(crate) struct ServiceManager {
    socket: Option<PathBuf>,
    watchdog: Option<Duration>,
    /// The status while nothing else is worth a line.
    serving: String,
}

impl ServiceManager {
    /// That of the environment. The process serves on this address.
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

    /// The start is not over, for this reason.
    pub(crate) async fn waiting(&self, reason: &str) {
        self.notify(&format!("STATUS={}", line(reason))).await;
    }

    /// Requests are served from now on.
    pub(crate) async fn ready(&self) {
        self.notify(&format!("READY=1\nSTATUS={}", self.serving)).await;
    }

    /// What can be read again is read again.
    pub(crate) async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading")).await;
    }

    /// That is done, but for these problems.
    pub(crate) async fn reloaded(&self, problems: &[String]) {
        let status = match problems {
            [] => self.serving.clone(),
            _ => format!("{}; not reloaded: {}", self.serving, line(&problems.join("; "))),
        };
        self.notify(&format!("READY=1\nSTATUS={status}")).await;
    }

    /// The process ends, and its last answers may take so long.
    pub(crate) async fn stopping(&self, at_most: Duration) {
        // Whatever the settings are, the manager must not kill it before.
        let micros = (at_most + CLOSE_TIMEOUT).as_micros();
        let status = format!("shutting down: running answers may take {at_most:?}");
        self.notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS={status}")).await;
    }

    /// Says that the process works for as long as it does, if the manager wants to hear it.
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

    /// Sends one message. That it cannot be sent holds nothing up.
    async fn notify(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = async {
            // A socket for each message: the manager may have been replaced meanwhile.
            let datagrams = UnixDatagram::unbound()?;
            datagrams.connect(socket)?;
            datagrams.send(message.as_bytes()).await
        };
        match timeout(NOTIFY_TIMEOUT, sent).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, message, "service manager not notified"),
            Err(_) => tracing::warn!(message, "service manager not notified: it does not read"),
        }
    }
}

/// A status is one line.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
