//! The example of a store for keys and quotas.

#[path = "../../examples/custom_store.rs"]
mod example;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use example::HashStore;
use tokio::task::JoinSet;
use tower_quota::{
    key::{KeyId, Limit},
    store::{Demand, QuotaStore, Refund, Reservation, ReserveOutcome},
};

/// 2026-11-22T12:00:00Z.
fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_348_800)
}

fn demand(amount: u64) -> Demand {
    Demand::new(KeyId::from("alice"), Limit::Units(50), noon()).amount(amount)
}

async fn take(store: &HashStore, demand: &Demand) -> Option<Box<dyn Reservation>> {
    match store.reserve(demand).await.unwrap() {
        ReserveOutcome::Admitted { reservation, .. } => Some(reservation),
        _ => None,
    }
}

async fn used(store: &HashStore) -> u64 {
    store.status(&demand(1)).await.unwrap().used
}

#[test]
fn the_example_uses_a_key_up() {
    example::main().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_reservations_admit_as_many_as_fit() {
    let (store, mut tasks) = (HashStore::default(), JoinSet::new());
    for _ in 0..40 {
        let store = store.clone();
        tasks.spawn(async move { take(&store, &demand(3)).await.is_some() });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!((admitted, used(&store).await), (50 / 3, 48));
    let mut tomorrow = demand(50);
    tomorrow.at += Duration::from_secs(24 * 60 * 60);
    assert!(take(&store, &tomorrow).await.is_some());
}

#[tokio::test]
async fn a_reservation_charges_what_was_used_and_comes_back_once() {
    let store = HashStore::default();
    let mut reservation = take(&store, &demand(10)).await.unwrap();
    reservation.settle(70).await.unwrap();
    assert_eq!(used(&store).await, 70);
    reservation.settle(4).await.unwrap();
    assert_eq!(used(&store).await, 4);
    assert!(reservation.refund(Refund::Always).await.unwrap());
    reservation.settle(4).await.unwrap();
    assert!(!reservation.refund(Refund::Always).await.unwrap());
    assert_eq!(used(&store).await, 0);
}

#[tokio::test]
async fn provoked_refunds_are_at_most_the_limit() {
    let store = HashStore::default();
    for expected in [true, true, false] {
        let mut reservation = take(&store, &demand(25)).await.unwrap();
        assert_eq!(reservation.refund(Refund::UpToLimit).await.unwrap(), expected);
    }
    assert_eq!(used(&store).await, 25);
}
