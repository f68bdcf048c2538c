-- Rows are locked in this order: daily_usage, counters, leases; of each table in the order of its key.
CREATE TABLE counters (
    key_id text COLLATE "C" NOT NULL,
    quota text COLLATE "C" NOT NULL,
    day text COLLATE "C" NOT NULL,
    granted bigint NOT NULL,
    earlier bigint NOT NULL,
    epoch bigint NOT NULL,
    cap bigint,
    is_over boolean NOT NULL DEFAULT false,
    recalls bigint NOT NULL DEFAULT 0,
    recalled_at timestamptz,
    held_until timestamptz,
    PRIMARY KEY (key_id, quota, day)
) WITH (fillfactor = 70);
CREATE INDEX counters_recalled ON counters (recalled_at) WHERE recalled_at IS NOT NULL;
CREATE INDEX counters_by_day ON counters (day);
CREATE TABLE leases (
    key_id text COLLATE "C" NOT NULL,
    quota text COLLATE "C" NOT NULL,
    day text COLLATE "C" NOT NULL,
    node int NOT NULL REFERENCES nodes (number),
    granted bigint NOT NULL,
    spent bigint NOT NULL,
    checkpointed bigint NOT NULL DEFAULT 0,
    base bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 1,
    recalls bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (key_id, quota, day, node)
) WITH (fillfactor = 70);
CREATE INDEX leases_by_node ON leases (node, day);

-- Notifies all nodes of what one has found out about a counter.
CREATE FUNCTION notify_leases(kind text, detail text, of_quota text, of_day text, of_key text)
RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('tower_quota_leases', concat_ws(' ', kind, detail, of_quota, of_day, of_key));
$$;

-- The units of a period that have been checkpointed, and the epoch of its count.
CREATE FUNCTION count_of(of_key text, of_quota text, of_day text)
RETURNS TABLE (used bigint, epoch bigint) LANGUAGE sql STABLE AS $$
    SELECT
        coalesce((
            SELECT d.used FROM daily_usage d
            WHERE (d.key_id, d.quota, d.day) = (of_key, of_quota, of_day)
        ), 0),
        coalesce((
            SELECT max(d.epoch) FROM daily_usage d WHERE (d.key_id, d.quota) = (of_key, of_quota)
        ), 0)
$$;

-- Reports a lease, and extends it by the units that are needed, or gives back those that are not kept.
CREATE FUNCTION extend_lease(
    of_key text, of_quota text, of_day text, of_node int, of_session bigint,
    begins timestamptz, ends timestamptz, node_time timestamptz,
    known_seq bigint, keeps bigint, has_spent bigint, needs bigint, max_size bigint,
    within bigint, default_limit bigint,
    OUT state text, OUT granted bigint, OUT spent bigint, OUT seq bigint,
    OUT total bigint, OUT epoch bigint, OUT at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    c counters;
    l leases;
    remains bigint;
    size bigint := 0;
    nodes bigint;
    holders text;
BEGIN
    -- Waits for a process that takes over the journal of this node. The number is TRIPS of session.rs.
    PERFORM pg_advisory_xact_lock_shared(1953562626, of_node);
    at := clock_timestamp();
    IF (SELECT n.session FROM nodes n WHERE n.number = of_node) IS DISTINCT FROM of_session THEN
        state := 'displaced';
        RETURN;
    END IF;
    IF coalesce(node_time, at) < begins OR coalesce(node_time, at) >= ends THEN
        state := 'period';
        RETURN;
    END IF;
    SELECT * INTO c FROM counters k WHERE (k.key_id, k.quota, k.day) = (of_key, of_quota, of_day)
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO counters AS k (key_id, quota, day, granted, earlier, epoch)
        SELECT of_key, of_quota, of_day, u.used, u.used, u.epoch
        FROM count_of(of_key, of_quota, of_day) AS u
        ON CONFLICT DO NOTHING;
        SELECT * INTO c FROM counters k WHERE (k.key_id, k.quota, k.day) = (of_key, of_quota, of_day)
        FOR NO KEY UPDATE;
    END IF;
    -- The lock may have been waited for.
    at := clock_timestamp();
    IF coalesce(node_time, at) >= ends THEN
        state := 'period';
        RETURN;
    END IF;
    SELECT * INTO l FROM leases k
    WHERE (k.key_id, k.quota, k.day, k.node) = (of_key, of_quota, of_day, of_node)
    FOR NO KEY UPDATE;
    granted := coalesce(l.granted, 0);
    spent := coalesce(l.spent, 0);
    seq := coalesce(l.seq, 0);
    total := c.granted;
    epoch := c.epoch;
    IF seq <> known_seq THEN
        state := CASE WHEN seq < known_seq THEN 'behind' ELSE 'stale' END;
        RETURN;
    END IF;
    spent := greatest(spent, has_spent);
    -- Without a limit, more is spent than was granted.
    granted := greatest(least(granted, keeps), spent);
    total := c.granted + granted - coalesce(l.granted, 0);
    IF of_quota IN ('daily', 'monthly/month') THEN
        within := least(within, (
            SELECT CASE WHEN own.units IS NULL THEN default_limit ELSE nullif(own.units, 0) END
            FROM api_keys k, LATERAL (
                SELECT CASE of_quota WHEN 'daily' THEN k.daily_limit ELSE k.monthly_limit END AS units
            ) AS own
            WHERE k.id = of_key
        ));
    END IF;
    remains := within - total;
    state := 'done';
    IF needs > 0 THEN
        IF c.held_until > at THEN
            state := 'elsewhere';
        ELSIF remains > 0 THEN
            SELECT greatest(1, count(*)) INTO nodes FROM nodes n WHERE NOT n.is_closed;
            size := CASE
                WHEN l.granted - l.base > 8 AND l.granted * 2 > c.granted THEN (remains + 1) / 2
                -- Some units at once, as the last ones would take a trip each.
                ELSE greatest(4, (remains + nodes - 1) / nodes)
            END;
            size := least(remains, greatest(needs, least(max_size, size)));
            granted := granted + size;
            total := total + size;
        ELSE
            SELECT string_agg(k.node::text, ',') INTO holders FROM leases k
            WHERE (k.key_id, k.quota, k.day) = (of_key, of_quota, of_day)
                AND k.node <> of_node AND k.granted > k.spent;
            state := CASE WHEN holders IS NULL THEN 'used up' ELSE 'elsewhere' END;
        END IF;
    END IF;
    -- Also if as many units are granted as were given back: a late statement must not give them back again.
    IF size > 0 OR granted <> coalesce(l.granted, 0) THEN
        seq := seq + 1;
    END IF;
    IF seq = known_seq THEN
        -- A loss of this commit changes nothing that the node knows of.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF l.seq IS NULL AND granted > 0 THEN
        INSERT INTO leases (key_id, quota, day, node, granted, spent, seq, recalls)
        VALUES (of_key, of_quota, of_day, of_node, granted, spent, seq, c.recalls);
    ELSIF (granted, spent, seq, c.recalls) <> (l.granted, l.spent, l.seq, l.recalls) THEN
        UPDATE leases k SET granted = extend_lease.granted, spent = extend_lease.spent,
            seq = extend_lease.seq, recalls = c.recalls
        WHERE (k.key_id, k.quota, k.day, k.node) = (of_key, of_quota, of_day, of_node);
    END IF;
    IF (total < c.granted OR needs = 0)
        AND (c.is_over OR c.recalled_at > at - interval '1 second') THEN
        PERFORM notify_leases('free', '-', of_quota, of_day, of_key);
        c.is_over := false;
    END IF;
    IF state = 'used up' AND NOT c.is_over THEN
        -- Smaller requests may still use what this node holds.
        IF granted = spent THEN
            PERFORM notify_leases('over', within::text, of_quota, of_day, of_key);
        END IF;
        c.is_over := true;
    END IF;
    IF holders IS NOT NULL
        AND (c.recalled_at IS NULL OR c.recalled_at < at - interval '40 milliseconds') THEN
        PERFORM notify_leases('recall', holders, of_quota, of_day, of_key);
        c.recalled_at := at;
        c.recalls := c.recalls + 1;
    END IF;
    UPDATE counters k SET granted = total, cap = within, is_over = c.is_over,
        recalls = c.recalls, recalled_at = c.recalled_at
    WHERE (k.key_id, k.quota, k.day) = (of_key, of_quota, of_day)
        AND (k.granted, k.cap, k.is_over, k.recalls)
            IS DISTINCT FROM (total, within, c.is_over, c.recalls);
END $$;

-- Reports what a node has spent according to its journal, and units that it gives back.
CREATE FUNCTION report_leases(
    of_node int, keys text[], quotas text[], days text[], epochs bigint[],
    spents bigint[], returneds bigint[], provokeds bigint[], useds bigint[]
) RETURNS TABLE (number bigint, lease_seq bigint, lease_granted bigint, total bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    r record;
    c counters;
    l leases;
    beyond bigint;
    back bigint;
    excess bigint;
BEGIN
    -- Counters of keys without a limit, as others were inserted before the first unit was granted.
    -- They are few, and the epochs of all days of each are read.
    WITH new AS MATERIALIZED (
        SELECT s.* FROM unnest(keys, quotas, days, useds) AS s (key_id, quota, day, used)
        WHERE NOT EXISTS (
            SELECT FROM counters k WHERE (k.key_id, k.quota, k.day) = (s.key_id, s.quota, s.day)
        )
    )
    INSERT INTO counters (key_id, quota, day, granted, earlier, epoch)
    SELECT s.key_id, s.quota, s.day, greatest(0, u.used - s.used), greatest(0, u.used - s.used), u.epoch
    FROM new AS s CROSS JOIN count_of(s.key_id, s.quota, s.day) AS u
    ORDER BY s.key_id, s.quota, s.day
    ON CONFLICT DO NOTHING;
    PERFORM FROM counters k
    JOIN unnest(keys, quotas, days, spents, returneds) AS s (key_id, quota, day, spent, returned)
        ON (k.key_id, k.quota, k.day) = (s.key_id, s.quota, s.day)
    LEFT JOIN leases h ON (h.key_id, h.quota, h.day, h.node) = (s.key_id, s.quota, s.day, of_node)
    WHERE s.returned > 0 OR s.spent > coalesce(h.granted, 0)
    ORDER BY k.key_id, k.quota, k.day FOR NO KEY UPDATE OF k;
    FOR r IN
        SELECT s.* FROM unnest(keys, quotas, days, epochs, spents, returneds, provokeds)
            AS s (key_id, quota, day, epoch, spent, returned, provoked)
        LEFT JOIN leases h ON (h.key_id, h.quota, h.day, h.node) = (s.key_id, s.quota, s.day, of_node)
        WHERE s.returned > 0 OR s.spent > coalesce(h.granted, 0)
        ORDER BY s.key_id, s.quota, s.day
    LOOP
        SELECT * INTO c FROM counters k
        WHERE (k.key_id, k.quota, k.day) = (r.key_id, r.quota, r.day) FOR NO KEY UPDATE;
        SELECT * INTO l FROM leases k
        WHERE (k.key_id, k.quota, k.day, k.node) = (r.key_id, r.quota, r.day, of_node)
        FOR NO KEY UPDATE;
        beyond := greatest(0, r.spent - coalesce(l.granted, 0));
        -- Units from before a reset are not given back.
        back := CASE WHEN r.epoch = c.epoch THEN r.returned ELSE 0 END;
        IF back > 0 AND r.provoked > 0 AND c.cap IS NOT NULL THEN
            -- All nodes give back at most as many provoked units as the limit.
            SELECT least(back, r.provoked, greatest(0, d.refunded - c.cap)) INTO excess
            FROM daily_usage d WHERE (d.key_id, d.quota, d.day) = (r.key_id, r.quota, r.day);
            IF excess > 0 THEN
                back := back - excess;
                UPDATE daily_usage d SET used = d.used + excess
                WHERE (d.key_id, d.quota, d.day) = (r.key_id, r.quota, r.day);
            END IF;
        END IF;
        INSERT INTO leases AS k (key_id, quota, day, node, granted, spent, checkpointed, base, seq)
        VALUES (r.key_id, r.quota, r.day, of_node, r.spent, r.spent, r.spent, back, 0)
        ON CONFLICT (key_id, quota, day, node) DO UPDATE SET granted = k.granted + beyond,
            spent = greatest(k.spent, excluded.spent),
            checkpointed = greatest(k.checkpointed, excluded.spent), base = k.base + back;
        IF back > 0 AND (c.is_over OR c.recalled_at > clock_timestamp() - interval '1 second') THEN
            PERFORM notify_leases('free', '-', r.quota, r.day, r.key_id);
        END IF;
        UPDATE counters k
        SET granted = k.granted + beyond - back, is_over = k.is_over AND back = 0
        WHERE (k.key_id, k.quota, k.day) = (r.key_id, r.quota, r.day);
    END LOOP;
    WITH reported AS (
        SELECT k.key_id, k.quota, k.day, s.spent FROM leases k
        JOIN unnest(keys, quotas, days, spents) AS s (key_id, quota, day, spent)
            ON (k.key_id, k.quota, k.day) = (s.key_id, s.quota, s.day)
        WHERE k.node = of_node AND k.checkpointed < s.spent AND s.spent <= k.granted
        ORDER BY k.key_id, k.quota, k.day FOR NO KEY UPDATE OF k
    )
    UPDATE leases k SET spent = greatest(k.spent, reported.spent), checkpointed = reported.spent
    FROM reported
    WHERE (k.key_id, k.quota, k.day, k.node)
        = (reported.key_id, reported.quota, reported.day, of_node);
    RETURN QUERY
    SELECT s.number, k.seq, k.granted, c.granted
    FROM unnest(keys, quotas, days) WITH ORDINALITY AS s (key_id, quota, day, number)
    JOIN leases k ON (k.key_id, k.quota, k.day, k.node) = (s.key_id, s.quota, s.day, of_node)
    JOIN counters c ON (c.key_id, c.quota, c.day) = (s.key_id, s.quota, s.day);
END $$;

-- The counters that a checkpoint of these changes if it also ends all leases of a node. A transaction that locked rows of a
-- table in two parts, each in the order of its keys, would wait for one that waits for it. So these lock the rows at once.
CREATE FUNCTION ended_counters(of_node int, keys text[], quotas text[], days text[])
RETURNS TABLE (key_id text, quota text, day text) LANGUAGE sql STABLE AS $$
    SELECT l.key_id, l.quota, l.day FROM leases l
    WHERE l.node = of_node AND l.granted > l.checkpointed
    UNION SELECT * FROM unnest(keys, quotas, days);
$$;
CREATE FUNCTION lock_ended_units(of_node int, keys text[], quotas text[], days text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM daily_usage d
    WHERE (d.key_id, d.quota, d.day) IN (SELECT * FROM ended_counters(of_node, keys, quotas, days))
    ORDER BY d.key_id, d.quota, d.day FOR NO KEY UPDATE;
END $$;
CREATE FUNCTION lock_ended_counters(of_node int, keys text[], quotas text[], days text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM counters c
    WHERE (c.key_id, c.quota, c.day) IN (SELECT * FROM ended_counters(of_node, keys, quotas, days))
    ORDER BY c.key_id, c.quota, c.day FOR NO KEY UPDATE;
END $$;

-- Gives back all units of a node that it has not spent, or counts them as used.
CREATE FUNCTION end_leases(of_node int, counts_as_used boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF counts_as_used THEN
        -- Records of units that trips have reported may be lost, too.
        INSERT INTO daily_usage AS d (key_id, quota, day, epoch, used)
        SELECT l.key_id, l.quota, l.day, c.epoch, l.granted - greatest(l.checkpointed, l.base)
        FROM leases l JOIN counters c ON (c.key_id, c.quota, c.day) = (l.key_id, l.quota, l.day)
        WHERE l.node = of_node AND l.granted > greatest(l.checkpointed, l.base)
        ORDER BY l.key_id, l.quota, l.day
        ON CONFLICT (key_id, quota, day) DO UPDATE SET used = d.used + excluded.used
        WHERE d.epoch = excluded.epoch;
        UPDATE leases l SET spent = l.granted, checkpointed = l.granted, seq = l.seq + 1
        WHERE l.node = of_node AND l.granted > l.checkpointed;
        RETURN;
    END IF;
    PERFORM FROM counters c
    JOIN leases l ON (c.key_id, c.quota, c.day) = (l.key_id, l.quota, l.day)
    WHERE l.node = of_node AND l.granted > l.spent
    ORDER BY c.key_id, c.quota, c.day FOR NO KEY UPDATE OF c;
    PERFORM notify_leases('free', '-', l.quota, l.day, l.key_id)
    FROM leases l JOIN counters c ON (c.key_id, c.quota, c.day) = (l.key_id, l.quota, l.day)
    WHERE l.node = of_node AND l.granted > l.spent
        AND (c.is_over OR c.recalled_at > clock_timestamp() - interval '1 second');
    WITH held AS (
        SELECT l.key_id, l.quota, l.day, l.granted - l.spent AS unused FROM leases l
        WHERE l.node = of_node AND l.granted > l.spent
        ORDER BY l.key_id, l.quota, l.day FOR NO KEY UPDATE
    ), ended AS (
        UPDATE leases l SET granted = l.spent, seq = l.seq + 1 FROM held
        WHERE (l.key_id, l.quota, l.day, l.node) = (held.key_id, held.quota, held.day, of_node)
    )
    UPDATE counters c SET granted = c.granted - held.unused, is_over = false
    FROM held WHERE (c.key_id, c.quota, c.day) = (held.key_id, held.quota, held.day);
END $$;

-- Deletes some counters of past periods, and their leases. Returns how many.
CREATE FUNCTION delete_past_counters(before text, of_months_before text) RETURNS bigint
LANGUAGE sql AS $$
    WITH past AS (
        SELECT c.key_id, c.quota, c.day FROM counters c
        WHERE c.day < before AND (c.quota NOT LIKE '%/%' OR c.day < of_months_before)
        LIMIT 1000 FOR UPDATE SKIP LOCKED
    ), of_nodes AS (
        DELETE FROM leases l USING past
        WHERE (l.key_id, l.quota, l.day) = (past.key_id, past.quota, past.day)
    ), deleted AS (
        DELETE FROM counters c USING past
        WHERE (c.key_id, c.quota, c.day) = (past.key_id, past.quota, past.day) RETURNING 1
    )
    SELECT count(*) FROM deleted;
$$;

-- Calls upon all nodes to give back what they have not spent. Nothing is granted for a moment.
CREATE FUNCTION recall_leases(of_key text, of_quota text, of_day text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    holders text;
BEGIN
    UPDATE counters c SET recalls = c.recalls + 1, recalled_at = clock_timestamp(),
        held_until = clock_timestamp() + interval '40 milliseconds'
    WHERE (c.key_id, c.quota, c.day) = (of_key, of_quota, of_day);
    SELECT string_agg(l.node::text, ',') INTO holders FROM leases l
    WHERE (l.key_id, l.quota, l.day) = (of_key, of_quota, of_day) AND l.granted > l.spent;
    IF holders IS NOT NULL THEN
        PERFORM notify_leases('recall', holders, of_quota, of_day, of_key);
    END IF;
    RETURN holders IS NOT NULL;
END $$;

-- Begins a new count. Units that nodes hold, or have not reported, count in it.
CREATE FUNCTION reset_counter(of_key text, of_quota text, of_day text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    new_epoch bigint;
BEGIN
    UPDATE daily_usage d SET reset_used = d.reset_used + d.used, used = 0, refunded = 0
    WHERE (d.key_id, d.quota) = (of_key, of_quota) AND d.day > of_day;
    INSERT INTO daily_usage AS d (key_id, quota, day, epoch)
    SELECT of_key, of_quota, of_day, coalesce(max(e.epoch), 0) + 1 FROM daily_usage e
    WHERE (e.key_id, e.quota) = (of_key, of_quota)
    ON CONFLICT (key_id, quota, day) DO UPDATE SET
        reset_used = d.reset_used + d.used, used = 0, refunded = 0, epoch = excluded.epoch
    RETURNING epoch INTO new_epoch;
    PERFORM FROM counters c WHERE (c.key_id, c.quota) = (of_key, of_quota) AND c.day >= of_day
    ORDER BY c.day FOR NO KEY UPDATE;
    WITH held AS (
        SELECT l.day, l.node FROM leases l
        WHERE (l.key_id, l.quota) = (of_key, of_quota) AND l.day >= of_day
        ORDER BY l.day, l.node FOR NO KEY UPDATE
    )
    UPDATE leases l SET base = l.spent FROM held
    WHERE (l.key_id, l.quota, l.day, l.node) = (of_key, of_quota, held.day, held.node);
    UPDATE counters c
    SET granted = (
            SELECT coalesce(sum(l.granted - l.base), 0) FROM leases l
            WHERE (l.key_id, l.quota, l.day) = (c.key_id, c.quota, c.day)
        ),
        earlier = 0, epoch = new_epoch, is_over = false, held_until = NULL
    WHERE (c.key_id, c.quota) = (of_key, of_quota) AND c.day >= of_day;
    PERFORM notify_leases('free', '-', of_quota, of_day, of_key);
    RETURN new_epoch;
END $$;
