//! The guarantees of the store traits, tested with every back end.

/// Runs each promise of a module against every back end.
macro_rules! promises {
    ($($promise:ident,)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise($crate::conformance::in_memory()).await;
            })*
        }
        mod custom {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise($crate::conformance::in_hash_maps()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let directory = tempfile::tempdir().unwrap();
                let store = $crate::conformance::in_sqlite(directory.path());
                super::$promise(store.clone()).await;
                store.close().await.unwrap();
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs PostgreSQL"]
            async fn $promise() {
                let directory = tempfile::tempdir().unwrap();
                let store = $crate::conformance::in_postgres(directory.path()).await;
                super::$promise(store.clone()).await;
                store.close().await.unwrap();
            })*
        }
    };
}

mod claims;
#[path = "../../../examples/custom_admin_store.rs"]
mod custom_admin_store;
mod keys;
mod lists;
mod quota;
mod reports;

use std::{
    future::poll_fn,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tower_quota::{
    admin::store::{
        Actor, AdminStore, ChangeOutcome, ClaimStore, KeyChange, KeyEdit, KeyRef, NewKey,
    },
    clock::{Calendar, Clock},
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::{
        Demand, KeyStore, QuotaStore, QuotaSubject, Reservation, ReserveOutcome, UsageSink,
        memory::MemoryStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
};

use crate::common::postgres::Postgres;

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

fn in_memory() -> MemoryStore {
    MemoryStore::with_time(Calendar::utc(), Fixed(noon()))
}

fn in_hash_maps() -> custom_admin_store::HashStore {
    custom_admin_store::HashStore::new(Calendar::utc(), Fixed(noon()))
}

#[test]
fn the_example_issues_a_key_and_uses_it_up() {
    custom_admin_store::main().unwrap();
}

fn in_sqlite(directory: &Path) -> SqliteStore {
    let options = SqliteOptions::new(directory.join("quota.db")).retention_days(1);
    SqliteStore::open(options.clock(Fixed(noon()))).unwrap()
}

async fn in_postgres(directory: &Path) -> PostgresStore {
    let url = Postgres::shared().create_database();
    let options = PostgresOptions::new(&url, directory.join("quota")).unwrap().retention_days(1);
    PostgresStore::open(options.connections(2).clock(Fixed(noon()))).await.unwrap()
}

fn limit(requests: u32) -> Limit {
    Limit::Units(requests.into())
}

fn subject(requests: u32) -> QuotaSubject {
    QuotaSubject::new(KeyId::from("alice"), limit(requests))
}

fn new_key(text: &str, label: &str) -> NewKey {
    limited_key(text, label, limit(5))
}

fn limited_key(text: &str, label: &str, limit: Limit) -> NewKey {
    let mut record = KeyRecord::new(KeyId::generate(), limit);
    record.label = label.to_owned();
    NewKey::new(SecretKey::parse(text).unwrap(), record).unwrap()
}

async fn issue(store: &impl Store, text: &str) -> KeyRecord {
    store.create(vec![new_key(text, "label")], Actor::default()).await.unwrap().remove(0)
}

fn demand(subject: &QuotaSubject, at: SystemTime) -> Demand {
    Demand::new(subject.id.clone(), subject.limit, at)
}

async fn take(
    store: &impl Store,
    subject: &QuotaSubject,
    at: SystemTime,
) -> Option<Box<dyn Reservation>> {
    match store.reserve(&demand(subject, at)).await.unwrap() {
        ReserveOutcome::Admitted { mut reservation, .. } => {
            poll_fn(|cx| reservation.poll_committed(cx)).await.unwrap();
            // It may be polled again.
            poll_fn(|cx| reservation.poll_committed(cx)).await.unwrap();
            Some(reservation)
        }
        ReserveOutcome::Exhausted(status) => {
            assert_eq!(status.remaining(), Some(0));
            None
        }
        _ => unreachable!("there are two outcomes"),
    }
}

async fn change(store: &impl Store, key: &str, change: KeyChange) {
    let edit = KeyEdit::new(KeyRef::new(key), change, Actor::default());
    let outcome = store.change(edit).await.unwrap();
    assert!(matches!(outcome, ChangeOutcome::Done(_)), "{outcome:?}");
}

async fn change_record(store: &impl Store, record: &KeyRecord, what: KeyChange) {
    change(store, record.id.as_str(), what).await;
}
