//! Units that may be used without waiting.

#[cfg(any(feature = "sqlite", test))]
use super::lease::Lease;
#[cfg(feature = "postgres")]
use super::share::Share;
use crate::store::counter::Beside;

/// Units that may be used without waiting, and who grants more of them.
#[derive(Debug)]
pub(crate) enum Granted {
    /// The journal of the only process that counts.
    #[cfg(any(feature = "sqlite", test))]
    Journaled(Lease),
    /// A ledger that several nodes share.
    #[cfg(feature = "postgres")]
    Shared(Share),
}

impl Beside for Granted {
    fn begin_period(&mut self) {
        match self {
            #[cfg(any(feature = "sqlite", test))]
            Self::Journaled(lease) => *lease = Lease::default(),
            #[cfg(feature = "postgres")]
            Self::Shared(share) => share.begin_period(),
        }
    }

    #[cfg(any(feature = "admin", test))]
    fn reset(&mut self) {
        match self {
            #[cfg(any(feature = "sqlite", test))]
            Self::Journaled(lease) => *lease = Lease::default(),
            #[cfg(feature = "postgres")]
            Self::Shared(share) => share.reset(),
        }
    }
}
