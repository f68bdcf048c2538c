use super::super::{query::Params, refusal::Refusal};
use crate::{
    clock::Day,
    key::KeyId,
    store::{GroupBy, KeyRef, Page, UsageQuery},
};

/// The most rows that are told at once, and how many where nothing is said.
const MOST: usize = 1000;
const LIMIT: &str = "a whole number from 1 to 1000";
const LONGEST_RANGE: u32 = 366;

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
    pub(super) fn read(mut params: Params, today: Day) -> Result<Self, Refusal> {
        const DAY: &str = "a day such as 2026-11-22";
        let day: Option<Day> = params.read("day", DAY)?;
        let from = params.read("from", DAY)?;
        let to = params.read("to", DAY)?;
        let key = params.key();
        let group_by = params.text("group_by").map_or(Ok(KEY_AND_DAY), |by| group_by(&by))?;
        let csv = match params.text("format").as_deref() {
            None | Some("json") => false,
            Some("csv") => true,
            Some(_) => return Err(Refusal::invalid("format", "`json` or `csv`")),
        };
        let limit = params.read("limit", LIMIT)?.unwrap_or(MOST);
        if !(1..=MOST).contains(&limit) {
            return Err(Refusal::invalid("limit", LIMIT));
        }
        let skip = params.read("after", "what `next` of the page before said")?.unwrap_or(0);
        params.finish()?;
        if day.is_some() && (from.is_some() || to.is_some()) {
            return Err(Refusal::invalid("day", "absent where `from` or `to` is given"));
        }
        let to = to.or(day).unwrap_or_else(|| today.max(from.unwrap_or(today)));
        let from = from.or(day).unwrap_or(to);
        if from > to || from < to.minus(LONGEST_RANGE) {
            return Err(Refusal::invalid("from", "at most 366 days before `to`"));
        }
        let limit = if csv { usize::MAX } else { limit };
        Ok(Self { from, to, key, group_by, csv, skip, limit })
    }

    pub(super) fn query(&self, key_id: Option<KeyId>) -> UsageQuery {
        let page = Page::Busiest { skip: self.skip, limit: self.limit };
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

fn group_by(text: &str) -> Result<GroupBy, Refusal> {
    let mut group_by = GroupBy { key: false, day: false, model: false };
    for part in text.split(',') {
        match part.trim() {
            "key" => group_by.key = true,
            "day" => group_by.day = true,
            "model" => group_by.model = true,
            _ => return Err(Refusal::invalid("group_by", "some of `key,day,model`")),
        }
    }
    Ok(group_by)
}
