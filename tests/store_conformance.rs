//! The promises of the store traits, held by every back end.

use std::{
    cmp::Reverse,
    collections::HashSet,
    future::poll_fn,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tower_quota::{
    clock::{Calendar, Clock},
    error::StoreErrorKind,
    key::{ClaimToken, DailyLimit, KeyId, KeyRecord, SecretKey},
    store::{
        Actor, AdminStore, AuditQuery, Changed, Charge, ClaimOffer, ClaimState, ClaimStore,
        Created, GroupBy, KeyChange, KeyEdit, KeyPageQuery, KeyPatch, KeyRef, KeySort, KeyState,
        KeyStore, KeySummary, NewKey, Once, Opening, Outcome, Page, QuotaStore, QuotaSubject,
        Refund, RequestQuery, RequestRow, Rotation, Tokens, UsageEvent, UsageQuery, UsageSink,
        Verdict,
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

/// 2026-11-22T12:00:00Z.
fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_348_800)
}

#[derive(Clone, Copy)]
struct Fixed(SystemTime);

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        self.0
    }
}

trait Store: KeyStore + QuotaStore + AdminStore + ClaimStore + UsageSink + Clone {}
impl<T: KeyStore + QuotaStore + AdminStore + ClaimStore + UsageSink + Clone> Store for T {}

/// Runs each promise against both back ends.
macro_rules! promises {
    ($($promise:ident,)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::MemoryStore::with_time(super::Calendar::utc(), super::Fixed(super::noon()))).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let directory = tempfile::tempdir().unwrap();
                let options = super::SqliteOptions::new(directory.path().join("quota.db"));
                let options = options.retention_days(1);
                let store = super::SqliteStore::open(options.clock(super::Fixed(super::noon()))).unwrap();
                super::$promise(store.clone()).await;
                store.close().await.unwrap();
            })*
        }
    };
}

promises! {
    concurrent_reservations_admit_exactly_the_limit,
    an_unlimited_subject_is_always_admitted,
    a_refunded_unit_can_be_used_again_once,
    a_refund_never_touches_a_day_that_was_reset,
    a_refund_after_midnight_does_not_touch_the_new_day,
    a_day_is_reset_as_often_as_asked_also_one_that_a_clock_set_back_has_left,
    the_next_day_begins_at_zero,
    a_changed_limit_counts_from_the_next_reservation,
    an_issued_key_is_found_and_shown_masked,
    a_deleted_key_is_unknown_at_once_and_its_history_stays,
    a_rotated_key_keeps_its_record_and_its_count,
    a_rotated_key_works_through_its_grace,
    a_change_of_a_state_that_has_passed_is_not_made,
    a_batch_with_a_key_that_exists_is_issued_not_at_all,
    a_request_that_comes_again_issues_nothing,
    pages_hold_every_key_once,
    every_order_shows_every_key_once,
    keys_are_listed_by_state,
    a_claim_gives_a_key_once,
    what_withdraws_a_claim_keeps_its_link_from_working,
    a_search_finds_text_and_no_patterns,
    every_change_is_in_the_audit_trail_without_a_secret,
    single_requests_are_told_the_latest_first,
    reports_tell_the_same_page_by_page_as_at_once,
}

fn limit(requests: u32) -> DailyLimit {
    DailyLimit::new(requests).unwrap()
}

fn subject(requests: u32) -> QuotaSubject {
    QuotaSubject::new(KeyId::from("alice"), limit(requests))
}

fn new_key(text: &str, label: &str) -> NewKey {
    let (secret, label) = (SecretKey::parse(text).unwrap(), label.to_owned());
    NewKey { secret, label, daily_limit: limit(5), expires_at: None }
}

async fn issue(store: &impl Store, text: &str) -> KeyRecord {
    store.create(vec![new_key(text, "label")], Actor::default()).await.unwrap().remove(0)
}

async fn take(
    store: &impl Store,
    subject: &QuotaSubject,
    at: SystemTime,
) -> Option<Box<dyn Charge>> {
    match store.reserve(subject, at).await.unwrap() {
        Verdict::Admitted { mut charge, .. } => {
            poll_fn(|cx| charge.poll_committed(cx)).await.unwrap();
            // It may be asked again.
            poll_fn(|cx| charge.poll_committed(cx)).await.unwrap();
            Some(charge)
        }
        Verdict::Exhausted(standing) => {
            assert_eq!(standing.remaining(), Some(0));
            None
        }
        _ => unreachable!("there are two verdicts"),
    }
}

async fn change(store: &impl Store, key: &str, change: KeyChange) {
    let edit = KeyEdit::new(KeyRef::new(key), change, Actor::default());
    store.change(edit).await.unwrap().done().expect("a known key");
}

async fn concurrent_reservations_admit_exactly_the_limit(store: impl Store) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { take(&store, &subject(50), noon()).await.is_some() });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 50);
    assert_eq!(store.standing(&subject(50), noon()).await.unwrap().used, 50);
}

async fn an_unlimited_subject_is_always_admitted(store: impl Store) {
    for _ in 0..100 {
        assert!(take(&store, &subject(0), noon()).await.is_some());
    }
    let standing = store.standing(&subject(0), noon()).await.unwrap();
    assert_eq!((standing.used, standing.remaining()), (100, None));
}

async fn a_refunded_unit_can_be_used_again_once(store: impl Store) {
    let mut charge = take(&store, &subject(1), noon()).await.unwrap();
    assert!(charge.refund(Refund::Always));
    assert!(!charge.refund(Refund::Always), "a unit is given back once");
    poll_fn(|cx| charge.poll_committed(cx)).await.unwrap();
    assert!(take(&store, &subject(1), noon()).await.is_some());
    assert!(take(&store, &subject(1), noon()).await.is_none());
}

async fn a_refund_never_touches_a_day_that_was_reset(store: impl Store) {
    let record = issue(&store, "trial-key-manual-123").await;
    let subject = QuotaSubject::new(record.id.clone(), limit(1));
    let mut before = take(&store, &subject, noon()).await.unwrap();
    change(&store, record.id.as_str(), KeyChange::ResetUsage).await;
    assert!(take(&store, &subject, noon()).await.is_some());
    assert!(!before.refund(Refund::Always));
    assert!(take(&store, &subject, noon()).await.is_none());
}

async fn a_day_is_reset_as_often_as_asked_also_one_that_a_clock_set_back_has_left(
    store: impl Store,
) {
    let record = issue(&store, "trial-key-manual-123").await;
    let subject = QuotaSubject::new(record.id.clone(), limit(1));
    // It is noon whenever it is reset.
    let tomorrow = noon() + Duration::from_secs(24 * 3600);
    for at in [noon(), noon(), tomorrow, tomorrow] {
        take(&store, &subject, at).await.unwrap();
        assert!(take(&store, &subject, noon()).await.is_none());
        change(&store, record.id.as_str(), KeyChange::ResetUsage).await;
        assert_eq!(store.standing(&subject, noon()).await.unwrap().used, 0);
    }
    assert!(take(&store, &subject, noon()).await.is_some());
    assert!(take(&store, &subject, tomorrow).await.is_none(), "it is one day, and it is used up");
}

async fn the_next_day_begins_at_zero(store: impl Store) {
    let tomorrow = noon() + Duration::from_secs(12 * 3600);
    assert!(take(&store, &subject(1), noon()).await.is_some());
    assert!(take(&store, &subject(1), tomorrow - Duration::from_millis(1)).await.is_none());
    assert!(take(&store, &subject(1), tomorrow).await.is_some());
    assert!(take(&store, &subject(1), tomorrow).await.is_none());
}

async fn a_changed_limit_counts_from_the_next_reservation(store: impl Store) {
    assert!(take(&store, &subject(1), noon()).await.is_some());
    assert!(take(&store, &subject(1), noon()).await.is_none());
    assert!(take(&store, &subject(2), noon()).await.is_some());
    assert!(take(&store, &subject(1), noon()).await.is_none());
}

async fn an_issued_key_is_found_and_shown_masked(store: impl Store) {
    let record = issue(&store, "trial-alice-20261122-0123456789").await;
    assert_eq!(record.masked, "trial-alice-…6789");
    let key = SecretKey::parse("trial-alice-20261122-0123456789").unwrap();
    assert_eq!(store.find(&key).await.unwrap().unwrap().id, record.id);
    assert_eq!(store.find(&SecretKey::parse("other").unwrap()).await.unwrap(), None);
    let by_key = store.get(KeyRef::new(key.expose())).await.unwrap().unwrap();
    assert_eq!(by_key.record.masked, record.masked);
}

async fn a_deleted_key_is_unknown_at_once_and_its_history_stays(store: impl Store) {
    let record = issue(&store, "trial-key-manual-123").await;
    let key = SecretKey::parse("trial-key-manual-123").unwrap();
    take(&store, &QuotaSubject::from(&record), noon()).await.unwrap();
    assert!(store.find(&key).await.unwrap().is_some());
    change(&store, key.expose(), KeyChange::Delete).await;
    assert!(store.find(&key).await.unwrap().is_none());
    assert!(store.get(KeyRef::new(key.expose())).await.unwrap().is_none());
    let today = store.today();
    let report = store.report(UsageQuery::days(today, today)).await.unwrap();
    let row = &report.rows[0];
    assert_eq!((row.key_id.as_ref(), row.used), (Some(&record.id), Some(1)));
    assert_eq!((row.masked.as_ref(), row.label.as_deref()), (Some(&record.masked), Some("label")));
}

async fn a_rotated_key_keeps_its_record_and_its_count(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    take(&store, &QuotaSubject::from(&record), noon()).await.unwrap();
    let (old, new) = ("trial-key-first-123", "trial-key-second-123");
    let secret = SecretKey::parse(new).unwrap();
    change(&store, old, KeyChange::Rotate(Rotation { secret, grace: Duration::ZERO })).await;
    assert!(store.find(&SecretKey::parse(old).unwrap()).await.unwrap().is_none());
    let found = store.find(&SecretKey::parse(new).unwrap()).await.unwrap().unwrap();
    assert_eq!(found.id, record.id);
    assert_eq!(store.get(KeyRef::new(new)).await.unwrap().unwrap().used_today, 1);
}

async fn a_rotated_key_works_through_its_grace(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let secret = SecretKey::parse("trial-key-second-123").unwrap();
    let grace = Duration::from_secs(60);
    change(&store, record.id.as_str(), KeyChange::Rotate(Rotation { secret, grace })).await;
    for key in ["trial-key-first-123", "trial-key-second-123"] {
        let found = store.find(&SecretKey::parse(key).unwrap()).await.unwrap();
        assert_eq!(found.unwrap().id, record.id, "{key}");
        let named = store.get(KeyRef::new(key)).await.unwrap();
        assert_eq!(named.unwrap().record.id, record.id, "{key}");
    }
}

async fn a_change_of_a_state_that_has_passed_is_not_made(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let (id, by) = (record.id.as_str(), Actor::default);
    let read = async || store.get(KeyRef::new(id)).await.unwrap().unwrap();
    let first = read().await;
    take(&store, &QuotaSubject::from(&record), noon()).await.unwrap();
    assert_eq!(read().await.version(), first.version(), "figures are no part of it");
    assert_eq!(first.version().to_string().parse(), Ok(first.version()));

    let secret = SecretKey::parse("trial-key-second-123").unwrap();
    let patch = |label: &str| {
        let mut patch = KeyPatch::default();
        patch.label = Some(label.to_owned());
        KeyChange::Update(patch)
    };
    let changes = [
        patch("one"),
        patch("two"),
        KeyChange::Rotate(Rotation { secret, grace: Duration::ZERO }),
        KeyChange::ResetUsage,
        KeyChange::Delete,
    ];
    let mut passed = vec![];
    for change in changes {
        let present = read().await.version();
        let edit = |versions| KeyEdit::new(KeyRef::new(id), change.clone(), by()).only_at(versions);
        if !passed.is_empty() {
            let changed = store.change(edit(Some(passed.clone()))).await.unwrap();
            assert_eq!(changed, Changed::OtherVersion, "{change:?}");
            assert_eq!(read().await.version(), present);
        }
        let both = [passed.clone(), vec![present]].concat();
        assert!(store.change(edit(Some(both))).await.unwrap().done().is_some(), "{change:?}");
        if !matches!(change, KeyChange::ResetUsage) {
            passed.push(present);
        }
    }
    let edit = KeyEdit::new(KeyRef::new(id), KeyChange::Delete, by()).only_at(Some(passed));
    assert_eq!(store.change(edit).await.unwrap(), Changed::UnknownKey);
}

async fn a_batch_with_a_key_that_exists_is_issued_not_at_all(store: impl Store) {
    issue(&store, "trial-key-first-123").await;
    let batch = vec![new_key("trial-key-second-123", ""), new_key("trial-key-first-123", "")];
    let error = store.create(batch, Actor::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    let page = store.list(KeyPageQuery { limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(page.keys.len(), 1);
    issue(&store, "trial-key-second-123").await;
}

async fn a_request_that_comes_again_issues_nothing(store: impl Store) {
    let batch = |first: &str| vec![new_key(first, "a"), new_key(&format!("{first}-more"), "b")];
    let once = |token, name, request: &str| Once::new(token, name, request.as_bytes());
    let create = async |first, once| store.create_once(batch(first), once, Actor::default()).await;
    let first = create("trial-key-first-123", once("ops", "n", "two keys")).await.unwrap();
    let Created::Issued(records) = first else { panic!("{first:?}") };
    let ids = records.iter().map(|record| record.id.clone()).collect();
    let again = create("trial-key-second-123", once("ops", "n", "two keys")).await.unwrap();
    assert_eq!(again, Created::Before(ids));
    let other = create("trial-key-third-123", once("ops", "n", "three keys")).await.unwrap();
    assert_eq!(other, Created::OtherRequest);
    let key = SecretKey::parse("trial-key-second-123").unwrap();
    assert!(store.find(&key).await.unwrap().is_none());

    // What could not be issued may come again; another's name is another name.
    let taken = create("trial-key-first-123", once("ops", "m", "two keys")).await.unwrap_err();
    assert_eq!(taken.kind(), StoreErrorKind::Conflict);
    for (first, once) in [
        ("trial-key-fourth-123", once("ops", "m", "two keys")),
        ("trial-key-fifth-123", once("other", "n", "two keys")),
    ] {
        assert!(matches!(create(first, once).await.unwrap(), Created::Issued(_)), "{first}");
    }
}

async fn pages_hold_every_key_once(store: impl Store) {
    let keys = (0..25).map(|n| new_key(&format!("trial-key-number-{n}"), &n.to_string())).collect();
    store.create(keys, Actor::default()).await.unwrap();
    let (mut labels, mut after) = (Vec::new(), None);
    loop {
        let query = KeyPageQuery { limit: 10, after, ..Default::default() };
        let page = store.list(query).await.unwrap();
        labels.extend(page.keys.into_iter().map(|key| key.record.label));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(labels, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn every_order_shows_every_key_once(store: impl Store) {
    let new = |n: usize| NewKey {
        daily_limit: DailyLimit::new([0, 10, 20, 40][n % 4]).unwrap(),
        ..new_key(&format!("trial-key-number-{n}"), ["b", "A", "", "密", "a"][n % 5])
    };
    let keys = store.create((0..25).map(new).collect(), Actor::default()).await.unwrap();
    for (n, record) in keys.iter().enumerate() {
        for _ in 0..n % 3 {
            take(&store, &QuotaSubject::from(record), noon()).await.unwrap();
        }
    }
    for sort in KeySort::ALL {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let query = KeyPageQuery { limit: 4, after, sort, ..Default::default() };
            let page = store.list(query).await.unwrap();
            seen.extend(page.keys);
            let Some(next) = page.next else { break };
            assert!(next.fits(sort));
            after = Some(next.to_string().parse().unwrap());
        }
        let ids: HashSet<_> = seen.iter().map(|key| key.record.id.clone()).collect();
        assert_eq!((seen.len(), ids.len()), (25, 25), "{sort:?}");
        let label = |key: &KeySummary| key.record.label.to_ascii_lowercase();
        let share = |key: &KeySummary| match key.record.daily_limit.get() {
            0 => 0.0,
            limit => key.used_today as f64 / f64::from(limit),
        };
        let place = |key: &KeySummary| keys.iter().position(|other| other.id == key.record.id);
        assert!(
            seen.windows(2).all(|pair| match sort {
                KeySort::Issued => place(&pair[0]) < place(&pair[1]),
                KeySort::Newest => place(&pair[0]) > place(&pair[1]),
                KeySort::Label => label(&pair[0]) <= label(&pair[1]),
                _ => share(&pair[0]) >= share(&pair[1]),
            }),
            "{sort:?}"
        );
    }
}

async fn keys_are_listed_by_state(store: impl Store) {
    let records = {
        let new = |n: usize| new_key(&format!("trial-key-number-{n}"), &n.to_string());
        store.create((0..40).map(new).collect(), Actor::default()).await.unwrap()
    };
    let patch = async |at: usize, change: fn(&mut KeyPatch)| {
        let mut patch = KeyPatch::default();
        change(&mut patch);
        change_record(&store, &records[at], KeyChange::Update(patch)).await;
    };
    for at in [3, 17] {
        patch(at, |patch| patch.disabled = Some(true)).await;
    }
    for at in [5, 29, 30] {
        patch(at, |patch| patch.expires_at = Some(Some(noon()))).await;
    }
    patch(8, |patch| patch.daily_limit = DailyLimit::new(1).ok()).await;
    let one = store.get(KeyRef::new(records[8].id.as_str())).await.unwrap().unwrap().record;
    take(&store, &QuotaSubject::from(&one), noon()).await.unwrap();
    for (state, expected) in [
        (KeyState::Disabled, vec!["3", "17"]),
        (KeyState::Expired, vec!["5", "29", "30"]),
        (KeyState::Exhausted, vec!["8"]),
    ] {
        let query = KeyPageQuery { limit: 10, state: Some(state), ..Default::default() };
        let page = store.list(query).await.unwrap();
        let labels: Vec<_> = page.keys.iter().map(|key| &*key.record.label).collect();
        assert_eq!((labels, page.next), (expected, None), "{state:?}");
    }
    let query = KeyPageQuery { limit: 40, state: Some(KeyState::Active), ..Default::default() };
    assert_eq!(store.list(query).await.unwrap().keys.len(), 34);
}

async fn change_record(store: &impl Store, record: &KeyRecord, what: KeyChange) {
    change(store, record.id.as_str(), what).await;
}

async fn a_claim_gives_a_key_once(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let token = ClaimToken::generate();
    let offer = |token: &ClaimToken| {
        let until = noon() + Duration::from_secs(60);
        ClaimOffer::new(KeyRef::new(record.id.as_str()), token.clone(), until)
    };
    let offered = store.offer_claim(offer(&token), Actor::default()).await.unwrap().unwrap();
    let claim = offered.claim.unwrap();
    assert_eq!((claim.created_at, claim.opened_at), (noon(), None));
    let seen = store.claim(token.clone()).await.unwrap().unwrap();
    assert_eq!((seen.state, &*seen.label), (ClaimState::Open, "label"));
    assert_eq!(store.claim(ClaimToken::generate()).await.unwrap(), None);

    // Both ask at once.
    let secret = |text| SecretKey::parse(text).unwrap();
    let (one, other) = (secret("trial-key-second-123"), secret("trial-key-third-123"));
    let open =
        |secret: &SecretKey| store.open_claim(token.clone(), secret.clone(), Actor::default());
    let (first, second) = tokio::join!(open(&one), open(&other));
    let (won, lost) = match first.unwrap() {
        Opening::Opened(_) => (one, second.unwrap()),
        lost => (other, lost),
    };
    assert_eq!(lost, Opening::Refused(ClaimState::Opened(noon())));
    assert_eq!(store.find(&won).await.unwrap().unwrap().id, record.id);
    assert!(store.find(&secret("trial-key-first-123")).await.unwrap().is_none());
    let shown = store.get(KeyRef::new(record.id.as_str())).await.unwrap().unwrap();
    assert_eq!(shown.claim.unwrap().opened_at, Some(noon()));
    let trail = store.audit(AuditQuery { limit: 9, ..Default::default() }).await.unwrap();
    let actions: Vec<_> = trail.iter().map(|entry| &*entry.action).collect();
    assert_eq!(actions, ["key.claim.open", "key.claim.offer", "key.create"]);
    assert!(trail.iter().all(|entry| !entry.detail.contains(token.expose())));
}

async fn what_withdraws_a_claim_keeps_its_link_from_working(store: impl Store) {
    let secret = SecretKey::parse("trial-key-claimed-123").unwrap();
    for (n, what) in ["another", "rotation", "deletion", "disabled", "time"].into_iter().enumerate()
    {
        let record = issue(&store, &format!("trial-key-number-{n}")).await;
        let (token, by) = (ClaimToken::generate(), Actor::default);
        let offer = async |token: &ClaimToken, until| {
            let offer = ClaimOffer::new(KeyRef::new(record.id.as_str()), token.clone(), until);
            store.offer_claim(offer, by()).await.unwrap().unwrap();
        };
        let until = if what == "time" { noon() } else { noon() + Duration::from_secs(60) };
        offer(&token, until).await;
        match what {
            "another" => offer(&ClaimToken::generate(), until).await,
            "rotation" => {
                let secret = SecretKey::parse("trial-key-rotated-123").unwrap();
                let rotation = Rotation { secret, grace: Duration::ZERO };
                change_record(&store, &record, KeyChange::Rotate(rotation)).await;
            }
            "deletion" => change_record(&store, &record, KeyChange::Delete).await,
            "disabled" => {
                let mut patch = KeyPatch::default();
                patch.disabled = Some(true);
                change_record(&store, &record, KeyChange::Update(patch)).await;
            }
            _ => {}
        }
        let state = if what == "time" { ClaimState::Expired } else { ClaimState::Withdrawn };
        let opened = store.open_claim(token.clone(), secret.clone(), by()).await.unwrap();
        assert_eq!(opened, Opening::Refused(state), "{what}");
        assert_eq!(store.claim(token).await.unwrap().unwrap().state, state, "{what}");
        assert!(store.find(&secret).await.unwrap().is_none(), "{what}");
    }
}

async fn a_search_finds_text_and_no_patterns(store: impl Store) {
    let keys = vec![
        new_key("trial-key-number-1", "用户A"),
        new_key("trial-key-number-2", "100% sure_thing"),
        new_key("trial-key-number-3", "100 surefthing"),
    ];
    store.create(keys, Actor::default()).await.unwrap();
    let hash = SecretKey::parse("trial-key-number-2").unwrap().hash().to_hex();
    for (search, found) in [
        ("用户", 1),
        ("0% SURE_", 1),
        ("%", 1),
        ("100", 2),
        ("nobody", 0),
        ("trial-key-number-3", 1),
        (&*hash, 1),
        (&hash[..8], 1),
        (&hash.to_uppercase()[..8], 1),
        (&hash[..7], 0),
    ] {
        let query =
            KeyPageQuery { limit: 10, search: Some(search.to_owned()), ..Default::default() };
        assert_eq!(store.list(query).await.unwrap().keys.len(), found, "{search}");
    }
}

async fn every_change_is_in_the_audit_trail_without_a_secret(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let id = record.id.as_str();
    let mut patch = KeyPatch::default();
    patch.daily_limit = Some(limit(9));
    change(&store, id, KeyChange::Update(patch)).await;
    let secret = SecretKey::parse("trial-key-second-123").unwrap();
    change(&store, id, KeyChange::Rotate(Rotation { secret, grace: Duration::ZERO })).await;
    change(&store, id, KeyChange::ResetUsage).await;
    change(&store, id, KeyChange::Delete).await;
    let query = AuditQuery { limit: 10, key_id: Some(record.id.clone()), ..Default::default() };
    let entries = store.audit(query).await.unwrap();
    let actions: Vec<_> = entries.iter().rev().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        ["key.create", "key.update", "key.rotate", "key.reset_usage", "key.delete"]
    );
    assert_eq!(entries[3].detail, r#"{"daily_limit":{"after":9,"before":5}}"#);
    assert!(entries.iter().all(|entry| entry.at == noon()));
    assert!(!format!("{entries:?}").contains("first-123"));
    assert!(!format!("{entries:?}").contains("second-123"));
}

async fn a_refund_after_midnight_does_not_touch_the_new_day(store: impl Store) {
    let tomorrow = noon() + Duration::from_secs(24 * 3600);
    let subject = subject(2);
    let mut early = take(&store, &subject, noon()).await.unwrap();
    let mut late = take(&store, &subject, noon()).await.unwrap();
    // Before the first unit of the new day is taken, and after it.
    assert_eq!(store.standing(&subject, tomorrow).await.unwrap().used, 0);
    assert!(!early.refund(Refund::Always));
    assert!(take(&store, &subject, tomorrow).await.is_some());
    assert!(!late.refund(Refund::Always));
    assert_eq!(store.standing(&subject, tomorrow).await.unwrap().used, 1);
    assert!(take(&store, &subject, tomorrow).await.is_some());
    assert!(take(&store, &subject, tomorrow).await.is_none());
}

async fn single_requests_are_told_the_latest_first(store: impl Store) {
    let mut events = Vec::new();
    for number in 0..6_u64 {
        let mut event = UsageEvent::new(noon());
        event.key_id = Some(KeyId::from(if number % 2 == 0 { "alice" } else { "bob" }));
        event.path = "/v1/chat/completions".to_owned();
        event.status = Some(200);
        event.bytes_in = number;
        event.duration = Duration::from_micros(7);
        event.outcome = Outcome::Succeeded;
        if number == 2 {
            event.outcome = Outcome::Rejected("insufficient_quota");
        } else {
            let mut tokens = Tokens::new(2, 3, 5);
            tokens.cached = Some(1);
            event.tokens = Some(tokens);
        }
        store.record(event.clone());
        events.push(RequestRow::new(0, &event).unwrap());
    }
    let told = async |query: RequestQuery| -> Vec<RequestRow> {
        let rows = store.requests(query).await.unwrap();
        assert!(rows.is_sorted_by(|a, b| a.number > b.number), "{rows:?}");
        rows
    };
    let numbers =
        |rows: &[RequestRow]| -> Vec<u64> { rows.iter().map(|row| row.bytes_in).collect() };
    let all = told(RequestQuery::latest(10)).await;
    assert_eq!(numbers(&all), [5, 4, 3, 2, 1, 0]);
    for (row, event) in all.iter().rev().zip(&events) {
        let mut expected = event.clone();
        expected.number = row.number;
        assert_eq!(*row, expected);
    }
    let alice = told(RequestQuery::latest(10).key(KeyId::from("alice"))).await;
    assert_eq!(numbers(&alice), [4, 2, 0]);
    assert_eq!(numbers(&told(RequestQuery::latest(10).failed_only()).await), [2]);
    assert_eq!(numbers(&told(RequestQuery::latest(2).before(all[1].number)).await), [3, 2]);
}

async fn reports_tell_the_same_page_by_page_as_at_once(store: impl Store) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let keys = (0..6).map(|n| new_key(&format!("trial-key-number-{n}"), &n.to_string())).collect();
    let records = store.create(keys, Actor::default()).await.unwrap();
    for (n, record) in records.iter().enumerate().take(5) {
        for day in 0..3 {
            for model in ["a", "b", ""].into_iter().take(1 + (n + day) % 3) {
                let mut event = UsageEvent::new(noon() - DAY * day as u32);
                event.key_id = Some(record.id.clone());
                event.outcome = Outcome::Succeeded;
                event.model = Some(model.to_owned()).filter(|model| !model.is_empty());
                (0..=n).for_each(|_| store.record(event.clone()));
            }
        }
    }
    take(&store, &QuotaSubject::from(&records[1]), noon()).await.unwrap();
    let (to, from) = (store.today(), "2026-11-20".parse().unwrap());
    let bools = [false, true];
    let groupings = bools.into_iter().flat_map(|day| bools.map(|model| (day, model)));
    for (day, model) in groupings {
        let query = UsageQuery::days(from, to).group_by(GroupBy { key: true, day, model });
        let told = async |page| store.report(query.clone().page(page)).await.unwrap();
        let all = told(Page::all()).await;
        assert_eq!((all.active_keys, all.total_requests), (5, 90), "{query:?}");
        for limit in [1, 2, 4, 100] {
            let (mut busiest, mut by_id, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let page = told(Page::Busiest { skip: busiest.len(), limit }).await;
                busiest.extend(page.rows);
                if !page.has_more {
                    break;
                }
            }
            assert_eq!(busiest, all.rows, "{query:?} {limit}");
            loop {
                let page = told(Page::ById { after, limit }).await;
                after = page.rows.last().map(|row| (row.day, row.key_id.clone().unwrap()));
                by_id.extend(page.rows);
                if !page.has_more {
                    break;
                }
            }
            let mut sorted = all.rows.clone();
            sorted.sort_by_key(|row| (Reverse(row.day), row.key_id.clone(), row.model.clone()));
            assert_eq!(by_id, sorted, "{query:?} {limit}");
        }
    }
    let today = store.report(UsageQuery::days(to, to).with_idle()).await.unwrap();
    let last = today.rows.last().unwrap();
    assert_eq!((today.rows.len(), today.active_keys), (6, 5));
    assert_eq!((last.key_id.as_ref(), last.used), (Some(&records[5].id), Some(0)));
}
