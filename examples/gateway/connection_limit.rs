//! Who may have a connection when there are too many: places are few, and a connection in which nothing
//! is done gives way to a newcomer.
//!
//! - When all places are taken, the oldest unfinished head gives way, then, once no more heads are about to
//!   go, the longest idle connection. One with a request never does: newcomers wait.
//! - A remote source (an IPv4 address, an IPv6 /64) holds at most half of the places, and beyond that
//!   its own connections give way. Trusted proxies, which stand for many clients, may hold more.
//! - Some places are kept for clients on this machine, so that it can always look after its gateway.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hashlink::LinkedHashMap;
use ipnet::IpNet;
use tokio::sync::Notify;

/// Number of places that are kept for loopback clients.
const LOOPBACK_PLACES: usize = 8;
/// Maximum number of connections that wait for a place; the system's queue has about as many.
const MAX_NEWCOMERS: usize = 128;
/// The same of one source.
const MAX_NEWCOMERS_OF_SOURCE: usize = 16;

/// All places for connections. Clones share them.
#[derive(Clone)]
pub(crate) struct ConnectionLimit(Arc<Shared>);

struct Shared {
    limit: usize,
    trusted: Vec<IpNet>,
    state: Mutex<State>,
    /// Told when a newcomer may have a place, or somebody else may give way to it.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Counts the changes, so that the older of two can be told.
    changes: u64,
    loopback: Group,
    remote: Group,
    /// Those of remote sources that are no trusted proxies.
    sources: HashMap<IpAddr, Group>,
}

/// Connections that are counted together.
#[derive(Default)]
struct Group {
    taken: usize,
    /// Those of them that were asked to give way, and how many of these had an unfinished head.
    leaving: usize,
    leaving_heads: usize,
    /// Connections in which nothing is done, each kind in the order in which that began.
    heads: LinkedHashMap<u64, Inactive>,
    idle: LinkedHashMap<u64, Inactive>,
}

#[derive(Clone)]
struct Inactive {
    since: u64,
    seat: Arc<Seat>,
}

/// One connection's place, until it is dropped.
pub(crate) struct ConnectionPermit {
    places: ConnectionLimit,
    seat: Arc<Seat>,
}

struct Seat {
    id: u64,
    kind: Kind,
    /// Whether it was asked to give way. Changed while the state is locked.
    is_leaving: AtomicBool,
    /// Whether it had an unfinished head then.
    had_head: AtomicBool,
    leaves: Notify,
}

/// With whom a connection is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    is_loopback: bool,
    source: Option<IpAddr>,
}

/// What a connection does when no request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inactivity {
    /// Its first request, or the head of another one, has not come yet.
    Head,
    /// It waits for another request.
    Idle,
}

impl ConnectionLimit {
    /// So many places; connections from `trusted` networks are not counted by their source.
    pub(crate) fn new(limit: usize, trusted: Vec<IpNet>) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { limit, trusted, state, changed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kind(&self, peer: IpAddr) -> Kind {
        let is_loopback = peer.is_loopback();
        let is_trusted = self.0.trusted.iter().any(|network| network.contains(&peer));
        Kind { is_loopback, source: (!is_loopback && !is_trusted).then(|| source(peer)) }
    }

    /// The connections among which one must go before another one of this kind may come, if any.
    fn shortage(&self, state: &State, kind: Kind) -> Option<Shortage> {
        let limit = self.0.limit;
        let of_source = kind.source.and_then(|source| state.sources.get(&source));
        if of_source.is_some_and(|group| group.taken >= (limit / 2).max(1)) {
            return kind.source.map(Shortage::Source);
        }
        let kept = LOOPBACK_PLACES.min(limit / 2);
        let is_full = state.loopback.taken + state.remote.taken >= limit;
        match kind.is_loopback {
            true => is_full.then_some(Shortage::All),
            false => (is_full || state.remote.taken >= limit - kept).then_some(Shortage::Remote),
        }
    }

    /// Returns when a newcomer may have a place, or somebody else may give way to it.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// What counts as one source: whoever has an IPv6 address has 2⁶⁴ of them.
fn source(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}

/// Whose places are all taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Shortage {
    All,
    Remote,
    Source(IpAddr),
}

/// Connections that have come and have no place yet.
pub(crate) struct PendingConnections<T>(VecDeque<(IpAddr, T)>);

impl<T> PendingConnections<T> {
    pub(crate) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Another one has come from this peer; `false` if too many wait already, and it is dropped.
    pub(crate) fn push(&mut self, peer: IpAddr, connection: T) -> bool {
        let of_source = self.0.iter().filter(|(other, _)| source(*other) == source(peer)).count();
        let has_room = self.0.len() < MAX_NEWCOMERS
            && (peer.is_loopback() || of_source < MAX_NEWCOMERS_OF_SOURCE);
        if has_room {
            self.0.push_back((peer, connection));
        }
        has_room
    }

    /// The next one that has a place. If none has, as many others as wait are asked to give way, and those
    /// whose source has too many requests under way are dropped.
    pub(crate) fn next(
        &mut self,
        places: &ConnectionLimit,
    ) -> Option<(IpAddr, T, ConnectionPermit)> {
        let state = &mut *places.lock();
        let has_place = |peer: IpAddr| places.shortage(state, places.kind(peer)).is_none();
        if let Some(at) = self.0.iter().position(|(peer, _)| has_place(*peer)) {
            let (peer, connection) = self.0.remove(at)?;
            return Some((peer, connection, state.enter(places, places.kind(peer))));
        }
        let mut wanted = HashMap::new();
        self.0.retain(|(peer, _)| {
            let Some(shortage) = places.shortage(state, places.kind(*peer)) else { return true };
            let wanted = wanted.entry(shortage).or_insert(0);
            *wanted += 1;
            let (leaving, heads) = state.leaving(shortage);
            match state.oldest(shortage) {
                Some((is_idle, oldest)) if leaving < *wanted && !(is_idle && heads > 0) => {
                    state.ask(&oldest, is_idle);
                }
                None if leaving == 0 && matches!(shortage, Shortage::Source(_)) => return false,
                _ => {}
            }
            true
        });
        None
    }
}

impl Group {
    /// Who is to give way first, and since when nothing is done there: heads go before idle ones.
    fn oldest(&self) -> Option<((bool, u64), Arc<Seat>)> {
        let (is_idle, oldest) = match self.heads.front() {
            Some((_, head)) => (false, head),
            None => (true, self.idle.front()?.1),
        };
        Some(((is_idle, oldest.since), oldest.seat.clone()))
    }
}

impl State {
    fn groups(&mut self, kind: Kind) -> impl Iterator<Item = &mut Group> {
        let all = if kind.is_loopback { &mut self.loopback } else { &mut self.remote };
        let source = kind.source.map(|source| self.sources.entry(source).or_default());
        std::iter::once(all).chain(source)
    }

    fn of(&self, shortage: Shortage) -> impl Iterator<Item = &Group> {
        let groups = match shortage {
            Shortage::All => [Some(&self.loopback), Some(&self.remote)],
            Shortage::Remote => [Some(&self.remote), None],
            Shortage::Source(source) => [self.sources.get(&source), None],
        };
        groups.into_iter().flatten()
    }

    /// How many are about to leave, and how many of them had an unfinished head.
    fn leaving(&self, shortage: Shortage) -> (usize, usize) {
        let groups = self.of(shortage).map(|group| (group.leaving, group.leaving_heads));
        groups.fold((0, 0), |sum, group| (sum.0 + group.0, sum.1 + group.1))
    }

    /// Who is to give way first, and whether it is idle.
    fn oldest(&self, shortage: Shortage) -> Option<(bool, Arc<Seat>)> {
        let oldest = self.of(shortage).filter_map(Group::oldest).min_by_key(|(since, _)| *since);
        oldest.map(|((is_idle, _), seat)| (is_idle, seat))
    }

    fn enter(&mut self, places: &ConnectionLimit, kind: Kind) -> ConnectionPermit {
        self.changes += 1;
        let seat = Arc::new(Seat {
            id: self.changes,
            kind,
            is_leaving: AtomicBool::new(false),
            had_head: AtomicBool::new(false),
            leaves: Notify::new(),
        });
        self.groups(kind).for_each(|group| group.taken += 1);
        self.begin(&seat, Inactivity::Head);
        ConnectionPermit { places: places.clone(), seat }
    }

    fn begin(&mut self, seat: &Arc<Seat>, inactivity: Inactivity) {
        self.end(seat);
        self.changes += 1;
        let since = self.changes;
        for group in self.groups(seat.kind) {
            let inactive = Inactive { since, seat: seat.clone() };
            match inactivity {
                Inactivity::Head => group.heads.insert(seat.id, inactive),
                Inactivity::Idle => group.idle.insert(seat.id, inactive),
            };
        }
    }

    fn end(&mut self, seat: &Seat) {
        for group in self.groups(seat.kind) {
            if group.heads.remove(&seat.id).is_none() {
                group.idle.remove(&seat.id);
            }
        }
    }

    fn ask(&mut self, seat: &Seat, is_idle: bool) {
        self.end(seat);
        for group in self.groups(seat.kind) {
            group.leaving += 1;
            group.leaving_heads += usize::from(!is_idle);
        }
        seat.had_head.store(!is_idle, Ordering::Relaxed);
        seat.is_leaving.store(true, Ordering::Relaxed);
        seat.leaves.notify_one();
    }

    /// Whether it was to give way; it is not any longer.
    fn stay(&mut self, seat: &Seat) -> bool {
        let was_leaving = seat.is_leaving.swap(false, Ordering::Relaxed);
        if was_leaving {
            let had_head = seat.had_head.load(Ordering::Relaxed);
            for group in self.groups(seat.kind) {
                group.leaving -= 1;
                group.leaving_heads -= usize::from(had_head);
            }
        }
        was_leaving
    }

    fn leave(&mut self, seat: &Seat) {
        self.stay(seat);
        self.end(seat);
        self.groups(seat.kind).for_each(|group| group.taken -= 1);
        if let Some(source) = seat.kind.source
            && self.sources.get(&source).is_some_and(|group| group.taken == 0)
        {
            self.sources.remove(&source);
        }
    }
}

impl ConnectionPermit {
    /// Nothing is done in it from now on.
    pub(crate) fn begin(&self, inactivity: Inactivity) {
        let state = &mut *self.places.lock();
        if !self.is_leaving() {
            state.begin(&self.seat, inactivity);
            self.places.0.changed.notify_one();
        }
    }

    /// A request has come. One that comes when the place is to give way keeps it: it was sent before.
    pub(crate) fn end(&self) {
        let state = &mut *self.places.lock();
        match state.stay(&self.seat) {
            true => self.places.0.changed.notify_one(),
            false => state.end(&self.seat),
        }
    }

    /// Whether it is to be left, unless a request comes before.
    pub(crate) fn is_leaving(&self) -> bool {
        self.seat.is_leaving.load(Ordering::Relaxed)
    }

    /// Returns when it is to be left.
    pub(crate) async fn leaves(&self) {
        self.seat.leaves.notified().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.places.lock().leave(&self.seat);
        self.places.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Door {
        places: ConnectionLimit,
        newcomers: PendingConnections<()>,
    }

    impl Door {
        fn new(limit: usize) -> Self {
            let places = ConnectionLimit::new(limit, vec!["10.0.0.0/8".parse().unwrap()]);
            Self { places, newcomers: PendingConnections::new() }
        }

        fn next(&mut self) -> Option<ConnectionPermit> {
            self.newcomers.next(&self.places).map(|(_, (), place)| place)
        }

        /// Another connection of this peer; it waits if it has no place.
        fn come(&mut self, peer: &str) -> Option<ConnectionPermit> {
            assert!(self.newcomers.push(peer.parse().unwrap(), ()));
            self.next()
        }
    }

    /// Names of those that are to give way.
    fn leaving<'a>(places: &[(&'a str, &ConnectionPermit)]) -> Vec<&'a str> {
        places.iter().filter(|(_, place)| place.is_leaving()).map(|(name, _)| *name).collect()
    }

    #[test]
    fn the_oldest_head_gives_way_then_the_longest_idle_connection_and_never_a_request() {
        let mut door = Door::new(4);
        let [request, idle, old, young] = [(); 4].map(|()| door.come("127.0.0.1").unwrap());
        request.end();
        idle.end();
        idle.begin(Inactivity::Idle);
        let all = [("request", &request), ("idle", &idle), ("old", &old), ("young", &young)];
        for expected in [&["old"][..], &["old", "young"], &["old", "young"]] {
            assert!(door.come("127.0.0.1").is_none());
            assert_eq!(leaving(&all), expected);
        }
        drop((old, young));
        let [first, second] = [(); 2].map(|()| door.next().expect("a place that was left"));
        second.end();
        // The newest head is the only one.
        assert!(door.next().is_none() && first.is_leaving() && !idle.is_leaving());
        drop(first);
        let first = door.next().expect("its place");
        first.end();
        assert!(door.come("127.0.0.1").is_none() && idle.is_leaving());
        // There are no more, whoever waits.
        assert!(door.come("127.0.0.1").is_none() && !request.is_leaving());
        drop(idle);
        let third = door.next().expect("the idle one's place");
        third.end();
        // Who becomes inactive gives way, too.
        first.end();
        assert!(door.next().is_none() && !first.is_leaving());
        first.begin(Inactivity::Idle);
        assert!(door.next().is_none() && first.is_leaving());
    }

    #[test]
    fn a_request_that_comes_meanwhile_keeps_its_place_and_another_gives_way() {
        let mut door = Door::new(2);
        let [first, second] = [(); 2].map(|()| door.come("127.0.0.1").unwrap());
        assert!(door.come("127.0.0.1").is_none() && first.is_leaving() && !second.is_leaving());
        first.end();
        assert!(door.next().is_none() && !first.is_leaving() && second.is_leaving());
        drop(second);
        assert!(door.next().is_some());
    }

    #[test]
    fn a_source_has_at_most_half_of_the_places() {
        let mut door = Door::new(40);
        let other = door.come("198.51.100.8").unwrap();
        for peers in [["198.51.100.7"; 2], ["2001:db8::1", "2001:db8::2:3:4:5"]] {
            let mine: Vec<_> = (0..20).map(|_| door.come(peers[0]).unwrap()).collect();
            assert!(door.come(peers[1]).is_none());
            assert!(mine[0].is_leaving() && !mine[1].is_leaving(), "{peers:?}");
            mine.iter().for_each(ConnectionPermit::end);
            assert!(door.next().is_none() && door.newcomers.are_none(), "{peers:?}");
        }
        assert!(!other.is_leaving());
        // A proxy stands for many.
        let trusted: Vec<_> = (0..31).map(|_| door.come("10.1.2.3").unwrap()).collect();
        assert!(trusted.iter().all(|place| !place.is_leaving()));
        drop((other, trusted));
        let state = door.places.lock();
        assert!(state.sources.is_empty());
        assert_eq!(state.remote.taken + state.loopback.taken, 0);
    }

    #[test]
    fn places_are_kept_for_loopback_clients() {
        let mut door = Door::new(40);
        let peer = |number: usize| format!("198.51.100.{number}");
        let remote: Vec<_> = (0..32).map(|number| door.come(&peer(number)).unwrap()).collect();
        remote.iter().for_each(ConnectionPermit::end);
        assert!(door.come(&peer(99)).is_none());
        let local: Vec<_> = (0..8).map(|_| door.come("::1").unwrap()).collect();
        assert!(door.come("127.0.0.1").is_none() && local[0].is_leaving());
        // Loopback clients give way among themselves, to nobody else.
        assert_eq!(local.iter().filter(|place| place.is_leaving()).count(), 1);
        remote[5].begin(Inactivity::Idle);
        assert!(door.next().is_none() && remote[5].is_leaving());
    }

    #[test]
    fn few_newcomers_of_one_source_may_wait() {
        let mut newcomers = PendingConnections::new();
        let pushed =
            (0..20).filter(|_| newcomers.push("198.51.100.7".parse().unwrap(), ())).count();
        assert_eq!(pushed, MAX_NEWCOMERS_OF_SOURCE);
        let pushed = (0..200).filter(|_| newcomers.push("127.0.0.1".parse().unwrap(), ())).count();
        assert_eq!(pushed, MAX_NEWCOMERS - MAX_NEWCOMERS_OF_SOURCE);
    }
}
