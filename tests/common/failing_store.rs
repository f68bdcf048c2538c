//! A store that fails as configured.

use std::time::SystemTime;

use bytes::Bytes;
use tower_quota::{
    admin::store::{
        Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, ChangeOutcome, ClaimOffer,
        CreateOutcome, IdempotencyKey, ImportOutcome, ImportedKey, KeyEdit, KeyPage, KeyPageQuery,
        KeyRef, KeySummary, NewKey, NodeState, NodeSummary, OnIssued, ReleaseOutcome, StoreBackup,
    },
    clock::Day,
    error::{StoreError, StoreErrorKind},
    key::KeyRecord,
    store::{
        StoreFuture,
        memory::MemoryStore,
        report::{RequestQuery, RequestRecord, UsageQuery, UsageReader, UsageReport},
    },
};

/// A memory store whose calls fail: all of them when it is unavailable, those that write a key
/// when that is in conflict.
#[derive(Clone)]
pub(crate) struct FailingStore {
    pub(crate) store: MemoryStore,
    pub(crate) fails: Option<StoreErrorKind>,
}

impl FailingStore {
    fn reads<T>(&self, read: impl FnOnce(&MemoryStore) -> StoreFuture<T>) -> StoreFuture<T> {
        match self.fails {
            Some(kind @ StoreErrorKind::Unavailable) => {
                StoreFuture::ready(Err(StoreError::new(kind)))
            }
            _ => read(&self.store),
        }
    }

    fn writes<T>(&self, write: impl FnOnce(&MemoryStore) -> StoreFuture<T>) -> StoreFuture<T> {
        match self.fails {
            Some(kind) => StoreFuture::ready(Err(StoreError::new(kind))),
            None => write(&self.store),
        }
    }
}

impl UsageReader for FailingStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        self.reads(|store| store.report(query))
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        self.reads(|store| store.requests(query))
    }
}

impl AdminStore for FailingStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        self.writes(|store| store.create(keys, by))
    }

    fn create_once(
        &self,
        keys: Vec<NewKey>,
        once: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome> {
        self.writes(|store| store.create_once(keys, once, by, on_issued))
    }

    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>> {
        self.writes(|store| store.import(keys, dry_run, by))
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        self.reads(|store| store.list(query))
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        self.reads(|store| store.get(key))
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome> {
        self.writes(|store| store.change(edit))
    }

    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        self.writes(|store| store.offer_claim(offer, by))
    }

    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()> {
        self.reads(|store| store.note(note, by))
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        self.reads(|store| store.audit(query))
    }

    fn today(&self) -> Day {
        self.store.today()
    }

    fn now(&self) -> SystemTime {
        self.store.now()
    }

    fn backup(&self) -> StoreFuture<StoreBackup> {
        let mut read = vec![Bytes::from_static(b"a copy")].into_iter();
        let next = move || StoreFuture::ready(Ok(read.next().unwrap_or_default()));
        self.writes(|_| StoreFuture::ready(Ok(StoreBackup::new(6, next))))
    }

    /// Node 1 is silent, node 2 in use and node 3 closed.
    fn nodes(&self) -> StoreFuture<Vec<NodeSummary>> {
        let states = [NodeState::Silent, NodeState::InUse, NodeState::Closed];
        let node = |(number, state)| NodeSummary::new(number, "0a1b", state, self.now());
        self.reads(|_| StoreFuture::ready(Ok((1..).zip(states).map(node).collect())))
    }

    fn release_node(&self, number: u32, by: Actor) -> StoreFuture<ReleaseOutcome> {
        let store = self.clone();
        StoreFuture::pending(async move {
            let nodes = store.nodes().await?;
            let Some(node) = nodes.into_iter().find(|node| node.number == number) else {
                return Ok(ReleaseOutcome::UnknownNode);
            };
            let node = Box::new(node);
            if node.state != NodeState::Silent {
                return Ok(ReleaseOutcome::NotSilent(node));
            }
            store.note(AuditNote::node_released(&node), by).await?;
            Ok(ReleaseOutcome::Released(node))
        })
    }

    fn probe(&self) -> StoreFuture<()> {
        self.reads(|store| store.probe())
    }
}
