//! Guarantees of `QuotaStore`.

use std::{future::poll_fn, time::Duration};

use tower_quota::{
    admin::store::KeyChange,
    clock::{Calendar, Period},
    key::Limit,
    store::{
        Demand, Quota, QuotaSubject, Refund, Reservation, ReserveAllOutcome, ReserveOutcome,
        report::UsageQuery,
    },
};

use crate::common::Random;

use super::{Store, change, demand, issue, limit, noon, subject, take};

promises! {
    concurrent_reservations_admit_exactly_the_limit,
    an_unlimited_subject_is_always_admitted,
    a_limit_of_no_units_admits_nothing,
    a_refunded_unit_can_be_used_again_once,
    a_refund_does_not_change_a_day_that_was_reset,
    a_refund_after_midnight_does_not_change_the_new_day,
    a_day_can_be_reset_repeatedly_also_after_the_clock_was_set_back,
    the_next_day_begins_at_zero,
    a_changed_limit_applies_to_the_next_reservation,
    concurrent_reservations_of_an_amount_admit_as_many_as_fit,
    actual_use_is_charged_even_beyond_the_limit,
    random_amounts_are_counted_exactly,
    quotas_of_a_subject_are_independent,
    units_of_several_quotas_are_reserved_together_or_not_at_all,
    concurrent_reservations_under_several_quotas_admit_as_many_as_the_smallest_allows,
    two_demands_on_one_quota_of_a_subject_are_rejected,
    a_month_has_one_limit_and_resets_with_the_next,
    a_reset_applies_to_every_quota_of_a_key,
    amounts_of_any_size_are_counted_or_exhaust_the_quota,
}

async fn concurrent_reservations_admit_exactly_the_limit(store: impl Store) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { take(&store, &subject(50), noon()).await.is_some() });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 50);
    assert_eq!(store.status(&demand(&subject(50), noon())).await.unwrap().used, 50);
}

async fn a_limit_of_no_units_admits_nothing(store: impl Store) {
    assert!(take(&store, &subject(0), noon()).await.is_none());
}

async fn an_unlimited_subject_is_always_admitted(store: impl Store) {
    let unlimited = QuotaSubject::new("alice".into(), Limit::Unlimited);
    for _ in 0..100 {
        assert!(take(&store, &unlimited, noon()).await.is_some());
    }
    let status = store.status(&demand(&unlimited, noon())).await.unwrap();
    assert_eq!((status.used, status.remaining()), (100, None));
}

async fn a_refunded_unit_can_be_used_again_once(store: impl Store) {
    let mut reservation = take(&store, &subject(1), noon()).await.unwrap();
    assert!(reservation.refund(Refund::Always).await.unwrap());
    assert!(!reservation.refund(Refund::Always).await.unwrap(), "a unit is refunded only once");
    poll_fn(|cx| reservation.poll_committed(cx)).await.unwrap();
    assert!(take(&store, &subject(1), noon()).await.is_some());
    assert!(take(&store, &subject(1), noon()).await.is_none());
}

async fn a_refund_does_not_change_a_day_that_was_reset(store: impl Store) {
    let record = issue(&store, "trial-key-manual-123").await;
    let subject = QuotaSubject::new(record.id.clone(), limit(1));
    let mut before = take(&store, &subject, noon()).await.unwrap();
    change(&store, record.id.as_str(), KeyChange::ResetUsage).await;
    assert!(take(&store, &subject, noon()).await.is_some());
    assert!(!before.refund(Refund::Always).await.unwrap());
    assert!(take(&store, &subject, noon()).await.is_none());
}

async fn a_refund_after_midnight_does_not_change_the_new_day(store: impl Store) {
    let tomorrow = noon() + Duration::from_secs(24 * 3600);
    let subject = subject(2);
    let mut early = take(&store, &subject, noon()).await.unwrap();
    let mut late = take(&store, &subject, noon()).await.unwrap();
    // Before the first unit of the new day is taken, and after it.
    assert_eq!(store.status(&demand(&subject, tomorrow)).await.unwrap().used, 0);
    assert!(!early.refund(Refund::Always).await.unwrap());
    assert!(take(&store, &subject, tomorrow).await.is_some());
    assert!(!late.refund(Refund::Always).await.unwrap());
    assert_eq!(store.status(&demand(&subject, tomorrow)).await.unwrap().used, 1);
    assert!(take(&store, &subject, tomorrow).await.is_some());
    assert!(take(&store, &subject, tomorrow).await.is_none());
}

async fn a_day_can_be_reset_repeatedly_also_after_the_clock_was_set_back(store: impl Store) {
    let record = issue(&store, "trial-key-manual-123").await;
    let subject = QuotaSubject::new(record.id.clone(), limit(1));
    // The store's clock, which the reset uses, stays at noon.
    let tomorrow = noon() + Duration::from_secs(24 * 3600);
    for at in [noon(), noon(), tomorrow, tomorrow] {
        take(&store, &subject, at).await.unwrap();
        assert!(take(&store, &subject, noon()).await.is_none());
        change(&store, record.id.as_str(), KeyChange::ResetUsage).await;
        assert_eq!(store.status(&demand(&subject, noon())).await.unwrap().used, 0);
    }
    assert!(take(&store, &subject, noon()).await.is_some());
    assert!(take(&store, &subject, noon()).await.is_none());
    // The reset returned to the day of the clock, so that tomorrow is a new day.
    assert!(take(&store, &subject, tomorrow).await.is_some());
    assert!(take(&store, &subject, noon()).await.is_none(), "the day has turned");
}

async fn the_next_day_begins_at_zero(store: impl Store) {
    let tomorrow = noon() + Duration::from_secs(12 * 3600);
    assert!(take(&store, &subject(1), noon()).await.is_some());
    assert!(take(&store, &subject(1), tomorrow - Duration::from_millis(1)).await.is_none());
    assert!(take(&store, &subject(1), tomorrow).await.is_some());
    assert!(take(&store, &subject(1), tomorrow).await.is_none());
}

async fn a_changed_limit_applies_to_the_next_reservation(store: impl Store) {
    assert!(take(&store, &subject(1), noon()).await.is_some());
    assert!(take(&store, &subject(1), noon()).await.is_none());
    assert!(take(&store, &subject(2), noon()).await.is_some());
    assert!(take(&store, &subject(1), noon()).await.is_none());
}

async fn take_amount(store: &impl Store, demand: &Demand) -> Option<Box<dyn Reservation>> {
    match store.reserve(demand).await.unwrap() {
        ReserveOutcome::Admitted { mut reservation, .. } => {
            poll_fn(|cx| reservation.poll_committed(cx)).await.unwrap();
            Some(reservation)
        }
        _ => None,
    }
}

async fn concurrent_reservations_of_an_amount_admit_as_many_as_fit(store: impl Store) {
    let demand = demand(&subject(50), noon());
    take_amount(&store, &demand.clone().amount(3)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, demand) = (store.clone(), demand.clone().amount(4));
        tasks.spawn(async move { take_amount(&store, &demand).await.is_some() });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 47 / 4);
    assert_eq!(store.status(&demand).await.unwrap().remaining(), Some(3));
    assert!(take_amount(&store, &demand.clone().amount(4)).await.is_none());
    assert!(take_amount(&store, &demand.amount(3)).await.is_some());
}

async fn actual_use_is_charged_even_beyond_the_limit(store: impl Store) {
    let demand = demand(&subject(10), noon()).amount(5);
    let mut less = take_amount(&store, &demand).await.unwrap();
    less.settle(2).await.unwrap();
    assert_eq!(store.status(&demand).await.unwrap().used, 2);
    let mut more = take_amount(&store, &demand).await.unwrap();
    more.settle(50).await.unwrap();
    let status = store.status(&demand).await.unwrap();
    assert_eq!((status.used, status.remaining()), (52, Some(0)));
    assert!(take_amount(&store, &demand.clone().amount(1)).await.is_none());
    // What is settled can be given back, once.
    assert!(more.refund(Refund::Always).await.unwrap());
    more.settle(7).await.unwrap();
    assert_eq!(store.status(&demand).await.unwrap().used, 2);
}

/// Reservations, corrections and refunds of random amounts, in random order. The engine's simulation adds
/// kills and losses of power.
async fn random_amounts_are_counted_exactly(store: impl Store) {
    const LIMIT: u32 = 60;
    let mut random = Random::seeded("random amounts");
    let demand = demand(&subject(LIMIT), noon());
    let (mut used, mut open) = (0, Vec::new());
    for _ in 0..500 {
        let amount = random.below(20);
        let picked = (!open.is_empty()).then(|| random.below(open.len() as u64) as usize);
        match (random.below(4), picked) {
            (0, Some(picked)) => {
                let (mut reservation, held): (Box<dyn Reservation>, u64) = open.swap_remove(picked);
                assert!(reservation.refund(Refund::Always).await.unwrap());
                used -= held;
            }
            (1, Some(picked)) => {
                let (reservation, held) = &mut open[picked];
                reservation.settle(amount).await.unwrap();
                used = used - std::mem::replace(held, amount) + amount;
            }
            _ => {
                let taken = take_amount(&store, &demand.clone().amount(amount)).await;
                assert_eq!(taken.is_some(), used + amount <= u64::from(LIMIT), "{used} + {amount}");
                if let Some(reservation) = taken {
                    open.push((reservation, amount));
                    used += amount;
                }
            }
        }
        assert_eq!(store.status(&demand).await.unwrap().used, used);
    }
}

async fn quotas_of_a_subject_are_independent(store: impl Store) {
    let daily = demand(&subject(1), noon());
    let tokens = daily.clone().quota(Quota::new("tokens", Period::Day).unwrap());
    assert!(take_amount(&store, &daily).await.is_some());
    assert!(take_amount(&store, &tokens).await.is_some());
    assert!(take_amount(&store, &daily).await.is_none());
    assert!(take_amount(&store, &tokens).await.is_none());
    let status = store.status(&tokens).await.unwrap();
    assert_eq!((status.quota, status.used), (tokens.quota, 1));
}

async fn take_all(store: &impl Store, demands: &[Demand]) -> Option<Vec<Box<dyn Reservation>>> {
    match store.reserve_all(demands).await.unwrap() {
        ReserveAllOutcome::Admitted(admitted) => {
            let mut reservations = Vec::new();
            for ((mut reservation, status), demand) in admitted.into_iter().zip(demands) {
                assert_eq!((status.quota, status.limit), (demand.quota, demand.limit));
                poll_fn(|cx| reservation.poll_committed(cx)).await.unwrap();
                reservations.push(reservation);
            }
            assert_eq!(reservations.len(), demands.len());
            Some(reservations)
        }
        _ => None,
    }
}

async fn used(store: &impl Store, demands: &[Demand]) -> Vec<u64> {
    let mut used = Vec::new();
    for demand in demands {
        used.push(store.status(demand).await.unwrap().used);
    }
    used
}

/// Demands of one request: its key's requests and tokens of the day, its requests of the month, and those of all keys.
fn demands([daily, tokens, monthly, pool]: [u32; 4]) -> [Demand; 4] {
    let quota = |name, period| Quota::new(name, period).unwrap();
    let everybody = QuotaSubject::new("everybody".into(), limit(pool));
    [
        demand(&subject(daily), noon()),
        demand(&subject(tokens), noon()).quota(quota("tokens", Period::Day)).amount(30),
        demand(&subject(monthly), noon()).quota(quota("requests", Period::Month)),
        demand(&everybody, noon()).quota(quota("pool", Period::Day)),
    ]
}

async fn units_of_several_quotas_are_reserved_together_or_not_at_all(store: impl Store) {
    let enough = demands([10, 300, 10, 10]);
    let [_, tokens, monthly, _] = &mut take_all(&store, &enough).await.unwrap()[..] else {
        panic!();
    };
    assert_eq!(used(&store, &enough).await, [1, 30, 1, 1]);
    // Each is settled and refunded by itself.
    tokens.settle(12).await.unwrap();
    assert!(monthly.refund(Refund::Always).await.unwrap());
    assert_eq!(used(&store, &enough).await, [1, 12, 0, 1]);
    // Whichever lacks units, none is taken of any.
    for (index, lacking) in [[1, 300, 10, 10], [10, 41, 10, 10], [10, 300, 0, 10], [10, 300, 10, 1]]
        .into_iter()
        .enumerate()
    {
        let lacking = demands(lacking);
        match store.reserve_all(&lacking).await.unwrap() {
            ReserveAllOutcome::Exhausted(statuses) => {
                let quotas: Vec<_> = statuses.iter().map(|status| status.quota).collect();
                assert_eq!(quotas, [lacking[index].quota]);
            }
            outcome => panic!("{outcome:?}"),
        }
        assert_eq!(used(&store, &lacking).await, [1, 12, 0, 1]);
    }
    // A store need not look for others that lack units, too.
    match store.reserve_all(&demands([1, 41, 10, 1])).await.unwrap() {
        ReserveAllOutcome::Exhausted(statuses) => {
            let names: Vec<_> = statuses.iter().map(|status| status.quota.name()).collect();
            assert!(!names.is_empty() && !names.contains(&"requests"), "{names:?}");
        }
        outcome => panic!("{outcome:?}"),
    }
    assert!(take_all(&store, &demands([2, 42, 1, 2])).await.is_some());
}

async fn concurrent_reservations_under_several_quotas_admit_as_many_as_the_smallest_allows(
    store: impl Store,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..120 {
        let store = store.clone();
        tasks.spawn(async move {
            // In each order: no two requests wait for each other.
            let mut demands = demands([50, 30 * 17, 40, 60]);
            demands.rotate_left(number % 4);
            take_all(&store, &demands).await.is_some()
        });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 17);
    assert_eq!(used(&store, &demands([50, 510, 40, 60])).await, [17, 510, 17, 17]);
}

async fn two_demands_on_one_quota_of_a_subject_are_rejected(store: impl Store) {
    let demand = demand(&subject(10), noon());
    store.reserve_all(&[demand.clone(), demand.clone()]).await.unwrap_err();
    assert_eq!(store.status(&demand).await.unwrap().used, 0);
}

async fn a_month_has_one_limit_and_resets_with_the_next(store: impl Store) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let exports = Quota::new("exports", Period::Month).unwrap();
    let on = |days: u32| demand(&subject(2), noon() + days * DAY).quota(exports);
    // From the 22nd to the 30th.
    let mut first = take_amount(&store, &on(0)).await.unwrap();
    assert!(take_amount(&store, &on(8)).await.is_some());
    assert!(take_amount(&store, &on(8)).await.is_none());
    let status = store.status(&on(8)).await.unwrap();
    let ends = Calendar::utc().window_of("2026-11-30".parse().unwrap()).end;
    assert_eq!((status.day.to_string().as_str(), status.used), ("2026-11-01", 2));
    assert_eq!((status.resets_at, status.quota), (ends, exports));
    assert!(first.refund(Refund::Always).await.unwrap(), "eight days later");
    assert!(take_amount(&store, &on(8)).await.is_some());
    let mut november = take_amount(&store, &on(0).quota(Quota::DAILY)).await.unwrap();

    let december = store.status(&on(9)).await.unwrap();
    assert_eq!((december.day.to_string().as_str(), december.used), ("2026-12-01", 0));
    assert!(take_amount(&store, &on(9).amount(2)).await.is_some());
    assert!(!first.refund(Refund::Always).await.unwrap());
    assert!(november.refund(Refund::Always).await.unwrap(), "the daily quota is another one");
}

async fn a_reset_applies_to_every_quota_of_a_key(store: impl Store) {
    let record = issue(&store, "trial-key-manual-123").await;
    let daily = demand(&QuotaSubject::new(record.id.clone(), limit(1)), noon());
    let tokens = daily.clone().quota(Quota::new("tokens", Period::Day).unwrap());
    let exports = daily.clone().quota(Quota::new("exports", Period::Month).unwrap());
    for demand in [&daily, &tokens, &exports] {
        take_amount(&store, demand).await.unwrap();
    }
    change(&store, record.id.as_str(), KeyChange::ResetUsage).await;
    for demand in [&daily, &tokens, &exports] {
        assert_eq!(store.status(demand).await.unwrap().used, 0);
        assert!(take_amount(&store, demand).await.is_some());
        assert!(take_amount(&store, demand).await.is_none());
    }
}

async fn amounts_of_any_size_are_counted_or_exhaust_the_quota(store: impl Store) {
    const HALF: u64 = 1 << 52;
    const LARGE: u64 = i64::MAX as u64;
    for (name, limit) in [("unlimited", Limit::Unlimited), ("large", Limit::Units(u64::MAX))] {
        let subject = QuotaSubject::new(name.into(), limit);
        for amount in [HALF, HALF, LARGE, LARGE, 1, u64::MAX, LARGE + 1] {
            take_amount(&store, &demand(&subject, noon()).amount(amount)).await;
        }
        let settled = demand(&subject, noon()).quota(Quota::new("settled", Period::Day).unwrap());
        for _ in 0..3 {
            if let Some(mut reservation) = take_amount(&store, &settled).await {
                reservation.settle(u64::MAX).await.unwrap();
            }
        }
        let status = store.status(&demand(&subject, noon())).await.unwrap();
        assert!(status.used >= 2 * HALF, "{status:?}");
    }
    let today = store.today();
    store.report(UsageQuery::days(today, today)).await.unwrap();
    assert!(take(&store, &subject(1), noon()).await.is_some());
}
