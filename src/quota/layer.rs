use std::{fmt, num::NonZeroU32, sync::Arc};

use tower_layer::Layer;

use super::{
    ChargePolicy, ChargeUnlessUndone, CommitPoint, DailyQuota, KeySubject, SubjectSource,
    in_flight::InFlight,
    shared::{Options, Shared},
};
use crate::{
    clock::{Clock, SystemClock},
    error::ProblemJson,
};

/// Gives each subject so many requests a day. See the [module](super) for its rules.
pub struct DailyQuotaLayer<Q, P = ChargeUnlessUndone, F = KeySubject, R = ProblemJson> {
    shared: Arc<Shared<Q, P, F, R>>,
}

impl<Q> DailyQuotaLayer<Q> {
    /// Counts in `store`.
    pub fn new(store: Q) -> Self {
        Self::from_shared(Shared {
            store,
            policy: ChargeUnlessUndone,
            subject: KeySubject,
            reject: ProblemJson,
            options: Options {
                commit: CommitPoint::BeforeResponse,
                in_flight: None,
                clock: Arc::new(SystemClock),
            },
        })
    }
}

impl<Q, P, F, R> DailyQuotaLayer<Q, P, F, R> {
    fn from_shared(shared: Shared<Q, P, F, R>) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

impl<Q: Clone, P: Clone, F: Clone, R: Clone> DailyQuotaLayer<Q, P, F, R> {
    /// Charges by another policy.
    #[must_use]
    pub fn policy<P2: ChargePolicy>(self, policy: P2) -> DailyQuotaLayer<Q, P2, F, R> {
        let Shared { store, subject, reject, options, .. } = Arc::unwrap_or_clone(self.shared);
        DailyQuotaLayer::from_shared(Shared { store, policy, subject, reject, options })
    }

    /// Counts on another subject than the key.
    #[must_use]
    pub fn subject<F2: SubjectSource>(self, subject: F2) -> DailyQuotaLayer<Q, P, F2, R> {
        let Shared { store, policy, reject, options, .. } = Arc::unwrap_or_clone(self.shared);
        DailyQuotaLayer::from_shared(Shared { store, policy, subject, reject, options })
    }

    /// Renders rejections in another form.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> DailyQuotaLayer<Q, P, F, R2> {
        let Shared { store, policy, subject, options, .. } = Arc::unwrap_or_clone(self.shared);
        DailyQuotaLayer::from_shared(Shared { store, policy, subject, reject, options })
    }

    fn set(self, set: impl FnOnce(&mut Options)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        set(&mut shared.options);
        Self::from_shared(shared)
    }

    /// Limits how many requests of one subject may be under way at once; `None` takes the limit
    /// away.
    #[must_use]
    pub fn max_in_flight(self, most: impl Into<Option<NonZeroU32>>) -> Self {
        let in_flight = most.into().map(|most| Arc::new(InFlight::new(most)));
        self.set(|options| options.in_flight = in_flight)
    }

    /// Says when the unit must be durable.
    #[must_use]
    pub fn commit(self, commit: CommitPoint) -> Self {
        self.set(|options| options.commit = commit)
    }

    /// Takes the day from another clock.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set(|options| options.clock = Arc::new(clock))
    }
}

impl<Q, P, F, R> Clone for DailyQuotaLayer<Q, P, F, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<Q, P, F, R> fmt::Debug for DailyQuotaLayer<Q, P, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuotaLayer")
            .field("commit", &self.shared.options.commit)
            .finish_non_exhaustive()
    }
}

impl<S, Q, P, F, R> Layer<S> for DailyQuotaLayer<Q, P, F, R> {
    type Service = DailyQuota<S, Q, P, F, R>;

    fn layer(&self, inner: S) -> Self::Service {
        DailyQuota { inner, shared: self.shared.clone() }
    }
}
