//! Pages and summaries of keys.

use rusqlite::{
    Connection, ToSql, named_params,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    super::{core::Core, keys::columns, rows},
    claims,
};
use crate::{
    admin::store::{KeyPage, KeyPageQuery, KeyRef, KeySort, KeyState, KeySummary, PagePosition},
    clock::from_unix_millis,
    key::SecretKey,
    store::counter::CounterKey,
};

/// Columns with the usage of a key.
const USAGE: &str = "
    (SELECT used FROM daily_usage u
     WHERE u.key_id = k.id AND u.quota = 'daily' AND u.day = :day) AS used_today,
    (SELECT CAST(total(used + reset_used) AS INTEGER) FROM daily_usage u
     WHERE u.key_id = k.id AND u.quota = 'daily') AS total_used,
    (SELECT CAST(max(last_used_at) AS INTEGER) FROM daily_usage u
     WHERE u.key_id = k.id AND u.quota = 'daily') AS last_used_at";

/// Returns the summary of a key.
pub(crate) fn summary(
    connection: &Connection,
    core: &Core,
    key: &KeyRef,
) -> rusqlite::Result<Option<KeySummary>> {
    let condition = "k.id = :id OR k.key_hash = :hash OR k.old_key_hash = :hash
        OR (k.key = :clear AND k.key_hash IS NULL)";
    let id = key.id();
    let values = named_params! {
        ":day": core.today().to_string(),
        ":id": id.as_str(),
        ":hash": key.secret().map(|secret| secret.hash().to_hex()),
        ":clear": key.secret().map(|secret| secret.expose()),
    };
    summary_where(connection, core, condition, values)
}

fn summary_where(
    connection: &Connection,
    core: &Core,
    condition: &str,
    values: &[(&str, &dyn ToSql)],
) -> rusqlite::Result<Option<KeySummary>> {
    let latest_claim = claims::LATEST_CLAIM;
    let sql =
        format!("SELECT {USAGE}, {latest_claim} AS claim, k.* FROM api_keys k WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let last_used_at: Option<i64> = row.get("last_used_at")?;
    let record = columns::record_for_display(row, core.default_limits)?;
    let stored = rows::units(row.get_ref("used_today")?);
    let total = rows::units(row.get_ref("total_used")?);
    // The counter in memory is ahead of the file.
    let count =
        core.engine.counter(&CounterKey::daily(record.id.clone())).map(|counter| counter.count());
    let used = count.filter(|count| count.day == core.today()).map_or(stored, |count| count.used);
    let claim: Option<i64> = row.get("claim")?;
    Ok(Some(KeySummary {
        hash: columns::hash(row)?,
        record,
        used_today: used,
        total_used: (total + used).saturating_sub(stored),
        last_used_at: last_used_at.map(from_unix_millis),
        claim: claim.map(|number| claims::read(connection, number)).transpose()?,
    }))
}

/// Returns one page of keys. The query for their order returns only sequence numbers; the summaries
/// are read one by one.
pub(crate) fn page(
    connection: &Connection,
    core: &Core,
    query: &KeyPageQuery,
) -> rusqlite::Result<KeyPage> {
    let now = core.now();
    let mut keys = Vec::new();
    let mut position = query.after.as_ref().map(|cursor| cursor.position().clone());
    loop {
        let candidates = rows_after(connection, core, query, position.as_ref())?;
        let is_last = candidates.len() <= query.limit;
        for (next, number) in candidates {
            let values = named_params! {":day": core.today().to_string(), ":number": number};
            let key = summary_where(connection, core, "k.seq = :number", values)?;
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

/// Label of a key, which may be of any type, as text with the same bytes.
const LABEL: &str = "CAST(coalesce(k.label, '') AS TEXT) COLLATE NOCASE";
/// Used share of the limit of each key that was used today.
const SHARES: &str = "(
    SELECT u.key_id, u.used * 1.0 / coalesce(k.daily_limit, :default) AS share
    FROM daily_usage u JOIN api_keys k ON k.id = u.key_id
    WHERE u.quota = 'daily' AND u.day = :day AND u.used > 0 AND typeof(k.daily_limit) IN ('integer', 'null')
        AND coalesce(k.daily_limit, :default) > 0)";

/// Returns the positions and sequence numbers of the rows after a position, at most one more than
/// the page can contain.
fn rows_after(
    connection: &Connection,
    core: &Core,
    query: &KeyPageQuery,
    after: Option<&PagePosition>,
) -> rusqlite::Result<Vec<(PagePosition, u64)>> {
    let by_share = !matches!(after, Some(PagePosition::NoShare(_)));
    let (join, condition, order) = match query.sort {
        KeySort::Issued => (String::new(), "k.seq > :number".to_owned(), "k.seq".to_owned()),
        KeySort::Newest => {
            let condition = if after.is_some() { "k.seq < :number" } else { "TRUE" };
            (String::new(), condition.to_owned(), "k.seq DESC".to_owned())
        }
        KeySort::Label => {
            let condition = format!("({LABEL}, k.seq) > (:label, :number)");
            (String::new(), condition, format!("{LABEL}, k.seq"))
        }
        KeySort::NearestLimit if by_share => (
            format!("JOIN {SHARES} s ON s.key_id = k.id"),
            "(-s.share, k.seq) > (-:share, :number)".to_owned(),
            "-s.share, k.seq".to_owned(),
        ),
        KeySort::NearestLimit => (
            format!("LEFT JOIN {SHARES} s ON s.key_id = k.id"),
            "s.key_id IS NULL AND k.seq > :number".to_owned(),
            "k.seq".to_owned(),
        ),
    };
    let share_column = if query.sort == KeySort::NearestLimit { "s.share" } else { "NULL" };
    let (search, state) = (search_condition(query.search.as_deref()), state_condition(query.state));
    let sql = format!(
        "SELECT k.seq, {LABEL}, {share_column} FROM api_keys k {join}
         WHERE {condition} AND {search} AND {state} ORDER BY {order} LIMIT :limit"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let (mut number, mut label, mut share) = (0, &[][..], f64::MAX);
    match after {
        None => {}
        Some(PagePosition::Number(last) | PagePosition::NoShare(last)) => number = *last,
        Some(PagePosition::Label(text, last)) => (label, number) = (text, *last),
        Some(PagePosition::Share(of_last, last)) => (share, number) = (*of_last, *last),
    }
    let text = query.search.as_deref().unwrap_or_default();
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let values: [(&str, &dyn ToSql); 9] = [
        (":day", &core.today().to_string()),
        (":default", &core.default_limits.daily.number()),
        (":number", &number),
        (":label", &RawText(label)),
        (":share", &share),
        (":like", &format!("%{escaped}%")),
        (":hash", &SecretKey::parse(text).ok().map(|key| key.hash().to_hex())),
        (":digits", &format!("{}*", text.to_lowercase())),
        (":limit", &query.limit.saturating_add(1)),
    ];
    for (name, value) in values {
        // A statement has only some of the parameters.
        if let Some(at) = statement.parameter_index(name)? {
            statement.raw_bind_parameter(at, value)?;
        }
    }
    let mut rows = statement.raw_query();
    let mut candidates = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        let position = match query.sort {
            KeySort::Issued | KeySort::Newest => PagePosition::Number(number),
            KeySort::Label => PagePosition::Label(row.get_ref(1)?.as_bytes()?.to_vec(), number),
            KeySort::NearestLimit if by_share => PagePosition::Share(row.get(2)?, number),
            KeySort::NearestLimit => PagePosition::NoShare(number),
        };
        candidates.push((position, number));
    }
    Ok(candidates)
}

/// Text that need not be UTF-8.
struct RawText<'a>(&'a [u8]);

impl ToSql for RawText<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// Returns the condition for keys that match the search.
fn search_condition(search: Option<&str>) -> String {
    let Some(text) = search else { return "TRUE".to_owned() };
    let by_digits = text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let by_digits = if by_digits { "OR k.key_hash GLOB :digits" } else { "" };
    format!(
        "(k.label LIKE :like ESCAPE '\\' OR k.id LIKE :like ESCAPE '\\'
          OR (k.key LIKE :like ESCAPE '\\' AND k.key_hash IS NOT NULL)
          OR k.key_hash = :hash OR k.old_key_hash = :hash {by_digits})"
    )
}

/// Returns a necessary condition for keys in this state. The exact state is known from the summary.
fn state_condition(state: Option<KeyState>) -> &'static str {
    match state {
        None | Some(KeyState::Active) => "TRUE",
        Some(KeyState::Disabled) => {
            "(coalesce(k.disabled, 0) <> 0 OR typeof(k.daily_limit) NOT IN ('integer', 'null')
              OR k.daily_limit NOT BETWEEN 0 AND 1000000000 OR coalesce(k.expires_at, '') <> '')"
        }
        Some(KeyState::Expired) => "coalesce(k.expires_at, '') <> ''",
        // A first unit that is not in the file yet has not exhausted a limit.
        Some(KeyState::Exhausted) => {
            "EXISTS (SELECT 1 FROM daily_usage u
              WHERE u.key_id = k.id AND u.quota = 'daily' AND u.day = :day
              AND u.used > 0)"
        }
    }
}
