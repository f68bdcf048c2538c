//! Guarantees of `UsageReader`.

use std::{cmp::Reverse, time::Duration};

use tower_quota::{
    admin::store::Actor,
    key::{KeyId, Limit},
    store::{
        QuotaSubject, RequestOutcome, Tokens, UsageEvent,
        report::{GroupBy, ReportPage, RequestQuery, RequestRecord, UsageQuery},
    },
};

use super::{Store, new_key, noon, take};

promises! {
    single_requests_are_listed_latest_first,
    the_pages_of_a_report_contain_the_rows_of_the_whole_report,
    requests_are_found_by_their_id,
    models_beyond_the_sixty_fourth_of_a_key_and_day_are_counted_together,
    requests_without_reported_tokens_are_counted,
    active_keys_are_those_that_were_used_on_the_days_of_the_report,
    busiest_keys_are_those_of_the_days_of_the_report,
    requests_of_a_subject_that_is_no_key_are_reported,
    figures_of_any_size_are_kept,
}

fn grouped(key: bool, day: bool, model: bool) -> GroupBy {
    let mut group_by = GroupBy::default();
    (group_by.key, group_by.day, group_by.model) = (key, day, model);
    group_by
}

async fn single_requests_are_listed_latest_first(store: impl Store) {
    let mut events = Vec::new();
    for number in 0..6_u64 {
        let mut event = UsageEvent::new(noon());
        event.key_id = Some(KeyId::from(if number % 2 == 0 { "alice" } else { "bob" }));
        event.path = "/v1/chat/completions".to_owned();
        event.status = Some(200);
        event.bytes_in = number;
        event.duration = Some(Duration::from_micros(7));
        event.outcome = RequestOutcome::Succeeded;
        if number == 2 {
            event.outcome = RequestOutcome::Rejected;
            event.code = Some("insufficient_quota".into());
        } else {
            let mut tokens = Tokens::new(2, 3, 5);
            tokens.cached = Some(1);
            event.tokens = Some(tokens);
        }
        store.record(event.clone());
        events.push(RequestRecord::new(0, event).unwrap());
    }
    let list = async |query: RequestQuery| -> Vec<RequestRecord> {
        let rows = store.requests(query).await.unwrap();
        assert!(rows.is_sorted_by(|a, b| a.number > b.number), "{rows:?}");
        rows
    };
    let numbers = |rows: &[RequestRecord]| -> Vec<u64> {
        rows.iter().map(|row| row.event.bytes_in).collect()
    };
    let all = list(RequestQuery::latest(10)).await;
    assert_eq!(numbers(&all), [5, 4, 3, 2, 1, 0]);
    for (row, event) in all.iter().rev().zip(&events) {
        let mut expected = event.clone();
        expected.number = row.number;
        assert_eq!(*row, expected);
    }
    let alice = list(RequestQuery::latest(10).key(KeyId::from("alice"))).await;
    assert_eq!(numbers(&alice), [4, 2, 0]);
    assert_eq!(numbers(&list(RequestQuery::latest(10).failed_only()).await), [2]);
    assert_eq!(numbers(&list(RequestQuery::latest(2).before(all[1].number)).await), [3, 2]);
}

async fn the_pages_of_a_report_contain_the_rows_of_the_whole_report(store: impl Store) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let keys = (0..6).map(|n| new_key(&format!("trial-key-number-{n}"), &n.to_string())).collect();
    let records = store.create(keys, Actor::default()).await.unwrap();
    for (n, record) in records.iter().enumerate().take(5) {
        for day in 0..3 {
            for model in ["a", "b", ""].into_iter().take(1 + (n + day) % 3) {
                let mut event = UsageEvent::new(noon() - DAY * day as u32);
                event.key_id = Some(record.id.clone());
                event.outcome = RequestOutcome::Succeeded;
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
        let query = UsageQuery::days(from, to).group_by(grouped(true, day, model));
        let report = async |page| store.report(query.clone().page(page)).await.unwrap();
        let all = report(ReportPage::all()).await;
        assert_eq!((all.active_keys, all.total_requests), (5, 90), "{query:?}");
        for limit in [1, 2, 4, 100] {
            let (mut busiest, mut by_id, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let page = report(ReportPage::Busiest { skip: busiest.len(), limit }).await;
                busiest.extend(page.rows);
                if !page.has_more {
                    break;
                }
            }
            assert_eq!(busiest, all.rows, "{query:?} {limit}");
            loop {
                let page = report(ReportPage::ById { after, limit }).await;
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
    let today = store.report(UsageQuery::days(to, to).idle()).await.unwrap();
    let last = today.rows.last().unwrap();
    assert_eq!((today.rows.len(), today.active_keys), (6, 5));
    assert_eq!((last.key_id.as_ref(), last.used), (Some(&records[5].id), Some(0)));
}

async fn requests_are_found_by_their_id(store: impl Store) {
    for (number, id) in [(0, Some("a")), (1, None), (2, Some("b")), (3, Some("a"))] {
        let mut event = UsageEvent::new(noon());
        event.key_id = Some(KeyId::from(if number == 0 { "alice" } else { "bob" }));
        event.request_id = id.map(str::to_owned);
        event.bytes_in = number;
        store.record(event);
    }
    let list = async |query: RequestQuery| -> Vec<u64> {
        let rows = store.requests(query).await.unwrap();
        rows.iter().map(|row| row.event.bytes_in).collect()
    };
    let of_id = |id: &str| RequestQuery::latest(10).request_id(id.to_owned());
    assert_eq!(list(of_id("a")).await, [3, 0]);
    assert_eq!(list(of_id("b")).await, [2]);
    assert!(list(of_id("A")).await.is_empty());
    assert_eq!(list(of_id("a").key(KeyId::from("alice"))).await, [0]);
}

async fn models_beyond_the_sixty_fourth_of_a_key_and_day_are_counted_together(store: impl Store) {
    let record = |key: &str, model: Option<&str>| {
        let mut event = UsageEvent::new(noon());
        event.key_id = Some(KeyId::from(key));
        event.outcome = RequestOutcome::Succeeded;
        event.model = model.map(str::to_owned);
        store.record(event);
    };
    let (by_model, all) = (grouped(true, true, true), grouped(false, true, true));
    let today = store.today();
    let requests_by_model = async |key: Option<&str>, group_by| {
        let query = UsageQuery::days(today, today).group_by(group_by);
        let query = key.into_iter().fold(query, |query, key| query.key(KeyId::from(key)));
        let rows = store.report(query).await.unwrap().rows;
        let models = rows.into_iter().map(|row| (row.model.unwrap(), row.figures.requests));
        models.collect::<std::collections::BTreeMap<String, u64>>()
    };
    (0..40).for_each(|n| record("alice", Some(&format!("m{n}"))));
    assert_eq!(requests_by_model(Some("alice"), by_model).await.len(), 40);
    (0..300).for_each(|n| record("alice", Some(&format!("m{n}"))));
    (0..2).for_each(|_| record("alice", None));
    record("bob", Some("m299"));
    // Models that already have a row are still counted.
    record("alice", Some("m39"));
    let models = requests_by_model(Some("alice"), by_model).await;
    assert_eq!(models.len(), 66, "64 models, the others, and requests without a model");
    assert_eq!((models["m39"], models["m40"], models["m63"]), (3, 1, 1));
    assert_eq!((models["other"], models[""]), (236, 2));
    assert_eq!(requests_by_model(Some("bob"), by_model).await["m299"], 1);
    let sums = requests_by_model(None, all).await;
    assert_eq!((sums["m39"], sums["other"], sums["m299"]), (3, 236, 1));
}

async fn requests_without_reported_tokens_are_counted(store: impl Store) {
    for (outcome, tokens) in [
        (RequestOutcome::Succeeded, None),
        (RequestOutcome::Succeeded, Some(Tokens::new(1, 2, 3))),
        (RequestOutcome::Succeeded, None),
        (RequestOutcome::Failed, None),
        (RequestOutcome::ClientGone, None),
        (RequestOutcome::Rejected, None),
    ] {
        let mut event = UsageEvent::new(noon());
        event.key_id = Some(KeyId::from("alice"));
        (event.outcome, event.tokens) = (outcome, tokens);
        store.record(event);
    }
    let bools = [false, true];
    for (key, model) in bools.into_iter().flat_map(|key| bools.map(|model| (key, model))) {
        let group_by = grouped(key, true, model);
        let query = UsageQuery::days(store.today(), store.today()).group_by(group_by);
        let figures = store.report(query).await.unwrap().rows[0].figures;
        assert_eq!((figures.succeeded, figures.tokens_unknown, figures.tokens.total), (3, 2, 3));
    }
}

async fn active_keys_are_those_that_were_used_on_the_days_of_the_report(store: impl Store) {
    let today = store.today();
    let days_of = |key: u32| {
        (0..=380).filter(move |back: &u32| (back * 7 + key * 13).is_multiple_of(29 + key))
    };
    for key in 0..7 {
        for back in days_of(key) {
            let mut event = UsageEvent::new(noon() - Duration::from_secs(86_400) * back);
            event.key_id = Some(KeyId::from(&*format!("key-{key}")));
            event.outcome = RequestOutcome::Succeeded;
            store.record(event.clone());
            event.key_id = Some(KeyId::from("rejected"));
            event.outcome = RequestOutcome::Rejected;
            event.code = Some("insufficient_quota".into());
            store.record(event);
        }
    }
    let by_model = grouped(false, false, true);
    for first in (0..=365).step_by(5) {
        for last in [0, 1, 9, 21, 22, 52, 300].into_iter().filter(|last| *last <= first) {
            let days = UsageQuery::days(today.minus(first), today.minus(last));
            let report = store.report(days.clone().group_by(by_model)).await.unwrap();
            let active =
                (0..7).filter(|key| days_of(*key).any(|back| (last..=first).contains(&back)));
            assert_eq!(report.active_keys, active.count() as u64, "{days:?}");
        }
    }
}

async fn busiest_keys_are_those_of_the_days_of_the_report(store: impl Store) {
    let today = store.today();
    let models = ["", "a", "b"];
    // Numbers of requests of a key with a model on a day, for which there is no row if there are none.
    let requests_of = |key: u32, model: usize, back: u32| {
        let is_used = (back * 11 + key * 5 + model as u32 * 17).is_multiple_of(13 + key);
        if is_used { 1 + (back + key) % 3 } else { 0 }
    };
    for (key, model) in (0..6).flat_map(|key| (0..3).map(move |model| (key, model))) {
        for back in 0..=200 {
            let mut event = UsageEvent::new(noon() - Duration::from_secs(86_400) * back);
            event.key_id = Some(KeyId::from(&*format!("key-{key}")));
            event.outcome = RequestOutcome::Succeeded;
            event.model = Some(models[model].to_owned()).filter(|model| !model.is_empty());
            (0..requests_of(key, model, back)).for_each(|_| store.record(event.clone()));
        }
    }
    for (first, last) in
        (0..=200).step_by(9).flat_map(|first| [0, 1, 30, 95].map(|last| (first, last)))
    {
        if last > first {
            continue;
        }
        for by_model in [false, true] {
            let mut expected = Vec::new();
            for key in 0..6 {
                let of_models = (0..3).map(|model| -> u64 {
                    (last..=first).map(|back| u64::from(requests_of(key, model, back))).sum()
                });
                let of_models: Vec<u64> = of_models.collect();
                let rows = match by_model {
                    true => of_models
                        .iter()
                        .zip(models)
                        .map(|(sum, name)| (*sum, Some(name.to_owned())))
                        .collect(),
                    false => vec![(of_models.iter().sum(), None)],
                };
                let rows = rows.into_iter().filter(|(sum, _)| *sum > 0);
                expected
                    .extend(rows.map(|(sum, model)| (Reverse(sum), format!("key-{key}"), model)));
            }
            expected.sort();
            let days = UsageQuery::days(today.minus(first), today.minus(last));
            let report = store.report(days.clone().group_by(grouped(true, false, by_model))).await;
            let rows = report.unwrap().rows.into_iter().map(|row| {
                (Reverse(row.figures.requests), row.key_id.unwrap().to_string(), row.model)
            });
            assert_eq!(rows.collect::<Vec<_>>(), expected, "{days:?}");
        }
    }
}

async fn requests_of_a_subject_that_is_no_key_are_reported(store: impl Store) {
    let subject = QuotaSubject::new(KeyId::from("tenant/acme"), Limit::Units(5));
    let reservation = take(&store, &subject, noon()).await.unwrap();
    let mut event = UsageEvent::new(noon());
    event.key_id = Some(subject.id.clone());
    event.outcome = RequestOutcome::Succeeded;
    event.units = 1;
    event.admission = reservation.admission();
    store.record(event);
    drop(reservation);
    let report = store.report(UsageQuery::days(store.today(), store.today())).await.unwrap();
    let [row] = &report.rows[..] else { panic!("{report:?}") };
    assert_eq!((row.key_id.as_ref(), row.used), (Some(&subject.id), Some(1)));
    assert_eq!((row.figures.requests, row.figures.succeeded, row.figures.failed), (1, 1, 0));
    let requests = store.requests(RequestQuery::latest(10).key(subject.id)).await.unwrap();
    assert_eq!(requests.len(), 1);
}

async fn figures_of_any_size_are_kept(store: impl Store) {
    let mut event = UsageEvent::new(noon());
    event.key_id = Some(KeyId::from("alice"));
    event.outcome = RequestOutcome::Succeeded;
    event.model = Some("m".to_owned());
    let mut tokens = Tokens::new(u64::MAX, i64::MAX as u64, u64::MAX);
    (tokens.cached, tokens.reasoning) = (Some(u64::MAX), Some(i64::MAX as u64));
    (event.tokens, event.bytes_in, event.bytes_out) = (Some(tokens), u64::MAX, u64::MAX);
    event.duration = Some(Duration::MAX);
    for _ in 0..3 {
        store.record(event.clone());
    }
    let report = store.report(UsageQuery::days(store.today(), store.today())).await.unwrap();
    let figures = report.rows[0].figures;
    assert_eq!((figures.requests, figures.succeeded), (3, 3));
    assert!(figures.tokens.total >= 1_000_000_000_000, "{figures:?}");
    assert_eq!(store.requests(RequestQuery::latest(usize::MAX)).await.unwrap().len(), 3);
}
