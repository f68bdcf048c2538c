//! What the database says of leases, whatever has happened.

use crate::common::postgres::psql;

/// Checks that what counters have granted is what leases hold, and never more than the limit of a key that was not lowered.
pub(crate) fn hold(url: &str) {
    let faults = [
        (
            "granted is the sum of the leases, and of what was used before there were leases",
            "SELECT c.key_id, c.granted, c.earlier, sum(l.granted - l.base)
             FROM counters c LEFT JOIN leases l USING (key_id, quota, day)
             GROUP BY c.key_id, c.quota, c.day
             HAVING c.granted <> c.earlier + coalesce(sum(l.granted - l.base), 0)",
        ),
        (
            "no more is granted than the limit",
            "SELECT c.key_id, c.granted, k.daily_limit FROM counters c JOIN api_keys k ON k.id = c.key_id
             WHERE c.granted > k.daily_limit AND k.daily_limit > 0 AND k.label NOT LIKE 'lowered-%'",
        ),
        (
            "no more is spent than granted",
            "SELECT key_id, node, granted, spent, base FROM leases WHERE spent > granted OR base > spent",
        ),
    ];
    for (promise, query) in faults {
        assert_eq!(psql(url, query), "", "{promise}");
    }
}

/// Checks after an orderly end of all gateways that nothing is leased, and that leases and usage agree.
pub(crate) fn hold_at_rest(url: &str) {
    hold(url);
    let leased = "SELECT * FROM leases WHERE granted <> spent";
    assert_eq!(psql(url, leased), "", "an orderly end returns what was not used");
    let differing = "SELECT c.key_id, c.granted, u.used FROM counters c JOIN daily_usage u USING (key_id, quota, day)
        WHERE c.granted <> u.used";
    assert_eq!(psql(url, differing), "", "leases and usage agree");
}
