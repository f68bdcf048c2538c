//! What the options of all stores with an engine have.

/// The setters that the options of all stores with an engine have, in the `impl` of the options.
macro_rules! engine_option_setters {
    () => {
        /// Sets the calendar of the quota's days.
        #[must_use]
        pub fn calendar(self, calendar: $crate::clock::Calendar) -> Self {
            Self { calendar, ..self }
        }

        /// Sets the durability of units.
        #[must_use]
        pub fn durability(self, durability: $crate::store::engine::Durability) -> Self {
            Self { durability, ..self }
        }

        /// Sets the limit of rows that were typed into `api_keys` without one.
        #[must_use]
        pub fn default_daily_limit(mut self, default_daily_limit: $crate::key::Limit) -> Self {
            self.default_limits.daily = default_daily_limit;
            self
        }

        /// Sets the other limits of rows that were typed into `api_keys` without them. There are none by default.
        #[must_use]
        pub fn default_limits(mut self, default_limits: $crate::key::KeyLimits) -> Self {
            self.default_limits.others = default_limits;
            self
        }

        /// Sets the number of days for which single requests are kept, in addition to the daily sums,
        /// which are kept forever. The default is 0, which keeps none.
        #[must_use]
        pub fn retention_days(self, retention_days: u32) -> Self {
            Self { retention_days, ..self }
        }
    };
}

pub(crate) use engine_option_setters;
