//! Wrong tokens are counted by source, and lock nobody out who has a right one.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::common::admin::{Admin, CollectedResponse, TOKEN};
use http::Request;
use http_body_util::Full;
use tower_quota::{
    admin::{
        AdminTokens, admin_service,
        store::{AdminStore, AuditQuery},
    },
    clock::{Calendar, Clock},
    request::RequestContext,
    store::memory::MemoryStore,
};

#[derive(Clone)]
struct SetClock(Arc<Mutex<SystemTime>>);

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

impl SetClock {
    fn new() -> Self {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800);
        Self(Arc::new(Mutex::new(noon)))
    }

    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    fn step_back(&self, time: Duration) {
        *self.0.lock().unwrap() -= time;
    }
}

fn admin(clock: &SetClock) -> Admin {
    let store = MemoryStore::with_time(Calendar::utc(), clock.clone());
    Admin { service: admin_service(store.clone(), AdminTokens::parse(TOKEN).unwrap()), store }
}

async fn ask(admin: &Admin, token: &str, from: Option<IpAddr>) -> CollectedResponse {
    let request = Request::get("/admin/keys?limit=1").header("x-admin-token", token);
    let mut request = request.body(Full::default()).unwrap();
    if let Some(ip) = from {
        RequestContext::of(request.extensions_mut()).set_client_addr(ip);
    }
    admin.send(request).await
}

async fn wrong(admin: &Admin, from: Option<IpAddr>) -> u16 {
    ask(admin, "a-wrong-admin-token", from).await.status().as_u16()
}

fn v4(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, last]))
}

#[tokio::test]
async fn only_ten_failed_attempts_a_minute_are_checked() {
    let clock = SetClock::new();
    let admin = admin(&clock);
    let mut checked = 0;
    for _ in 0..1000 {
        clock.pass(Duration::from_millis(59));
        match wrong(&admin, v4(1)).await {
            401 => checked += 1,
            other => assert_eq!(other, 429),
        }
        assert_eq!(ask(&admin, TOKEN, v4(1)).await.status(), 200);
    }
    assert_eq!(checked, 10);
    let query = AuditQuery::latest(1000);
    assert_eq!(admin.store.audit(query).await.unwrap().len(), 10, "and no more is noted");
}

#[tokio::test]
async fn retry_after_says_when_the_next_attempt_is_checked() {
    let clock = SetClock::new();
    let admin = admin(&clock);
    for _ in 0..10 {
        assert_eq!(wrong(&admin, v4(1)).await, 401);
        clock.pass(Duration::from_secs(1));
    }
    let rejected = ask(&admin, "a-wrong-admin-token", v4(1)).await;
    assert_eq!((rejected.status().as_u16(), rejected.header("retry-after")), (429, "50"));
    clock.pass(Duration::from_secs(49));
    assert_eq!(wrong(&admin, v4(1)).await, 429);
    clock.pass(Duration::from_secs(1));
    assert_eq!(wrong(&admin, v4(1)).await, 401);
    assert_eq!(wrong(&admin, v4(1)).await, 429, "one second has passed since the second one");

    clock.step_back(Duration::from_secs(3600));
    assert_eq!(wrong(&admin, v4(1)).await, 401, "a clock that was set back locks nobody out");
}

#[tokio::test]
async fn a_source_is_an_address_or_a_network_of_addresses() {
    let v6 = |site: u16, host: u16| -> Option<IpAddr> {
        Some(Ipv6Addr::new(0x2001, 0xdb8, 0, site, 0, 0, 0, host).into())
    };
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    for (first, same, others) in [
        (v4(1), Some(mapped), [v4(2), v4(3), v4(4)]),
        (v6(1, 1), v6(1, 2), [v6(2, 1), v6(3, 1), v6(4, 1)]),
        (None, None, [v4(1), v4(2), v6(1, 1)]),
    ] {
        let admin = admin(&SetClock::new());
        for _ in 0..10 {
            assert_eq!(wrong(&admin, first).await, 401);
        }
        assert_eq!(wrong(&admin, same).await, 429);
        // One of them may share its bucket by chance.
        let mut checked = 0;
        for other in others {
            checked += usize::from(wrong(&admin, other).await == 401);
        }
        assert!(checked >= 2, "{first:?}");
    }
}

#[tokio::test]
#[ignore = "takes half a minute"]
async fn a_million_forged_sources_use_no_memory() {
    let admin = admin(&SetClock::new());
    let forge = async |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let [a, b, c, d] = number.to_be_bytes().map(u16::from);
            let forged = Ipv6Addr::new(0x2001, 0xdb8 + a, b, c << 8 | d, 0, 0, 0, 1);
            assert!(matches!(wrong(&admin, Some(forged.into())).await, 401 | 429));
        }
    };
    forge(0..100_000).await;
    let before = resident_kib();
    forge(100_000..1_100_000).await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB");
    assert_eq!(ask(&admin, TOKEN, v4(1)).await.status(), 200);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
