//! Pages and summaries of keys.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use super::{
    super::{
        columns,
        core::Core,
        sql::{self, Param, bigint, double, int, ints, text},
    },
    claims::{self, JOIN_LATEST_CLAIM, LATEST_CLAIM},
};
use crate::{
    admin::store::{KeyPage, KeyPageQuery, KeyRef, KeySort, KeyState, KeySummary, PagePosition},
    clock::from_unix_millis,
    key::SecretKey,
    store::counter::CounterKey,
};

/// Returns the summary of a key.
pub(super) async fn summary(
    client: &Client,
    core: &Core,
    key: &KeyRef,
) -> sql::Result<Option<KeySummary>> {
    let (id, hash) = (key.id(), key.secret().map(|secret| secret.hash().to_hex()));
    let condition = "k.id = $2 OR k.key_hash = $3 OR k.old_key_hash = $3";
    let (today, id) = (core.today().to_string(), sql::storable(id.as_str()));
    let found = summaries(client, core, condition, &[text(&today), text(&id), text(&hash)]).await?;
    Ok(found.into_iter().next().map(|(_, key)| key))
}

/// Returns the numbers and summaries of the keys that meet a condition. The first of its parameters is the current day.
async fn summaries(
    client: &Client,
    core: &Core,
    condition: &str,
    values: &[Param<'_>],
) -> sql::Result<Vec<(i64, KeySummary)>> {
    let query = format!(
        "SELECT k.*, u.used_today, u.total_used, u.last_used_at, {LATEST_CLAIM}
         FROM api_keys k
         LEFT JOIN LATERAL (
             SELECT sum(used) FILTER (WHERE day = $1)::bigint AS used_today,
                 sum(used + reset_used)::bigint AS total_used, max(last_used_at) AS last_used_at
             FROM daily_usage WHERE key_id = k.id AND quota = 'daily'
         ) u ON true
         {JOIN_LATEST_CLAIM}
         WHERE {condition}"
    );
    let rows = sql::query(client, &query, values).await?;
    rows.iter().map(|row| Ok((row.try_get("seq")?, read_summary(core, row)?))).collect()
}

fn read_summary(core: &Core, row: &Row) -> sql::Result<KeySummary> {
    let count = |column| row.try_get::<_, Option<i64>>(column).map(Option::unwrap_or_default);
    let record = columns::record_for_display(row, core.default_limits)?;
    let (stored, total) = (sql::count(count("used_today")?), sql::count(count("total_used")?));
    // The counter in memory is ahead of the database.
    let counted =
        core.engine.counter(&CounterKey::daily(record.id.clone())).map(|counter| counter.count());
    let used = counted.filter(|count| count.day == core.today()).map_or(stored, |count| count.used);
    Ok(KeySummary {
        hash: columns::hash(row)?,
        record,
        used_today: used,
        total_used: (total + used).saturating_sub(stored),
        last_used_at: row.try_get::<_, Option<i64>>("last_used_at")?.map(from_unix_millis),
        claim: claims::read_latest(row)?,
    })
}

/// Returns one page of keys.
pub(super) async fn page(
    client: &Client,
    core: &Core,
    query: &KeyPageQuery,
) -> sql::Result<KeyPage> {
    let (now, today) = (core.now(), core.today().to_string());
    let mut keys = Vec::new();
    let mut position = query.after.as_ref().map(|cursor| cursor.position().clone());
    loop {
        let candidates = rows_after(client, core, query, position.as_ref()).await?;
        let is_last = candidates.len() <= query.limit;
        let numbers: Vec<i64> = candidates.iter().map(|(_, number)| *number).collect();
        let values = [text(&today), ints(&numbers)];
        let found = summaries(client, core, "k.seq = ANY($2)", &values).await?;
        let mut found: HashMap<i64, KeySummary> = found.into_iter().collect();
        for (next, number) in candidates {
            let key = found.remove(&number);
            let key = key.filter(|key| query.state.is_none_or(|state| key.state(now) == state));
            if key.is_some() && keys.len() == query.limit {
                return Ok(KeyPage::new(keys, position));
            }
            keys.extend(key);
            position = Some(next);
        }
        if is_last {
            let only_unused_follow = query.sort == KeySort::NearestLimit
                && !matches!(position, Some(PagePosition::NoShare(_)));
            if !only_unused_follow {
                return Ok(KeyPage::new(keys, None));
            }
            position = Some(PagePosition::NoShare(0));
        }
    }
}

/// Label of a key without regard to the case of ASCII letters.
const LABEL: &str = r#"lower(coalesce(k.label, '') COLLATE "C")"#;
/// Used share of the limit of each key that was used today.
const SHARES: &str = "(
    SELECT u.key_id, u.used::float8 / coalesce(k.daily_limit, $2) AS share
    FROM daily_usage u JOIN api_keys k ON k.id = u.key_id
    WHERE u.quota = 'daily' AND u.day = $1 AND u.used > 0 AND coalesce(k.daily_limit, $2) > 0)";

/// Returns the positions and numbers of the rows after a position, at most one more than the page can
/// contain.
async fn rows_after(
    client: &Client,
    core: &Core,
    query: &KeyPageQuery,
    after: Option<&PagePosition>,
) -> sql::Result<Vec<(PagePosition, i64)>> {
    let by_share = !matches!(after, Some(PagePosition::NoShare(_)));
    let (join, condition, order) = match query.sort {
        KeySort::Issued => (String::new(), "k.seq > $3".to_owned(), "k.seq".to_owned()),
        KeySort::Newest => {
            let condition = if after.is_some() { "k.seq < $3" } else { "true" };
            (String::new(), condition.to_owned(), "k.seq DESC".to_owned())
        }
        KeySort::Label => {
            let condition = format!("({LABEL}, k.seq) > (lower($4 COLLATE \"C\"), $3)");
            (String::new(), condition, format!("{LABEL}, k.seq"))
        }
        KeySort::NearestLimit if by_share => (
            format!("JOIN {SHARES} s ON s.key_id = k.id"),
            "(-s.share, k.seq) > (-$5, $3)".to_owned(),
            "-s.share, k.seq".to_owned(),
        ),
        KeySort::NearestLimit => (
            format!("LEFT JOIN {SHARES} s ON s.key_id = k.id"),
            "s.key_id IS NULL AND k.seq > $3".to_owned(),
            "k.seq".to_owned(),
        ),
    };
    let share_column = if query.sort == KeySort::NearestLimit { "s.share" } else { "NULL::float8" };
    let (search, state) = (search_condition(query.search.as_deref()), state_condition(query.state));
    let select = format!(
        "SELECT k.seq, coalesce(k.label, ''), {share_column} FROM api_keys k {join}
         WHERE {condition} AND {search} AND {state} ORDER BY {order} LIMIT $9"
    );
    let (mut number, mut label, mut share) = (0, String::new(), f64::MAX);
    match after {
        None => {}
        Some(PagePosition::Number(last) | PagePosition::NoShare(last)) => number = bigint(*last),
        Some(PagePosition::Label(text, last)) => {
            (label, number) =
                (sql::storable(&String::from_utf8_lossy(text)).into_owned(), bigint(*last));
        }
        Some(PagePosition::Share(of_last, last)) => (share, number) = (*of_last, bigint(*last)),
    }
    let searched = sql::storable(query.search.as_deref().unwrap_or_default());
    let escaped = searched.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let (today, default) = (core.today().to_string(), bigint(core.default_limits.daily.number()));
    let like = format!("%{escaped}%");
    let hash = SecretKey::parse(&searched).ok().map(|key| key.hash().to_hex());
    let (digits, limit) = (format!("{escaped}%"), bigint(query.limit.saturating_add(1)));
    let values = [
        text(&today),
        int(&default),
        int(&number),
        text(&label),
        double(&share),
        text(&like),
        text(&hash),
        text(&digits),
        int(&limit),
    ];
    let rows = sql::query(client, &select, &values).await?;
    let position = |row: &Row| {
        let number: i64 = row.try_get(0)?;
        let count = sql::count(number);
        let position = match query.sort {
            KeySort::Issued | KeySort::Newest => PagePosition::Number(count),
            KeySort::Label => PagePosition::Label(row.try_get::<_, String>(1)?.into_bytes(), count),
            KeySort::NearestLimit if by_share => PagePosition::Share(row.try_get(2)?, count),
            KeySort::NearestLimit => PagePosition::NoShare(count),
        };
        Ok((position, number))
    };
    rows.iter().map(position).collect()
}

/// Returns the condition for keys that match the search.
fn search_condition(search: Option<&str>) -> String {
    let Some(text) = search else { return "true".to_owned() };
    let by_digits = text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let by_digits = if by_digits { "OR k.key_hash LIKE lower($8)" } else { "" };
    let matches =
        |column: &str| format!(r#"lower(k.{column} COLLATE "C") LIKE lower($6 COLLATE "C")"#);
    format!(
        "({} OR {} OR {} OR k.key_hash = $7 OR k.old_key_hash = $7 {by_digits})",
        matches("label"),
        matches("id"),
        matches("key"),
    )
}

/// Returns a necessary condition for keys in this state. The exact state is known from the summary.
fn state_condition(state: Option<KeyState>) -> &'static str {
    match state {
        None | Some(KeyState::Active) => "true",
        Some(KeyState::Disabled) => {
            "(coalesce(k.disabled, 0) <> 0 OR k.daily_limit NOT BETWEEN 0 AND 1000000000
              OR coalesce(k.expires_at, '') <> '')"
        }
        Some(KeyState::Expired) => "coalesce(k.expires_at, '') <> ''",
        // A first unit that is not in the database yet has not exhausted a limit.
        Some(KeyState::Exhausted) => {
            "EXISTS (SELECT 1 FROM daily_usage u
              WHERE u.key_id = k.id AND u.quota = 'daily' AND u.day = $1 AND u.used > 0)"
        }
    }
}
