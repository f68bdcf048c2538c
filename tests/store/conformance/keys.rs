//! Keys, their changes, and the trail of these.

use std::time::Duration;

use tower_quota::{
    admin::store::{
        Actor, AdminStore, AuditQuery, ChangeOutcome, CreateOutcome, IdempotencyKey, ImportOutcome,
        ImportedKey, KeyChange, KeyEdit, KeyPageQuery, KeyRef, NewKey, Rotation,
    },
    error::StoreErrorKind,
    key::{KeyId, KeyLimit, KeyPatch, KeyRecord, Limit, SecretKey},
    store::{KeyStore, QuotaSubject, memory::MemoryStore, report::UsageQuery},
};

use super::{Store, change, in_sqlite, issue, limit, new_key, noon, take};

promises! {
    an_issued_key_is_found_and_shown_masked,
    a_deleted_key_is_unknown_at_once_and_its_history_is_kept,
    a_rotated_key_keeps_its_record_and_its_count,
    a_rotated_secret_is_valid_during_its_grace_period,
    each_limit_of_a_key_is_stored_and_changed_by_itself,
    a_change_to_another_version_of_a_key_is_rejected,
    a_batch_with_an_existing_key_issues_no_keys,
    a_key_of_a_failed_batch_can_be_imported,
    a_retried_request_issues_no_keys,
    every_change_is_in_the_audit_trail_without_a_secret,
}

#[tokio::test]
async fn a_limit_of_no_units_is_rejected_and_never_stored_as_unlimited() {
    let directory = tempfile::tempdir().unwrap();
    let (memory, sqlite) = (MemoryStore::new(), in_sqlite(directory.path()));
    let secret = SecretKey::parse("trial-key-manual-456").unwrap();
    for limit in [Limit::Units(0), Limit::Units(Limit::MAX_STORED + 1)] {
        let record = || KeyRecord::new(KeyId::generate(), limit);
        assert!(NewKey::new(secret.clone(), record()).is_err());
        assert!(ImportedKey::new(secret.hash(), record()).is_err());
        assert!(KeyPatch::default().daily_limit(limit).is_err());
        let misconfigured = StoreErrorKind::KeyMisconfigured;
        assert_eq!(memory.insert(&secret, record()).unwrap_err().kind(), misconfigured);
        assert_eq!(sqlite.insert(&secret, record()).await.unwrap_err().kind(), misconfigured);
    }
}

#[tokio::test]
async fn imported_units_of_today_count_also_if_the_key_was_presented_before() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_sqlite(directory.path());
    let key = SecretKey::parse("trial-key-known-123").unwrap();
    let id = issue(&store, key.expose()).await.id;
    assert!(store.find(&key).await.unwrap().is_some());
    let record = KeyRecord::new(KeyId::generate(), limit(10));
    let imported = ImportedKey::new(key.hash(), record).unwrap();
    let imported = imported.with_used(vec![(store.today(), 7)]);
    for (dry_run, left) in [(true, 0), (false, 3)] {
        let outcomes = store.import(vec![imported.clone()], dry_run, Actor::default()).await;
        assert!(matches!(outcomes.unwrap()[..], [ImportOutcome::Unchanged(_)]));
        for _ in 0..left {
            assert!(
                take(&store, &QuotaSubject::new(id.clone(), limit(10)), noon()).await.is_some()
            );
        }
    }
    assert!(take(&store, &QuotaSubject::new(id, limit(10)), noon()).await.is_none());
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

async fn a_deleted_key_is_unknown_at_once_and_its_history_is_kept(store: impl Store) {
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
    change(&store, old, KeyChange::Rotate(Rotation::new(secret, Duration::ZERO))).await;
    assert!(store.find(&SecretKey::parse(old).unwrap()).await.unwrap().is_none());
    let found = store.find(&SecretKey::parse(new).unwrap()).await.unwrap().unwrap();
    assert_eq!(found.id, record.id);
    assert_eq!(store.get(KeyRef::new(new)).await.unwrap().unwrap().used_today, 1);
}

async fn a_rotated_secret_is_valid_during_its_grace_period(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let secret = SecretKey::parse("trial-key-second-123").unwrap();
    let grace = Duration::from_secs(60);
    change(&store, record.id.as_str(), KeyChange::Rotate(Rotation::new(secret, grace))).await;
    for key in ["trial-key-first-123", "trial-key-second-123"] {
        let found = store.find(&SecretKey::parse(key).unwrap()).await.unwrap();
        assert_eq!(found.unwrap().id, record.id, "{key}");
        let named = store.get(KeyRef::new(key)).await.unwrap();
        assert_eq!(named.unwrap().record.id, record.id, "{key}");
    }
}

async fn each_limit_of_a_key_is_stored_and_changed_by_itself(store: impl Store) {
    let secret = SecretKey::parse("trial-key-first-123").unwrap();
    let mut record = KeyRecord::new(KeyId::generate(), limit(9));
    for (number, of) in (1..).zip(KeyLimit::ALL) {
        record.limits = record.limits.with(of, limit(number));
    }
    let key = NewKey::new(secret.clone(), record.clone()).unwrap();
    store.create(vec![key], Actor::default()).await.unwrap();
    let mut expected = record.limits;
    for (number, of) in (11..).zip(KeyLimit::ALL) {
        let found = store.find(&secret).await.unwrap().unwrap();
        let listed = store.get(KeyRef::new(record.id.as_str())).await.unwrap().unwrap();
        assert_eq!((found.limits, listed.record.limits), (expected, expected));
        let patch = KeyPatch::default().limit(of, limit(number)).unwrap();
        change(&store, record.id.as_str(), KeyChange::Update(patch)).await;
        let changed = store.get(KeyRef::new(record.id.as_str())).await.unwrap().unwrap();
        assert_ne!(changed.version(), listed.version(), "{}", of.name());
        expected = expected.with(of, limit(number));
    }
    let patch = KeyPatch::default().limit(KeyLimit::Minute, Limit::Unlimited).unwrap();
    change(&store, record.id.as_str(), KeyChange::Update(patch)).await;
    let found = store.find(&secret).await.unwrap().unwrap();
    assert_eq!(found.limits, expected.with(KeyLimit::Minute, Limit::Unlimited));
    assert!(KeyPatch::default().limit(KeyLimit::Monthly, Limit::Units(0)).is_err());
}

async fn a_change_to_another_version_of_a_key_is_rejected(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let (id, by) = (record.id.as_str(), Actor::default);
    let read = async || store.get(KeyRef::new(id)).await.unwrap().unwrap();
    let first = read().await;
    take(&store, &QuotaSubject::from(&record), noon()).await.unwrap();
    assert_eq!(read().await.version(), first.version(), "usage does not change the version");
    assert_eq!(first.version().to_string().parse(), Ok(first.version()));

    let secret = SecretKey::parse("trial-key-second-123").unwrap();
    let patch = |label: &str| KeyChange::Update(KeyPatch::default().label(label));
    let changes = [
        patch("one"),
        patch("two"),
        KeyChange::Rotate(Rotation::new(secret, Duration::ZERO)),
        KeyChange::ResetUsage,
        KeyChange::Delete,
    ];
    let mut passed = vec![];
    for change in changes {
        let present = read().await.version();
        let edit =
            |versions| KeyEdit::new(KeyRef::new(id), change.clone(), by()).if_match(versions);
        if !passed.is_empty() {
            let changed = store.change(edit(Some(passed.clone()))).await.unwrap();
            assert_eq!(changed, ChangeOutcome::VersionMismatch, "{change:?}");
            assert_eq!(read().await.version(), present);
        }
        let both = [passed.clone(), vec![present]].concat();
        let outcome = store.change(edit(Some(both))).await.unwrap();
        assert!(matches!(outcome, ChangeOutcome::Done(_)), "{change:?}: {outcome:?}");
        if !matches!(change, KeyChange::ResetUsage) {
            passed.push(present);
        }
    }
    let edit = KeyEdit::new(KeyRef::new(id), KeyChange::Delete, by()).if_match(Some(passed));
    assert_eq!(store.change(edit).await.unwrap(), ChangeOutcome::UnknownKey);
}

async fn a_batch_with_an_existing_key_issues_no_keys(store: impl Store) {
    issue(&store, "trial-key-first-123").await;
    let batch = vec![new_key("trial-key-second-123", ""), new_key("trial-key-first-123", "")];
    let error = store.create(batch, Actor::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    let page = store.list(KeyPageQuery::first(10)).await.unwrap();
    assert_eq!(page.keys.len(), 1);
    issue(&store, "trial-key-second-123").await;
}

async fn a_key_of_a_failed_batch_can_be_imported(store: impl Store) {
    issue(&store, "trial-key-first-123").await;
    let batch = vec![new_key("trial-key-second-123", ""), new_key("trial-key-first-123", "")];
    assert!(store.create(batch, Actor::default()).await.is_err());
    let key = SecretKey::parse("trial-key-second-123").unwrap();
    let record = KeyRecord::new(KeyId::generate(), limit(9));
    let imported = ImportedKey::new(key.hash(), record).unwrap();
    let outcomes = store.import(vec![imported], false, Actor::default()).await.unwrap();
    assert!(matches!(outcomes[..], [ImportOutcome::New(_)]), "{outcomes:?}");
    assert!(store.find(&key).await.unwrap().is_some());
}

async fn a_retried_request_issues_no_keys(store: impl Store) {
    let batch = |first: &str| vec![new_key(first, "a"), new_key(&format!("{first}-more"), "b")];
    let once = |token, name, request: &str| IdempotencyKey::new(token, name, request.as_bytes());
    let create = async |first, once| {
        store.create_once(batch(first), once, Actor::default(), Box::new(|_| ())).await
    };
    let first = create("trial-key-first-123", once("ops", "n", "two keys")).await.unwrap();
    let CreateOutcome::Issued(records) = first else { panic!("{first:?}") };
    let ids = records.iter().map(|record| record.id.clone()).collect();
    let again = create("trial-key-second-123", once("ops", "n", "two keys")).await.unwrap();
    assert_eq!(again, CreateOutcome::Replayed(ids));
    let other = create("trial-key-third-123", once("ops", "n", "three keys")).await.unwrap();
    assert_eq!(other, CreateOutcome::OtherRequest);
    let key = SecretKey::parse("trial-key-second-123").unwrap();
    assert!(store.find(&key).await.unwrap().is_none());

    // A request that failed may be retried, and the same name of another token is another key.
    let taken = create("trial-key-first-123", once("ops", "m", "two keys")).await.unwrap_err();
    assert_eq!(taken.kind(), StoreErrorKind::Conflict);
    for (first, once) in [
        ("trial-key-fourth-123", once("ops", "m", "two keys")),
        ("trial-key-fifth-123", once("other", "n", "two keys")),
    ] {
        assert!(matches!(create(first, once).await.unwrap(), CreateOutcome::Issued(_)), "{first}");
    }
}

async fn every_change_is_in_the_audit_trail_without_a_secret(store: impl Store) {
    let record = issue(&store, "trial-key-first-123").await;
    let id = record.id.as_str();
    let patch = KeyPatch::default().daily_limit(limit(9)).unwrap();
    change(&store, id, KeyChange::Update(patch)).await;
    let secret = SecretKey::parse("trial-key-second-123").unwrap();
    change(&store, id, KeyChange::Rotate(Rotation::new(secret, Duration::ZERO))).await;
    change(&store, id, KeyChange::ResetUsage).await;
    change(&store, id, KeyChange::Delete).await;
    let mut query = AuditQuery::latest(10);
    query.key_id = Some(record.id.clone());
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
