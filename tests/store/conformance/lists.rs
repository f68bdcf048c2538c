//! Guarantees of `AdminStore::list`.

use std::collections::HashSet;

use tower_quota::{
    admin::store::{Actor, KeyChange, KeyPageQuery, KeyRef, KeySort, KeyState, KeySummary},
    key::{KeyPatch, Limit, SecretKey},
    store::QuotaSubject,
};

use super::{Store, change_record, limited_key, new_key, noon, take};

promises! {
    pages_contain_every_key_once,
    pages_in_every_order_contain_every_key_once,
    keys_are_filtered_by_state,
    a_search_matches_text_literally,
}

async fn pages_contain_every_key_once(store: impl Store) {
    let keys = (0..25).map(|n| new_key(&format!("trial-key-number-{n}"), &n.to_string())).collect();
    store.create(keys, Actor::default()).await.unwrap();
    let (mut labels, mut after) = (Vec::new(), None);
    loop {
        let mut query = KeyPageQuery::first(10);
        query.after = after;
        let page = store.list(query).await.unwrap();
        labels.extend(page.keys.into_iter().map(|key| key.record.label));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(labels, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn pages_in_every_order_contain_every_key_once(store: impl Store) {
    let new = |n: usize| {
        let label = ["b", "A", "", "密", "a"][n % 5];
        let limit = Limit::from_stored([0, 10, 20, 40][n % 4]).unwrap();
        limited_key(&format!("trial-key-number-{n}"), label, limit)
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
            let mut query = KeyPageQuery::first(4);
            (query.after, query.sort) = (after, sort);
            let page = store.list(query).await.unwrap();
            seen.extend(page.keys);
            let Some(next) = page.next else { break };
            after = Some(next.to_string().parse().unwrap());
        }
        let ids: HashSet<_> = seen.iter().map(|key| key.record.id.clone()).collect();
        assert_eq!((seen.len(), ids.len()), (25, 25), "{sort:?}");
        let label = |key: &KeySummary| key.record.label.to_ascii_lowercase();
        let share = |key: &KeySummary| match key.record.daily_limit.number() {
            0 => 0.0,
            limit => key.used_today as f64 / limit as f64,
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

async fn keys_are_filtered_by_state(store: impl Store) {
    let records = {
        let new = |n: usize| new_key(&format!("trial-key-number-{n}"), &n.to_string());
        store.create((0..40).map(new).collect(), Actor::default()).await.unwrap()
    };
    let patch = async |at: usize, patch: KeyPatch| {
        change_record(&store, &records[at], KeyChange::Update(patch)).await;
    };
    for at in [3, 17] {
        patch(at, KeyPatch::default().disabled(true)).await;
    }
    for at in [5, 29, 30] {
        patch(at, KeyPatch::default().expires_at(Some(noon()))).await;
    }
    patch(8, KeyPatch::default().daily_limit(Limit::Units(1)).unwrap()).await;
    let one = store.get(KeyRef::new(records[8].id.as_str())).await.unwrap().unwrap().record;
    take(&store, &QuotaSubject::from(&one), noon()).await.unwrap();
    for (state, expected) in [
        (KeyState::Disabled, vec!["3", "17"]),
        (KeyState::Expired, vec!["5", "29", "30"]),
        (KeyState::Exhausted, vec!["8"]),
    ] {
        let mut query = KeyPageQuery::first(10);
        query.state = Some(state);
        let page = store.list(query).await.unwrap();
        let labels: Vec<_> = page.keys.iter().map(|key| &*key.record.label).collect();
        assert_eq!((labels, page.next), (expected, None), "{state:?}");
    }
    let mut query = KeyPageQuery::first(40);
    query.state = Some(KeyState::Active);
    assert_eq!(store.list(query).await.unwrap().keys.len(), 34);
}

async fn a_search_matches_text_literally(store: impl Store) {
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
        let mut query = KeyPageQuery::first(10);
        query.search = Some(search.to_owned());
        assert_eq!(store.list(query).await.unwrap().keys.len(), found, "{search}");
    }
}
