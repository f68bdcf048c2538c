use schemars::JsonSchema;
use serde::Deserialize;

use super::super::{
    input::{Format, Groups, KeyName, OnDay, PageLimit, Place},
    refusal::Refusal,
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{GroupBy, KeyRef, ReportPage, UsageQuery},
};

/// How many rows are told at once where nothing is said.
const MOST: usize = 1000;
/// Between the first and the last day.
const LONGEST_RANGE: u32 = 365;

/// Which report is asked for. Without arguments it is today's.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ReportWanted {
    /// One day; not beside `from` or `to`.
    day: Option<OnDay>,
    /// The first day; at most 365 days before `to`.
    from: Option<OnDay>,
    /// The last day; today if absent.
    to: Option<OnDay>,
    /// Only this key's use, by id or by its whole text.
    key: Option<KeyName>,
    /// What rows are grouped by: some of `key`, `day` and `model`; `key,day` if absent.
    #[schemars(example = &"key,day")]
    group_by: Option<Groups>,
    /// `csv` tells all rows, streamed; `json` if absent.
    format: Option<Format>,
    /// How many rows are told; 1000 if absent.
    limit: Option<PageLimit>,
    /// The `next` of the page before.
    after: Option<Place>,
}

/// What a report is asked for.
pub(super) struct Wanted {
    pub(super) from: Day,
    pub(super) to: Day,
    pub(super) key: Option<KeyRef>,
    pub(super) group_by: GroupBy,
    pub(super) csv: bool,
    /// How many rows are left out, and how many are told then.
    pub(super) skip: usize,
    limit: usize,
}

impl Wanted {
    pub(super) fn new(asked: ReportWanted, today: Day) -> Result<Self, Refusal> {
        let [day, from, to] =
            [asked.day, asked.from, asked.to].map(|day| day.map(|OnDay(day)| day));
        if day.is_some() && (from.is_some() || to.is_some()) {
            return Err(Refusal::invalid("day", "absent where `from` or `to` is given"));
        }
        let to = to.or(day).unwrap_or_else(|| today.max(from.unwrap_or(today)));
        let from = from.or(day).unwrap_or(to);
        if from > to || from < to.minus(LONGEST_RANGE) {
            return Err(Refusal::invalid("from", "at most 365 days before `to`"));
        }
        let csv = asked.format.is_some_and(|Format(csv)| csv);
        if csv && (asked.limit.is_some() || asked.after.is_some()) {
            let name = if asked.limit.is_some() { "limit" } else { "after" };
            return Err(Refusal::invalid(name, "absent in CSV, which tells all rows"));
        }
        let limit = asked.limit.map_or(MOST, |PageLimit(limit)| limit);
        Ok(Self {
            from,
            to,
            key: asked.key.map(|KeyName(key)| key),
            group_by: asked.group_by.map_or(KEY_AND_DAY, |Groups(groups)| groups),
            csv,
            skip: asked
                .after
                .map_or(0, |Place(after)| usize::try_from(after).unwrap_or(usize::MAX)),
            limit: if csv { usize::MAX } else { limit },
        })
    }

    pub(super) fn query(&self, key_id: Option<KeyId>) -> UsageQuery {
        let page = ReportPage::Busiest { skip: self.skip, limit: self.limit };
        let query = UsageQuery::days(self.from, self.to).group_by(self.group_by).page(page);
        match key_id {
            Some(key_id) => query.key(key_id),
            None => query,
        }
    }

    /// The day of a report of one day.
    pub(super) fn day(&self) -> Option<Day> {
        (self.from == self.to).then_some(self.from)
    }
}

pub(super) const KEY_AND_DAY: GroupBy = GroupBy { key: true, day: true, model: false };
