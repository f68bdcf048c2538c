use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    admin::http::{
        error::AdminError,
        input::{DayParam, Format, GroupByParam, KeyRefField, Offset, PageLimit},
    },
    clock::Day,
    key::KeyId,
    store::{GroupBy, KeyRef, ReportPage, UsageQuery},
};

/// Number of rows on a page without `limit`.
const DEFAULT_PAGE_LEN: usize = 1000;
/// Maximum number of days between the first and the last day.
const MAX_DAYS: u32 = 365;

/// Selects a report. The default is today's.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportQuery {
    /// The only day, instead of `from` and `to`.
    day: Option<DayParam>,
    /// The first day, at most 365 days before `to`.
    from: Option<DayParam>,
    /// The last day, today if absent.
    to: Option<DayParam>,
    /// Only usage of this key, given by id or by the whole key.
    key: Option<KeyRefField>,
    /// Dimensions by which rows are grouped: some of `key`, `day` and `model`; `key,day` if absent.
    #[schemars(example = &"key,day")]
    group_by: Option<GroupByParam>,
    /// `csv` streams all rows; `json` if absent.
    format: Option<Format>,
    /// Maximum number of rows, 1000 if absent.
    limit: Option<PageLimit>,
    /// `next` of the previous page.
    after: Option<Offset>,
}

/// A validated [`ReportQuery`].
pub(super) struct ReportScope {
    pub(super) from: Day,
    pub(super) to: Day,
    pub(super) key: Option<KeyRef>,
    pub(super) group_by: GroupBy,
    /// Whether the report is CSV rather than JSON.
    pub(super) csv: bool,
    /// Number of rows to skip.
    pub(super) skip: usize,
    /// Maximum number of rows after those.
    limit: usize,
}

impl ReportScope {
    pub(super) fn new(query: ReportQuery, today: Day) -> Result<Self, AdminError> {
        let [day, from, to] =
            [query.day, query.from, query.to].map(|day| day.map(|DayParam(day)| day));
        if day.is_some() && (from.is_some() || to.is_some()) {
            return Err(AdminError::invalid_field("day", "absent where `from` or `to` is given"));
        }
        let to = to.or(day).unwrap_or_else(|| today.max(from.unwrap_or(today)));
        let from = from.or(day).unwrap_or(to);
        if from > to || from < to.minus(MAX_DAYS) {
            return Err(AdminError::invalid_field("from", "at most 365 days before `to`"));
        }
        let csv = query.format.is_some_and(|Format(csv)| csv);
        if csv && (query.limit.is_some() || query.after.is_some()) {
            let name = if query.limit.is_some() { "limit" } else { "after" };
            return Err(AdminError::invalid_field(name, "absent in CSV, which contains all rows"));
        }
        let limit = query.limit.map_or(DEFAULT_PAGE_LEN, |PageLimit(limit)| limit);
        Ok(Self {
            from,
            to,
            key: query.key.map(|KeyRefField(key)| key),
            group_by: query.group_by.map_or(BY_KEY_AND_DAY, |GroupByParam(groups)| groups),
            csv,
            skip: query
                .after
                .map_or(0, |Offset(after)| usize::try_from(after).unwrap_or(usize::MAX)),
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

    /// Returns the day, if the report is about one day.
    pub(super) fn day(&self) -> Option<Day> {
        (self.from == self.to).then_some(self.from)
    }
}

pub(super) const BY_KEY_AND_DAY: GroupBy = GroupBy { key: true, day: true, model: false };
