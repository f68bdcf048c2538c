//! Guarantees of `ClaimStore`.

use std::time::Duration;

use tower_quota::{
    admin::store::{
        Actor, AuditQuery, ClaimOffer, ClaimOutcome, ClaimState, KeyChange, KeyRef, Rotation,
    },
    key::{ClaimToken, KeyPatch, SecretKey},
};

use super::{Store, change_record, issue, noon};

promises! {
    a_claim_hands_out_its_key_once,
    a_withdrawn_or_expired_claim_cannot_be_opened,
}

async fn a_claim_hands_out_its_key_once(store: impl Store) {
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

    // Of two concurrent calls, one opens the claim.
    let secret = |text| SecretKey::parse(text).unwrap();
    let (one, other) = (secret("trial-key-second-123"), secret("trial-key-third-123"));
    let open = |secret: &SecretKey| {
        store.open_claim(token.clone(), secret.clone(), Actor::default(), Box::new(|_| ()))
    };
    let (first, second) = tokio::join!(open(&one), open(&other));
    let (won, lost) = match first.unwrap() {
        ClaimOutcome::Opened(_) => (one, second.unwrap()),
        lost => (other, lost),
    };
    assert_eq!(lost, ClaimOutcome::NotOpen(ClaimState::Opened(noon())));
    assert_eq!(store.find(&won).await.unwrap().unwrap().id, record.id);
    assert!(store.find(&secret("trial-key-first-123")).await.unwrap().is_none());
    let shown = store.get(KeyRef::new(record.id.as_str())).await.unwrap().unwrap();
    assert_eq!(shown.claim.unwrap().opened_at, Some(noon()));
    let trail = store.audit(AuditQuery::latest(9)).await.unwrap();
    let actions: Vec<_> = trail.iter().map(|entry| &*entry.action).collect();
    assert_eq!(actions, ["key.claim.open", "key.claim.offer", "key.create"]);
    assert!(trail.iter().all(|entry| !entry.detail.contains(token.expose())));
}

async fn a_withdrawn_or_expired_claim_cannot_be_opened(store: impl Store) {
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
                let rotation = Rotation::new(secret, Duration::ZERO);
                change_record(&store, &record, KeyChange::Rotate(rotation)).await;
            }
            "deletion" => change_record(&store, &record, KeyChange::Delete).await,
            "disabled" => {
                let patch = KeyPatch::default().disabled(true);
                change_record(&store, &record, KeyChange::Update(patch)).await;
            }
            _ => {}
        }
        let state = if what == "time" { ClaimState::Expired } else { ClaimState::Withdrawn };
        let opened = store
            .open_claim(token.clone(), secret.clone(), by(), Box::new(|_| unreachable!("opened")))
            .await
            .unwrap();
        assert_eq!(opened, ClaimOutcome::NotOpen(state), "{what}");
        assert_eq!(store.claim(token).await.unwrap().unwrap().state, state, "{what}");
        assert!(store.find(&secret).await.unwrap().is_none(), "{what}");
    }
}
