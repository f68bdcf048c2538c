//! A store of your own with administration: every trait over `HashMap`s in one mutex, as an embedded or remote database
//! would implement them. It keeps everything for ever, in memory.
//!
//! Layers need keys and quotas alone, as the example `custom_store` has them. `tests/store/conformance` holds this store
//! to what the traits promise.
//!
//! `cargo run --example custom_admin_store` issues a key over the admin API and uses it up.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    admin::{
        AdminTokens, admin_service,
        store::{
            Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, ChangeOutcome, Claim, ClaimOffer,
            ClaimOutcome, ClaimState, ClaimStore, ClaimSummary, CreateOutcome, IdempotencyKey,
            ImportOutcome, ImportedKey, KeyChange, KeyEdit, KeyPage, KeyPageQuery, KeyRef,
            KeySummary, NewKey, OnIssued, OnOpened, Rotation,
        },
    },
    auth::TrialKeyAuthLayer,
    clock::{Calendar, Clock, Day, SystemClock, Window},
    error::{StoreError, StoreErrorKind},
    key::{ClaimToken, KeyHash, KeyId, KeyRecord, SecretKey},
    quota::DailyQuotaLayer,
    store::{
        Demand, KeyStore, Quota, QuotaStatus, QuotaStore, Refund, Reservation, ReserveOutcome,
        StoreFuture, UsageEvent, UsageSink,
        report::{RequestQuery, RequestRecord, UsageFigures, UsageQuery, UsageReader, UsageReport},
        support::{ReportBuilder, model_name},
    },
};

/// Store over `HashMap`s. Clones share their content.
#[derive(Clone)]
pub(crate) struct HashStore(Arc<Shared>);

struct Shared {
    calendar: Calendar,
    clock: Box<dyn Clock>,
    /// A database would have a table for each of the fields, and a transaction for each lock.
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    keys: HashMap<KeyId, Key>,
    deleted: HashMap<KeyId, Arc<KeyRecord>>,
    /// Every secret that was ever valid, and the key that had it last.
    hashes: HashMap<KeyHash, KeyId>,
    counts: HashMap<(Quota, KeyId), BTreeMap<Day, Count>>,
    resets: u32,
    last_used: HashMap<KeyId, SystemTime>,
    figures: HashMap<(Day, KeyId), HashMap<String, UsageFigures>>,
    requests: Vec<RequestRecord>,
    audit: Vec<AuditEntry>,
    claims: Vec<OfferedClaim>,
    created: HashMap<[u8; 32], Creation>,
}

struct Key {
    number: u64,
    record: Arc<KeyRecord>,
    hash: KeyHash,
    /// Hash of a rotated secret, and the time until which it is valid.
    old: Option<(KeyHash, SystemTime)>,
}

/// Units of one period, and the number of the last reset before they were counted.
struct Count {
    epoch: u32,
    window: Window,
    used: u64,
    /// Units that were refunded up to the limit.
    refunded: u64,
}

struct OfferedClaim {
    token: KeyHash,
    key: KeyId,
    claim: ClaimSummary,
    withdrawn: bool,
}

/// Keys that were issued with an idempotency key.
struct Creation {
    request: [u8; 32],
    ids: Vec<KeyId>,
    at: SystemTime,
}

impl HashStore {
    pub(crate) fn new(calendar: Calendar, clock: impl Clock) -> Self {
        let tables = Mutex::default();
        Self(Arc::new(Shared { calendar, clock: Box::new(clock), tables }))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_audit(&self, tables: &mut Tables, note: AuditNote, by: &Actor) {
        let number = tables.audit.len() as u64 + 1;
        tables.audit.push(AuditEntry::new(number, self.now(), by.clone(), note));
    }
}

fn ready<T>(value: T) -> StoreFuture<T> {
    StoreFuture::ready(Ok(value))
}

// What the layers call: keys, units and events.

impl KeyStore for HashStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let (hash, now) = (key.hash(), self.now());
        let tables = self.tables();
        let key = tables.hashes.get(&hash).and_then(|id| tables.keys.get(id));
        let is_valid = |key: &&Key| {
            key.hash == hash || key.old.is_some_and(|(old, until)| old == hash && now < until)
        };
        ready(key.filter(is_valid).map(|key| key.record.clone()))
    }
}

impl Tables {
    /// Returns the count of the demand's period. A clock that steps back does not reopen a period.
    fn count(&mut self, demand: &Demand, calendar: &Calendar) -> &mut Count {
        let window = demand.window(calendar);
        let days = self.counts.entry((demand.quota, demand.subject.clone())).or_default();
        let last = days.last_key_value().map_or(window.day, |(day, _)| *day);
        let epoch = self.resets;
        days.entry(last.max(window.day)).or_insert(Count { epoch, window, used: 0, refunded: 0 })
    }
}

impl Count {
    fn status(&self, demand: &Demand) -> QuotaStatus {
        let Window { day, end, .. } = self.window;
        QuotaStatus::new(day, demand.limit, self.used, end).quota(demand.quota)
    }
}

impl QuotaStore for HashStore {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let mut tables = self.tables();
        let count = tables.count(demand, &self.0.calendar);
        let used = count.used.checked_add(demand.amount);
        let limit = demand.limit.units().unwrap_or(u64::MAX);
        let Some(used) = used.filter(|used| *used <= limit) else {
            return ready(ReserveOutcome::Exhausted(count.status(demand)));
        };
        count.used = used;
        let (day, epoch, status) = (count.window.day, count.epoch, count.status(demand));
        tables.last_used.insert(demand.subject.clone(), demand.at);
        let (store, demand, amount) = (self.clone(), demand.clone(), Some(demand.amount));
        let reservation = Box::new(Reserved { store, demand, day, epoch, amount });
        ready(ReserveOutcome::Admitted { reservation, status })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        ready(self.tables().count(demand, &self.0.calendar).status(demand))
    }
}

struct Reserved {
    store: HashStore,
    demand: Demand,
    day: Day,
    epoch: u32,
    /// `None` after a refund.
    amount: Option<u64>,
}

impl Reserved {
    /// Changes the count if it is still the one from which the units were taken.
    fn change(&self, change: impl FnOnce(&mut Count) -> bool) -> bool {
        let mut tables = self.store.tables();
        let key = (self.demand.quota, self.demand.subject.clone());
        let count = tables.counts.get_mut(&key).and_then(|days| days.last_entry());
        count.is_some_and(|mut count| {
            let is_current = *count.key() == self.day && count.get().epoch == self.epoch;
            is_current && change(count.get_mut())
        })
    }
}

impl Reservation for Reserved {
    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        if let Some(reserved) = self.amount {
            self.amount = Some(actual);
            self.change(|count| {
                count.used = count.used.saturating_sub(reserved).saturating_add(actual);
                true
            });
        }
        ready(())
    }

    fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
        let Some(amount) = self.amount.take() else { return ready(false) };
        let limit = self.demand.limit.units().unwrap_or(u64::MAX);
        ready(self.change(|count| {
            let provoked = if refund == Refund::UpToLimit { amount } else { 0 };
            let refunded = count.refunded.saturating_add(provoked);
            let is_allowed = provoked == 0 || refunded <= limit;
            if is_allowed {
                count.refunded = refunded;
                count.used = count.used.saturating_sub(amount);
            }
            is_allowed
        }))
    }
}

impl UsageSink for HashStore {
    fn record(&self, event: UsageEvent) {
        let mut tables = self.tables();
        let number = tables.requests.len() as u64 + 1;
        let figures = UsageFigures::from(&event);
        let Some(record) = RequestRecord::new(number, event) else { return };
        let (day, event) = (self.0.calendar.window(record.event.at).day, &record.event);
        if let Some(id) = &event.key_id {
            let models = tables.figures.entry((day, id.clone())).or_default();
            let model = event.model.as_deref().unwrap_or_default();
            let model = model_name(model, models.keys().map(String::as_str)).to_owned();
            *models.entry(model).or_default() += figures;
        }
        tables.requests.push(record);
    }
}

// What reports call.

impl Tables {
    /// Returns the record with this id, also if the key was deleted.
    fn record(&self, id: &KeyId) -> Option<&KeyRecord> {
        let record = self.keys.get(id).map(|key| &key.record);
        record.or_else(|| self.deleted.get(id)).map(|record| &**record)
    }

    /// Returns the units of the daily quota by day.
    fn days(&self, id: &KeyId) -> impl Iterator<Item = (Day, u64)> {
        let days = self.counts.get(&(Quota::DAILY, id.clone())).into_iter().flatten();
        days.map(|(day, count)| (*day, count.used))
    }
}

impl UsageReader for HashStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let tables = self.tables();
        let is_with_idle = query.idle;
        let mut report = ReportBuilder::new(query);
        for ((day, id), models) in &tables.figures {
            models
                .iter()
                .for_each(|(model, figures)| report.add_figures(*day, id, model, *figures));
        }
        for (_, id) in tables.counts.keys().filter(|(quota, _)| *quota == Quota::DAILY) {
            tables.days(id).for_each(|(day, used)| report.add_used(day, id, used));
        }
        if is_with_idle {
            let mut keys: Vec<&Key> = tables.keys.values().collect();
            keys.sort_by_key(|key| key.number);
            report.add_idle(keys.into_iter().map(|key| &key.record.id));
        }
        let mut report = report.into_report();
        report.total_keys = tables.keys.len() as u64;
        report.name_keys(|id| tables.record(id));
        ready(report)
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        let tables = self.tables();
        let records = tables.requests.iter().rev().filter(|record| query.matches(record));
        ready(records.take(query.limit).cloned().collect())
    }
}

// What the administration calls.

impl Tables {
    /// Returns the id of the key that `key` names, by its id or by a secret of it.
    fn id(&self, key: &KeyRef) -> Option<KeyId> {
        let by_id = self.keys.get(&key.id()).map(|key| key.record.id.clone());
        by_id.or_else(|| self.owner(&key.secret()?.hash()).cloned())
    }

    /// Returns the key with this secret, now or before its last rotation.
    fn owner(&self, hash: &KeyHash) -> Option<&KeyId> {
        let id = self.hashes.get(hash)?;
        let key = self.keys.get(id)?;
        (key.hash == *hash || key.old.is_some_and(|(old, _)| old == *hash)).then_some(id)
    }

    fn is_taken(&self, hash: &KeyHash, id: &KeyId) -> bool {
        self.owner(hash).is_some() || self.keys.contains_key(id)
    }

    fn insert(&mut self, hash: KeyHash, record: KeyRecord) {
        let number = 1 + self.keys.values().map(|key| key.number).max().unwrap_or(0);
        self.hashes.insert(hash, record.id.clone());
        let id = record.id.clone();
        self.keys.insert(id, Key { number, record: Arc::new(record), hash, old: None });
    }

    fn withdraw_claims(&mut self, id: &KeyId) {
        let claims = self.claims.iter_mut();
        let unopened =
            claims.filter(|offered| offered.key == *id && offered.claim.opened_at.is_none());
        unopened.for_each(|offered| offered.withdrawn = true);
    }

    fn summary(&self, key: &Key, today: Day) -> KeySummary {
        let id = &key.record.id;
        let mut claims = self.claims.iter().rev();
        let latest = claims.find(|offered| offered.key == *id && !offered.withdrawn);
        let mut summary = KeySummary::new(KeyRecord::clone(&key.record), Some(key.hash));
        summary.used_today =
            self.days(id).filter(|(day, _)| *day == today).map(|(_, used)| used).sum();
        summary.total_used = self.days(id).map(|(_, used)| used).sum();
        summary.last_used_at = self.last_used.get(id).copied();
        summary.claim = latest.map(|offered| offered.claim);
        summary
    }
}

impl HashStore {
    fn summary(&self, tables: &Tables, id: &KeyId) -> Option<KeySummary> {
        tables.keys.get(id).map(|key| tables.summary(key, self.today()))
    }

    fn issue(&self, keys: &[NewKey], by: &Actor) -> Result<Vec<KeyRecord>, StoreError> {
        let mut tables = self.tables();
        let mut batch = HashSet::new();
        for key in keys {
            let hash = key.secret().hash();
            if !batch.insert(hash) || tables.is_taken(&hash, &key.record().id) {
                return Err(StoreError::new(StoreErrorKind::Conflict));
            }
        }
        let issue = |key: &NewKey| {
            let record = key.issued_at(self.now());
            tables.insert(key.secret().hash(), record.clone());
            self.write_audit(&mut tables, AuditNote::created(&record), by);
            record
        };
        Ok(keys.iter().map(issue).collect())
    }

    /// Makes a change. A reset concerns every quota of the key.
    fn apply(&self, tables: &mut Tables, id: &KeyId, change: &KeyChange) {
        let now = self.now();
        match change {
            KeyChange::Update(patch) => {
                if let Some(key) = tables.keys.get_mut(id) {
                    patch.apply(Arc::make_mut(&mut key.record));
                }
            }
            KeyChange::Rotate(rotation) => {
                if let Some(key) = tables.keys.get_mut(id) {
                    key.old = rotation.old_until(now).map(|until| (key.hash, until));
                    key.hash = rotation.hash();
                    Arc::make_mut(&mut key.record).masked = rotation.secret.masked();
                    tables.hashes.insert(key.hash, id.clone());
                }
            }
            KeyChange::ResetUsage => {
                tables.resets += 1;
                let of_key = tables.counts.iter_mut().filter(|((_, subject), _)| subject == id);
                for ((quota, _), days) in of_key {
                    let window = self.0.calendar.window_in(quota.period(), now);
                    // Later ones were counted while the clock was ahead.
                    days.retain(|day, _| *day < window.day);
                    let epoch = tables.resets;
                    days.insert(window.day, Count { epoch, window, used: 0, refunded: 0 });
                }
            }
            KeyChange::Delete => {
                if let Some(key) = tables.keys.remove(id) {
                    tables.deleted.insert(id.clone(), key.record);
                }
            }
            // A change of a later version of the crate.
            _ => {}
        }
    }

    fn import_key(&self, tables: &mut Tables, key: &ImportedKey, dry_run: bool) -> ImportOutcome {
        let id = match (tables.owner(&key.hash()), tables.hashes.get(&key.hash())) {
            (Some(id), _) => id.clone(),
            (None, Some(id)) => return ImportOutcome::Revoked(id.clone()),
            (None, None) if tables.keys.contains_key(&key.record().id) => {
                return ImportOutcome::IdTaken;
            }
            (None, None) => key.record().id.clone(),
        };
        let is_new = !tables.keys.contains_key(&id);
        if !dry_run {
            if is_new {
                tables.insert(key.hash(), key.record().clone());
            }
            // Days without known usage get the imported units.
            let days = tables.counts.entry((Quota::DAILY, id.clone())).or_default();
            for (day, used) in
                key.used().iter().filter(|(day, used)| *used > 0 && !days.contains_key(day))
            {
                let models = tables.figures.entry((*day, id.clone())).or_default();
                models.entry(String::new()).or_default().requests += used;
            }
            for (day, used) in key.used().iter().filter(|(_, used)| *used > 0) {
                let (epoch, window) = (tables.resets, self.0.calendar.window_of(*day));
                days.entry(*day).or_insert(Count { epoch, window, used: *used, refunded: 0 });
            }
        }
        if is_new { ImportOutcome::New(id) } else { ImportOutcome::Unchanged(id) }
    }
}

impl AdminStore for HashStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        StoreFuture::ready(self.issue(&keys, &by))
    }

    fn create_once(
        &self,
        keys: Vec<NewKey>,
        idempotency_key: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome> {
        let (name, request, at) = (idempotency_key.name(), idempotency_key.request(), self.now());
        let is_known = |creation: &Creation| {
            at.duration_since(creation.at).is_ok_and(|age| age < IdempotencyKey::RETENTION)
        };
        match self.tables().created.get(&name).filter(|creation| is_known(creation)) {
            Some(first) if first.request == request => {
                return ready(CreateOutcome::Replayed(first.ids.clone()));
            }
            Some(_) => return ready(CreateOutcome::OtherRequest),
            None => {}
        }
        StoreFuture::ready(self.issue(&keys, &by).map(|records| {
            let ids = records.iter().map(|record| record.id.clone()).collect();
            self.tables().created.insert(name, Creation { request, ids, at });
            on_issued(&records);
            CreateOutcome::Issued(records)
        }))
    }

    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>> {
        let mut tables = self.tables();
        let import = |key: &ImportedKey| {
            let outcome = self.import_key(&mut tables, key, dry_run);
            if matches!(outcome, ImportOutcome::New(_)) && !dry_run {
                self.write_audit(&mut tables, AuditNote::imported(key.record()), &by);
            }
            outcome
        };
        ready(keys.iter().map(import).collect())
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        let (tables, today) = (self.tables(), self.today());
        let keys = tables.keys.values().map(|key| (key, tables.summary(key, today)));
        let found = keys.filter(|(key, summary)| query.finds(summary, key.old.map(|(old, _)| old)));
        ready(query.page(found.map(|(key, summary)| (key.number, summary)), self.now()))
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        let tables = self.tables();
        ready(tables.id(&key).and_then(|id| self.summary(&tables, &id)))
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome> {
        let mut tables = self.tables();
        let found = tables.id(&edit.key).and_then(|id| Some((self.summary(&tables, &id)?, id)));
        let Some((before, id)) = found else { return ready(ChangeOutcome::UnknownKey) };
        if !edit.applies_to(&before) {
            return ready(ChangeOutcome::VersionMismatch);
        }
        self.apply(&mut tables, &id, &edit.change);
        let after = self.summary(&tables, &id).unwrap_or_else(|| before.clone());
        if edit.change.withdraws_claims(&before.record, &after.record, self.now()) {
            tables.withdraw_claims(&id);
        }
        let after = self.summary(&tables, &id).unwrap_or(after);
        let note = AuditNote::changed(&edit.change, &before, &after);
        self.write_audit(&mut tables, note, &edit.by);
        ready(ChangeOutcome::Done(after.into()))
    }

    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        let mut tables = self.tables();
        let Some(id) = tables.id(&offer.key) else { return ready(None) };
        tables.withdraw_claims(&id);
        let claim = ClaimSummary::new(self.now(), offer.expires_at);
        let (token, key) = (offer.token.hash(), id.clone());
        tables.claims.push(OfferedClaim { token, key, claim, withdrawn: false });
        self.write_audit(&mut tables, AuditNote::claim_offered(&id, &offer), &by);
        ready(self.summary(&tables, &id))
    }

    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()> {
        self.write_audit(&mut self.tables(), note, &by);
        ready(())
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        let tables = self.tables();
        let with_label = |entry: &AuditEntry| {
            let mut entry = entry.clone();
            let record = entry.key_id.as_ref().and_then(|id| tables.record(id));
            entry.label = record.map(|record| record.label.clone());
            entry
        };
        let entries = tables.audit.iter().rev().filter(|entry| query.matches(entry));
        ready(entries.take(query.limit).map(with_label).collect())
    }

    fn today(&self) -> Day {
        self.0.calendar.window(self.now()).day
    }

    fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    fn probe(&self) -> StoreFuture<()> {
        ready(())
    }
}

// What the claim service calls.

impl HashStore {
    /// Returns the place of the claim with this token, its view, and the id of its key.
    fn find_claim(&self, tables: &Tables, token: &ClaimToken) -> Option<(usize, Claim, KeyId)> {
        let hash = token.hash();
        let at = tables.claims.iter().position(|offered| offered.token == hash)?;
        let OfferedClaim { key: id, claim, withdrawn, .. } = &tables.claims[at];
        let record = tables.keys.get(id).map(|key| &*key.record);
        let state = claim.state(*withdrawn, record, self.now());
        Some((at, Claim::new(claim, state, record), id.clone()))
    }
}

impl ClaimStore for HashStore {
    fn claim(&self, token: ClaimToken) -> StoreFuture<Option<Claim>> {
        ready(self.find_claim(&self.tables(), &token).map(|(_, claim, _)| claim))
    }

    fn open_claim(
        &self,
        token: ClaimToken,
        secret: SecretKey,
        by: Actor,
        on_opened: OnOpened,
    ) -> StoreFuture<ClaimOutcome> {
        let mut tables = self.tables();
        let Some((at, claim, id)) = self.find_claim(&tables, &token) else {
            return ready(ClaimOutcome::Unknown);
        };
        let (ClaimState::Open, Some(before)) = (claim.state, self.summary(&tables, &id)) else {
            return ready(ClaimOutcome::NotOpen(claim.state));
        };
        tables.claims[at].claim.opened_at = Some(self.now());
        let change = KeyChange::Rotate(Rotation::new(secret, Duration::ZERO));
        self.apply(&mut tables, &id, &change);
        let after = self.summary(&tables, &id).unwrap_or_else(|| before.clone());
        let note = AuditNote::claim_opened(&change, &before, &after);
        self.write_audit(&mut tables, note, &by);
        on_opened(&after);
        ready(ClaimOutcome::Opened(after.into()))
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), BoxError> {
    type Body = Full<bytes::Bytes>;
    let store = HashStore::new(Calendar::utc(), SystemClock);

    let tokens = AdminTokens::parse("correct-horse-battery-staple")?;
    let issue = Request::post("/admin/keys")
        .header("authorization", "Bearer correct-horse-battery-staple")
        .body(Body::from(r#"{"label": "alice", "daily_limit": 2}"#))?;
    let issued = admin_service(store.clone(), tokens).oneshot(issue).await?;
    let issued = issued.into_body().collect().await?.to_bytes();
    let issued: serde_json::Value = serde_json::from_slice(&issued)?;
    let key = issued["key"].as_str().ok_or("no key was issued")?;

    let hello = async |_| Ok::<_, Infallible>(Response::new(Body::from("hello")));
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(service_fn(hello));
    for expected in [200, 200, 429] {
        let request = Request::get("/").header("authorization", format!("Bearer {key}"));
        let response = service.clone().oneshot(request.body(Body::default())?).await?;
        println!("{}", response.status());
        assert_eq!(response.status(), expected);
    }
    Ok(())
}
