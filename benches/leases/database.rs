//! What the database knows of trips.

use tower_quota::key::KeyId;

use crate::postgres::psql;

/// A function before `extend_lease` that records each trip. It is in a schema of its own, which is searched first.
const WATCH: &str = "
    CREATE SCHEMA watched;
    CREATE UNLOGGED TABLE watched.trips (
        key_id text, node int, needs bigint, state text, at timestamptz
    );
    CREATE FUNCTION watched.extend_lease(
        of_key text, of_quota text, of_day text, of_node int, of_session bigint,
        begins timestamptz, ends timestamptz, node_time timestamptz,
        known_seq bigint, keeps bigint, has_spent bigint, needs bigint, max_size bigint,
        within bigint, default_limit bigint,
        OUT state text, OUT granted bigint, OUT spent bigint, OUT seq bigint,
        OUT total bigint, OUT epoch bigint, OUT at timestamptz
    ) LANGUAGE plpgsql AS $$
    BEGIN
        SELECT e.* INTO state, granted, spent, seq, total, epoch, at FROM public.extend_lease(
            of_key, of_quota, of_day, of_node, of_session, begins, ends, node_time,
            known_seq, keeps, has_spent, needs, max_size, within, default_limit) AS e;
        INSERT INTO watched.trips VALUES (of_key, of_node, needs, state, clock_timestamp());
    END $$;
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = watched, public', current_database());
    END $$";

/// A database whose trips are recorded.
pub(crate) struct Database {
    url: String,
}

/// Trips of one key.
pub(crate) struct Trips {
    /// Trips for more units.
    pub(crate) extensions: u64,
    /// Trips that give units back.
    pub(crate) returns: u64,
    pub(crate) recalls: u64,
    /// Trips that have found that other nodes have what is left.
    pub(crate) elsewhere: Vec<Elsewhere>,
}

pub(crate) struct Elsewhere {
    /// Number of the node, in the order in which they were opened for the first time.
    pub(crate) node: usize,
    /// Microseconds since the Unix epoch.
    pub(crate) at: u64,
}

impl Database {
    /// Records the trips of all connections from now on.
    pub(crate) fn watch(url: String) -> Self {
        psql(&url, WATCH);
        Self { url }
    }

    pub(crate) fn trips(&self, key: &KeyId) -> Trips {
        let key = key.as_str();
        let [extensions, returns, recalls] = self.numbers(&format!(
            "SELECT count(*) FILTER (WHERE needs > 0), count(*) FILTER (WHERE needs = 0),
                (SELECT coalesce(sum(recalls), 0) FROM counters WHERE key_id = '{key}')
             FROM watched.trips WHERE key_id = '{key}'"
        ))[0];
        let elsewhere = self.numbers(&format!(
            "SELECT (SELECT count(*) FROM nodes n WHERE n.number < t.node),
                (extract(epoch FROM t.at) * 1000000)::bigint
             FROM watched.trips t WHERE t.key_id = '{key}' AND t.state = 'elsewhere' ORDER BY t.at"
        ));
        let elsewhere =
            elsewhere.into_iter().map(|[node, at]| Elsewhere { node: node as usize, at });
        Trips { extensions, returns, recalls, elsewhere: elsewhere.collect() }
    }

    /// Returns the number of checkpoints that reported leases. The stores are closed, so all is counted.
    pub(crate) fn checkpoints(&self) -> u64 {
        let calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions
            WHERE funcname = 'report_leases'";
        let [[calls]] = self.numbers(calls)[..] else { return 0 };
        calls
    }

    fn numbers<const N: usize>(&self, query: &str) -> Vec<[u64; N]> {
        let text = psql(&self.url, query);
        let row = |line: &str| {
            let mut columns = line.split('|').map(|number| number.parse().unwrap_or_default());
            std::array::from_fn(|_| columns.next().unwrap_or_default())
        };
        text.lines().map(row).collect()
    }
}
