//! Limits the number of open connections. At the limit, an inactive connection is evicted in favor of a
//! pending one.
//!
//! - The connection with the oldest unfinished head is evicted first; once no more heads are being
//!   evicted, the connection that has been idle longest. A connection with a request in flight is never
//!   evicted: new connections wait.
//! - A remote source (an IPv4 address, an IPv6 /64) holds at most half of the connections; beyond that
//!   its own connections are evicted. Proxies stand for many clients and may hold more.
//! - Some connections are reserved for clients on this machine, so that it can always reach its gateway.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use hashlink::LinkedHashMap;
use tokio::sync::Notify;

use super::{PeerAddr, limits::Proxies};

/// Number of connections that are reserved for loopback clients.
const LOOPBACK_RESERVE: usize = 8;
/// Maximum number of pending connections; the kernel's accept queue holds about as many.
const MAX_PENDING: usize = 128;
/// Maximum number of pending connections of one source.
const MAX_PENDING_PER_SOURCE: usize = 16;

/// The limit on open connections. Clones share it.
#[derive(Clone)]
pub(super) struct ConnectionLimit(Arc<Shared>);

struct Shared {
    limit: usize,
    is_proxy: Proxies,
    state: Mutex<State>,
    /// Notified when a pending connection may be admitted, or another one may be evicted for it.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Number of changes so far, which orders the connections by when they became inactive.
    changes: u64,
    loopback: Group,
    remote: Group,
    /// Connections of remote sources other than proxies.
    sources: HashMap<IpAddr, Group>,
}

/// Connections that are counted together.
#[derive(Default)]
struct Group {
    open: usize,
    /// Number of open connections that are being evicted.
    evicting: usize,
    /// Number of those that had an unfinished head.
    evicting_heads: usize,
    /// Connections with an unfinished head, oldest first.
    heads: LinkedHashMap<u64, Inactive>,
    /// Idle connections, longest idle first.
    idle: LinkedHashMap<u64, Inactive>,
}

#[derive(Clone)]
struct Inactive {
    since: u64,
    connection: Arc<Counted>,
}

/// Counts a connection as open until it is dropped.
pub(super) struct ConnectionPermit {
    limit: ConnectionLimit,
    connection: Arc<Counted>,
}

struct Counted {
    id: u64,
    class: Class,
    /// Whether the connection is being evicted. Changes only while the state is locked.
    is_evicted: AtomicBool,
    /// Whether the connection had an unfinished head when its eviction began.
    had_head: AtomicBool,
    /// Wakes the connection's task when it is evicted.
    waker: OnceLock<Waker>,
}

/// The groups in which a connection is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Class {
    is_loopback: bool,
    source: Option<IpAddr>,
}

/// Next event of a connection without a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inactivity {
    /// The first request, or the rest of a head.
    Head,
    /// Another request.
    Idle,
}

impl ConnectionLimit {
    /// Creates a limit of `limit` connections. Those of proxies are not counted by source.
    pub(super) fn new(limit: usize, is_proxy: Proxies) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { limit, is_proxy, state, changed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn class(&self, peer: IpAddr) -> Class {
        let is_loopback = peer.is_loopback();
        let is_proxy = (self.0.is_proxy)(peer);
        Class { is_loopback, source: (!is_loopback && !is_proxy).then(|| source(peer)) }
    }

    /// Returns the limit that a new connection of this class would exceed, if any.
    fn exceeded(&self, state: &State, class: Class) -> Option<Exceeded> {
        let limit = self.0.limit;
        let of_source = class.source.and_then(|source| state.sources.get(&source));
        if of_source.is_some_and(|group| group.open >= (limit / 2).max(1)) {
            return class.source.map(Exceeded::Source);
        }
        let reserve = LOOPBACK_RESERVE.min(limit / 2);
        let is_full = state.loopback.open + state.remote.open >= limit;
        match class.is_loopback {
            true => is_full.then_some(Exceeded::All),
            false => (is_full || state.remote.open >= limit - reserve).then_some(Exceeded::Remote),
        }
    }

    /// Returns when a pending connection may be admitted, or another one may be evicted for it.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// Returns the address, or the /64 of an IPv6 address, as one subscriber has 2⁶⁴ of those.
fn source(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}

/// A limit that leaves no room for another connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Exceeded {
    All,
    Remote,
    Source(IpAddr),
}

/// Accepted connections that have no permit yet.
pub(super) struct PendingConnections<T>(VecDeque<(PeerAddr, T)>);

impl<T> PendingConnections<T> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Queues a connection from `peer`. Drops it and returns `false` if too many are pending.
    pub(super) fn push(&mut self, peer: PeerAddr, connection: T) -> bool {
        let is_of_source = |other: PeerAddr| source(other.ip()) == source(peer.ip());
        let of_source = self.0.iter().filter(|(other, _)| is_of_source(*other)).count();
        let is_accepted = self.0.len() < MAX_PENDING
            && (peer.ip().is_loopback() || of_source < MAX_PENDING_PER_SOURCE);
        if is_accepted {
            self.0.push_back((peer, connection));
        }
        is_accepted
    }

    /// Returns the next connection that gets a permit. If there is none, evicts as many inactive
    /// connections as are pending, and drops pending ones whose source has only requests in flight.
    pub(super) fn next(
        &mut self,
        limit: &ConnectionLimit,
    ) -> Option<(PeerAddr, T, ConnectionPermit)> {
        let state = &mut *limit.lock();
        let is_admitted = |peer: IpAddr| limit.exceeded(state, limit.class(peer)).is_none();
        if let Some(index) = self.0.iter().position(|(peer, _)| is_admitted(peer.ip())) {
            let (peer, connection) = self.0.remove(index)?;
            return Some((peer, connection, state.admit(limit, limit.class(peer.ip()))));
        }
        let mut needed = HashMap::new();
        self.0.retain(|(peer, _)| {
            let Some(exceeded) = limit.exceeded(state, limit.class(peer.ip())) else { return true };
            let needed = needed.entry(exceeded).or_insert(0);
            *needed += 1;
            let (evicting, evicting_heads) = state.evicting(exceeded);
            match state.oldest(exceeded) {
                Some((is_idle, oldest))
                    if evicting < *needed && !(is_idle && evicting_heads > 0) =>
                {
                    state.evict(&oldest, is_idle);
                }
                None if evicting == 0 && matches!(exceeded, Exceeded::Source(_)) => return false,
                _ => {}
            }
            true
        });
        None
    }
}

impl Group {
    /// Returns the connection to evict first and since when it is inactive: heads go before idle ones.
    fn oldest(&self) -> Option<((bool, u64), Arc<Counted>)> {
        let (is_idle, oldest) = match self.heads.front() {
            Some((_, head)) => (false, head),
            None => (true, self.idle.front()?.1),
        };
        Some(((is_idle, oldest.since), oldest.connection.clone()))
    }
}

impl State {
    fn groups(&mut self, class: Class) -> impl Iterator<Item = &mut Group> {
        let all = if class.is_loopback { &mut self.loopback } else { &mut self.remote };
        let source = class.source.map(|source| self.sources.entry(source).or_default());
        std::iter::once(all).chain(source)
    }

    /// Returns the groups of connections that may be evicted when this limit is exceeded.
    fn candidates(&self, exceeded: Exceeded) -> impl Iterator<Item = &Group> {
        let groups = match exceeded {
            Exceeded::All => [Some(&self.loopback), Some(&self.remote)],
            Exceeded::Remote => [Some(&self.remote), None],
            Exceeded::Source(source) => [self.sources.get(&source), None],
        };
        groups.into_iter().flatten()
    }

    /// Returns how many candidates are being evicted, and how many of them had an unfinished head.
    fn evicting(&self, exceeded: Exceeded) -> (usize, usize) {
        let counts = self.candidates(exceeded).map(|group| (group.evicting, group.evicting_heads));
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    }

    /// Returns the candidate to evict first, and whether it is idle.
    fn oldest(&self, exceeded: Exceeded) -> Option<(bool, Arc<Counted>)> {
        let oldest =
            self.candidates(exceeded).filter_map(Group::oldest).min_by_key(|(since, _)| *since);
        oldest.map(|((is_idle, _), connection)| (is_idle, connection))
    }

    fn admit(&mut self, limit: &ConnectionLimit, class: Class) -> ConnectionPermit {
        self.changes += 1;
        let connection = Arc::new(Counted {
            id: self.changes,
            class,
            is_evicted: AtomicBool::new(false),
            had_head: AtomicBool::new(false),
            waker: OnceLock::new(),
        });
        self.groups(class).for_each(|group| group.open += 1);
        self.set_inactive(&connection, Inactivity::Head);
        ConnectionPermit { limit: limit.clone(), connection }
    }

    fn set_inactive(&mut self, connection: &Arc<Counted>, inactivity: Inactivity) {
        self.set_active(connection);
        self.changes += 1;
        let since = self.changes;
        for group in self.groups(connection.class) {
            let inactive = Inactive { since, connection: connection.clone() };
            match inactivity {
                Inactivity::Head => group.heads.insert(connection.id, inactive),
                Inactivity::Idle => group.idle.insert(connection.id, inactive),
            };
        }
    }

    fn set_active(&mut self, connection: &Counted) {
        for group in self.groups(connection.class) {
            if group.heads.remove(&connection.id).is_none() {
                group.idle.remove(&connection.id);
            }
        }
    }

    fn evict(&mut self, connection: &Counted, is_idle: bool) {
        self.set_active(connection);
        for group in self.groups(connection.class) {
            group.evicting += 1;
            group.evicting_heads += usize::from(!is_idle);
        }
        connection.had_head.store(!is_idle, Ordering::Relaxed);
        connection.is_evicted.store(true, Ordering::Relaxed);
        if let Some(waker) = connection.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Takes back an eviction, and returns whether there was one.
    fn cancel_eviction(&mut self, connection: &Counted) -> bool {
        let was_evicted = connection.is_evicted.swap(false, Ordering::Relaxed);
        if was_evicted {
            let had_head = connection.had_head.load(Ordering::Relaxed);
            for group in self.groups(connection.class) {
                group.evicting -= 1;
                group.evicting_heads -= usize::from(had_head);
            }
        }
        was_evicted
    }

    fn remove(&mut self, connection: &Counted) {
        self.cancel_eviction(connection);
        self.set_active(connection);
        self.groups(connection.class).for_each(|group| group.open -= 1);
        if let Some(source) = connection.class.source
            && self.sources.get(&source).is_some_and(|group| group.open == 0)
        {
            self.sources.remove(&source);
        }
    }
}

impl ConnectionPermit {
    /// Records that the connection has no request in flight from now on.
    pub(super) fn set_inactive(&self, inactivity: Inactivity) {
        let state = &mut *self.limit.lock();
        if !self.is_evicted() {
            state.set_inactive(&self.connection, inactivity);
            self.limit.0.changed.notify_one();
        }
    }

    /// Records that a request has come. This takes back an eviction: the client sent the request before
    /// it could know.
    pub(super) fn set_active(&self) {
        let state = &mut *self.limit.lock();
        match state.cancel_eviction(&self.connection) {
            true => self.limit.0.changed.notify_one(),
            false => state.set_active(&self.connection),
        }
    }

    /// Returns whether the connection must close unless a request comes first.
    pub(super) fn is_evicted(&self) -> bool {
        self.connection.is_evicted.load(Ordering::Relaxed)
    }

    /// Sets what is woken when the connection is evicted, once.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let _ = self.connection.waker.set(waker.clone());
        // It may have been evicted before.
        if self.is_evicted() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.lock().remove(&self.connection);
        self.limit.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(ip: &str) -> PeerAddr {
        PeerAddr((ip.parse::<IpAddr>().unwrap(), 1).into())
    }

    struct Listener {
        limit: ConnectionLimit,
        pending: PendingConnections<()>,
    }

    impl Listener {
        fn new(limit: usize) -> Self {
            let is_proxy = |peer: IpAddr| peer.to_string().starts_with("10.");
            let limit = ConnectionLimit::new(limit, Arc::new(is_proxy));
            Self { limit, pending: PendingConnections::new() }
        }

        fn next(&mut self) -> Option<ConnectionPermit> {
            self.pending.next(&self.limit).map(|(_, (), permit)| permit)
        }

        /// Accepts another connection of this peer, which stays pending if it gets no permit.
        fn accept(&mut self, peer: &str) -> Option<ConnectionPermit> {
            assert!(self.pending.push(addr(peer), ()));
            self.next()
        }
    }

    /// Returns the names of the connections that are being evicted.
    fn evicted<'a>(permits: &[(&'a str, &ConnectionPermit)]) -> Vec<&'a str> {
        permits.iter().filter(|(_, permit)| permit.is_evicted()).map(|(name, _)| *name).collect()
    }

    #[test]
    fn the_oldest_head_and_then_the_longest_idle_connection_is_evicted() {
        let mut listener = Listener::new(4);
        let [request, idle, old, young] = [(); 4].map(|()| listener.accept("127.0.0.1").unwrap());
        request.set_active();
        idle.set_active();
        idle.set_inactive(Inactivity::Idle);
        let all = [("request", &request), ("idle", &idle), ("old", &old), ("young", &young)];
        for expected in [&["old"][..], &["old", "young"], &["old", "young"]] {
            assert!(listener.accept("127.0.0.1").is_none());
            assert_eq!(evicted(&all), expected);
        }
        drop((old, young));
        let [first, second] = [(); 2].map(|()| listener.next().expect("two have closed"));
        second.set_active();
        // The newest head is the only one.
        assert!(listener.next().is_none() && first.is_evicted() && !idle.is_evicted());
        drop(first);
        let first = listener.next().expect("one has closed");
        first.set_active();
        assert!(listener.accept("127.0.0.1").is_none() && idle.is_evicted());
        // No inactive connection is left, however many are pending.
        assert!(listener.accept("127.0.0.1").is_none() && !request.is_evicted());
        drop(idle);
        let third = listener.next().expect("the idle one has closed");
        third.set_active();
        // A connection that becomes inactive later is evicted, too.
        first.set_active();
        assert!(listener.next().is_none() && !first.is_evicted());
        first.set_inactive(Inactivity::Idle);
        assert!(listener.next().is_none() && first.is_evicted());
    }

    #[test]
    fn a_request_during_an_eviction_keeps_its_connection() {
        let mut listener = Listener::new(2);
        let [first, second] = [(); 2].map(|()| listener.accept("127.0.0.1").unwrap());
        assert!(listener.accept("127.0.0.1").is_none());
        assert!(first.is_evicted() && !second.is_evicted());
        first.set_active();
        assert!(listener.next().is_none() && !first.is_evicted() && second.is_evicted());
        drop(second);
        assert!(listener.next().is_some());
    }

    #[test]
    fn a_source_has_at_most_half_of_the_connections() {
        let mut listener = Listener::new(40);
        let other = listener.accept("198.51.100.8").unwrap();
        for peers in [["198.51.100.7"; 2], ["2001:db8::1", "2001:db8::2:3:4:5"]] {
            let mine: Vec<_> = (0..20).map(|_| listener.accept(peers[0]).unwrap()).collect();
            assert!(listener.accept(peers[1]).is_none());
            assert!(mine[0].is_evicted() && !mine[1].is_evicted(), "{peers:?}");
            mine.iter().for_each(ConnectionPermit::set_active);
            assert!(listener.next().is_none() && listener.pending.is_empty(), "{peers:?}");
        }
        assert!(!other.is_evicted());
        // A proxy stands for many clients.
        let trusted: Vec<_> = (0..31).map(|_| listener.accept("10.1.2.3").unwrap()).collect();
        assert!(trusted.iter().all(|permit| !permit.is_evicted()));
        drop((other, trusted));
        let state = listener.limit.lock();
        assert!(state.sources.is_empty());
        assert_eq!(state.remote.open + state.loopback.open, 0);
    }

    #[test]
    fn connections_are_reserved_for_loopback_clients() {
        let mut listener = Listener::new(40);
        let peer = |number: usize| format!("198.51.100.{number}");
        let remote: Vec<_> =
            (0..32).map(|number| listener.accept(&peer(number)).unwrap()).collect();
        remote.iter().for_each(ConnectionPermit::set_active);
        assert!(listener.accept(&peer(99)).is_none());
        let local: Vec<_> = (0..8).map(|_| listener.accept("::1").unwrap()).collect();
        assert!(listener.accept("127.0.0.1").is_none() && local[0].is_evicted());
        // Loopback clients are evicted for each other only.
        assert_eq!(local.iter().filter(|permit| permit.is_evicted()).count(), 1);
        remote[5].set_inactive(Inactivity::Idle);
        assert!(listener.next().is_none() && remote[5].is_evicted());
    }

    #[test]
    fn few_connections_of_one_source_may_be_pending() {
        let mut pending = PendingConnections::new();
        let pushed = (0..20).filter(|_| pending.push(addr("198.51.100.7"), ())).count();
        assert_eq!(pushed, MAX_PENDING_PER_SOURCE);
        let pushed = (0..200).filter(|_| pending.push(addr("127.0.0.1"), ())).count();
        assert_eq!(pushed, MAX_PENDING - MAX_PENDING_PER_SOURCE);
    }
}
