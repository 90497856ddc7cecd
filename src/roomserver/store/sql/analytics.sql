-- What rooms were on the days from $1 to before $2 (UTC), of room $3 or of all, made of the stays.
-- Stays are half-open intervals, cut at midnight; one that goes on lasts until $4 (null: now).
-- Days that are final are left as they are.
WITH stay AS (
    SELECT
        room_id, role, participant_id, frames_sent, avg_latency_ms, left_at IS NULL AS open,
        joined_at AT TIME ZONE 'UTC' AS joined,
        coalesce(left_at, greatest(joined_at, coalesce($4::timestamptz, now())))
            AT TIME ZONE 'UTC' AS over
    FROM relay.room_participants
    WHERE joined_at < $2::date::timestamp AT TIME ZONE 'UTC'
        -- Nobody leaves before they joined, so that this is in the index of when they left.
        AND (left_at >= $1::date::timestamp AT TIME ZONE 'UTC' OR left_at IS NULL)
        AND (
            joined_at >= $1::date::timestamp AT TIME ZONE 'UTC'
            OR left_at > $1::date::timestamp AT TIME ZONE 'UTC'
            OR left_at IS NULL
        )
        AND ($3::uuid IS NULL OR room_id = $3)
),
piece AS (
    SELECT
        stay.*, day::date AS day, greatest(joined, day) AS piece_from,
        least(over, day + interval '1 day') AS piece_to,
        extract(epoch FROM least(over, day + interval '1 day') - greatest(joined, day)) AS seconds
    FROM stay
    -- One that lasted no time belongs to the day on which it began.
    CROSS JOIN LATERAL generate_series(
        greatest(date_trunc('day', joined), $1::date::timestamp),
        least(
            greatest(joined, over - interval '1 microsecond'),
            $2::date::timestamp - interval '1 microsecond'
        ),
        interval '1 day'
    ) AS day
),
counted AS (
    SELECT
        piece.*,
        -- Packets are known for the whole stay: each of its days has its share, in whole packets,
        -- and all of them together have all.
        CASE
            WHEN seconds = extract(epoch FROM over - joined) THEN frames_sent
            ELSE
                div(
                    frames_sent * extract(epoch FROM piece_to - joined),
                    extract(epoch FROM over - joined)
                )
                - div(
                    frames_sent * extract(epoch FROM piece_from - joined),
                    extract(epoch FROM over - joined)
                )
        END AS packets
    FROM piece
),
total AS (
    SELECT
        room_id, day,
        sum(seconds) FILTER (WHERE role = 'listener') / 60 AS minutes,
        count(DISTINCT participant_id) FILTER (WHERE role = 'listener') AS listeners,
        -- In decimals, so that the order of the stays makes no difference.
        sum(avg_latency_ms::numeric * seconds) FILTER (WHERE role = 'listener')
            / nullif(
                sum(seconds) FILTER (WHERE role = 'listener' AND avg_latency_ms IS NOT NULL), 0
            ) AS latency_ms,
        sum(packets) FILTER (WHERE role = 'listener') AS sent,
        sum(packets) FILTER (WHERE role = 'broadcaster') AS received
    FROM counted
    GROUP BY room_id, day
),
peak AS (
    SELECT room_id, day, max(present) AS listeners
    FROM (
        -- A leave comes before a join of the same moment. Who is still there has not left.
        SELECT room_id, day, sum(change) OVER (PARTITION BY room_id, day ORDER BY at, change) AS present
        FROM piece
        CROSS JOIN LATERAL (
            VALUES (piece_from, 1), (CASE WHEN NOT open THEN piece_to END, -1)
        ) AS moves (at, change)
        WHERE role = 'listener' AND at IS NOT NULL
    ) AS sweep
    GROUP BY room_id, day
)
INSERT INTO relay.room_analytics AS known (
    room_id, date, peak_listeners, total_listen_minutes, total_listeners, avg_latency_ms,
    total_packets_sent, total_packets_received
)
SELECT
    room_id, day, coalesce(peak.listeners, 0), coalesce(minutes, 0), total.listeners, latency_ms,
    coalesce(sent, 0), coalesce(received, 0)
FROM total
LEFT JOIN peak USING (room_id, day)
ORDER BY room_id, day  -- so that two who do this at once wait for each other in one order
ON CONFLICT (room_id, date) DO UPDATE SET
    peak_listeners = excluded.peak_listeners,
    total_listen_minutes = excluded.total_listen_minutes,
    total_listeners = excluded.total_listeners,
    avg_latency_ms = excluded.avg_latency_ms,
    total_packets_sent = excluded.total_packets_sent,
    total_packets_received = excluded.total_packets_received
WHERE NOT known.final
