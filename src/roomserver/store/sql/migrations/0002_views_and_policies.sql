-- ---- views ----

CREATE VIEW relay.active_rooms_view WITH (security_invoker = true) AS
SELECT
    r.id, r.code, r.name, r.created_by, r.created_at, r.public, r.permanent, r.state,
    r.suspended_until, r.metadata, r.channel_names, r.max_listeners, r.server_id,
    p.listeners, p.broadcasters
FROM relay.audio_rooms r
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE role = 'listener') AS listeners,
        count(*) FILTER (WHERE role = 'broadcaster') AS broadcasters
    FROM relay.room_participants
    WHERE room_id = r.id AND left_at IS NULL
) p
WHERE r.active;

-- Stays are half-open intervals: who leaves at the moment somebody joins is not counted with them.
-- One that goes on ends now; one that a server's clock began in the future lasts no time yet.
CREATE VIEW relay.room_statistics_view WITH (security_invoker = true) AS
SELECT
    r.id, r.code, r.name, r.created_by, r.created_at, r.state,
    s.participants, s.sessions, s.listen_seconds, s.average_session_seconds, peak.peak_listeners
FROM relay.audio_rooms r
CROSS JOIN LATERAL (
    SELECT
        count(DISTINCT participant_id) AS participants,
        count(*) AS sessions,
        coalesce(sum(seconds), 0)::double precision AS listen_seconds,
        coalesce(avg(seconds), 0)::double precision AS average_session_seconds
    FROM (
        SELECT
            participant_id,
            extract(
                epoch FROM coalesce(left_at, greatest(joined_at, now())) - joined_at
            ) AS seconds
        FROM relay.room_participants
        WHERE room_id = r.id AND role = 'listener'
    ) stays
) s
CROSS JOIN LATERAL (
    SELECT coalesce(max(present), 0)::bigint AS peak_listeners
    FROM (
        SELECT sum(change) OVER (ORDER BY at, change) AS present
        FROM relay.room_participants,
            LATERAL (VALUES (joined_at, 1), (left_at, -1)) AS moves (at, change)
        WHERE room_id = r.id AND role = 'listener' AND at IS NOT NULL
    ) sweep
) peak;

-- ---- who may see what ----
-- The owner of the tables, as whom the server works, is bound by no policy. Reads on behalf of a
-- user run as `authenticated`, with the claims of the user's token set for the transaction.

CREATE FUNCTION relay.current_user_id() RETURNS uuid LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;

ALTER TABLE relay.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.account_invites ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.servers ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.audio_rooms ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.room_participants ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.room_analytics ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.room_bans ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.invites ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.mix_presets ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.outbox_progress ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay.dead_letters ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA relay TO authenticated;
GRANT EXECUTE ON FUNCTION relay.current_user_id TO authenticated;

-- Policies ask by subqueries, which are evaluated once: a function would be called for each row.
-- Columns are named, so that a column added later is not shown by accident.
GRANT SELECT (id, email, role, disabled_at, created_at) ON relay.users TO authenticated;
CREATE POLICY own ON relay.users FOR SELECT TO authenticated
    USING (id = (SELECT relay.current_user_id()));

GRANT SELECT (
    id, code, name, created_by, created_at, updated_at, active, public, permanent, state,
    suspended_until, held, open, metadata, channel_names, max_listeners, grace_s, server_id,
    closed_at, close_reason
) ON relay.audio_rooms TO authenticated;
-- Not those that are public: that they are listed is the server's doing, with what it lists of them.
CREATE POLICY own ON relay.audio_rooms FOR SELECT TO authenticated
    USING (created_by = (SELECT relay.current_user_id()));

GRANT SELECT (
    id, room_id, user_id, participant_id, nickname, client_id, role, joined_at, left_at,
    connection_duration, leave_reason, ip_address, user_agent, frames_sent, frames_dropped,
    avg_latency_ms
) ON relay.room_participants TO authenticated;
CREATE POLICY own_or_in_own_room ON relay.room_participants FOR SELECT TO authenticated
    USING (
        user_id = (SELECT relay.current_user_id())
        OR room_id IN (
            SELECT id FROM relay.audio_rooms WHERE created_by = (SELECT relay.current_user_id())
        )
    );

GRANT SELECT (
    id, room_id, date, peak_listeners, total_listen_minutes, total_listeners, avg_latency_ms,
    total_packets_sent, total_packets_received, final
) ON relay.room_analytics TO authenticated;
CREATE POLICY of_own_room ON relay.room_analytics FOR SELECT TO authenticated
    USING (
        room_id IN (
            SELECT id FROM relay.audio_rooms WHERE created_by = (SELECT relay.current_user_id())
        )
    );

GRANT SELECT (
    id, room_id, participant_id, user_id, address, reason, created_by, created_at, lifted_at
) ON relay.room_bans TO authenticated;
CREATE POLICY of_own_room ON relay.room_bans FOR SELECT TO authenticated
    USING (
        room_id IN (
            SELECT id FROM relay.audio_rooms WHERE created_by = (SELECT relay.current_user_id())
        )
    );

GRANT SELECT (
    id, user_id, name, faders, pans, mutes, solos, master, updated_at
) ON relay.mix_presets TO authenticated;
CREATE POLICY own ON relay.mix_presets FOR SELECT TO authenticated
    USING (user_id = (SELECT relay.current_user_id()));

GRANT SELECT (
    id, event_type, user_id, room_id, ip_address, user_agent, details, created_at
) ON relay.audit_log TO authenticated;
CREATE POLICY own ON relay.audit_log FOR SELECT TO authenticated
    USING (user_id = (SELECT relay.current_user_id()));

GRANT SELECT ON relay.active_rooms_view, relay.room_statistics_view TO authenticated;
