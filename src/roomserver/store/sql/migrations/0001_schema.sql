-- ---- people ----

CREATE TABLE relay.users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 320),
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    disabled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    session_version integer NOT NULL DEFAULT 1  -- access tokens of an older one are refused
);
CREATE UNIQUE INDEX users_email ON relay.users (lower(email));
CREATE INDEX users_created_at ON relay.users (created_at);

CREATE TABLE relay.refresh_tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES relay.users,
    hash bytea NOT NULL UNIQUE,
    family uuid NOT NULL,  -- all that descend from one login
    successor uuid REFERENCES relay.refresh_tokens ON DELETE SET NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    CHECK (expires_at > issued_at)
);
CREATE INDEX refresh_tokens_user_id ON relay.refresh_tokens (user_id);
CREATE INDEX refresh_tokens_family ON relay.refresh_tokens (family);
CREATE INDEX refresh_tokens_successor ON relay.refresh_tokens (successor);
CREATE INDEX refresh_tokens_expires_at ON relay.refresh_tokens (expires_at);

-- Leave to make one account.
CREATE TABLE relay.account_invites (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    hash bytea NOT NULL UNIQUE,
    email text CHECK (length(email) BETWEEN 3 AND 320),  -- null: for whoever has it
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_by uuid NOT NULL REFERENCES relay.users,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by uuid REFERENCES relay.users,
    revoked_at timestamptz,
    CHECK (expires_at > created_at),
    CHECK ((used_at IS NULL) = (used_by IS NULL))
);
CREATE INDEX account_invites_created_at ON relay.account_invites (created_at DESC);
CREATE INDEX account_invites_expires_at ON relay.account_invites (expires_at);
CREATE INDEX account_invites_created_by ON relay.account_invites (created_by);
CREATE INDEX account_invites_used_by ON relay.account_invites (used_by);

-- ---- servers and rooms ----

CREATE TABLE relay.servers (
    id uuid PRIMARY KEY,
    url text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat timestamptz NOT NULL DEFAULT now(),  -- by this database's clock, never a server's
    -- Whose heartbeat is older has left its rooms to whoever takes them.
    lease_s double precision NOT NULL DEFAULT 60 CHECK (lease_s > 0)
);
CREATE INDEX servers_heartbeat ON relay.servers (heartbeat);

CREATE TABLE relay.audio_rooms (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    code text NOT NULL CHECK (length(code) BETWEEN 1 AND 64),
    name text NOT NULL DEFAULT '' CHECK (length(name) <= 200),
    password_hash text,  -- null: open to everyone
    open boolean NOT NULL GENERATED ALWAYS AS (password_hash IS NULL) STORED,
    created_by uuid REFERENCES relay.users,  -- null: nobody whom this database knows
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    active boolean NOT NULL DEFAULT true,
    public boolean NOT NULL DEFAULT false,
    permanent boolean NOT NULL DEFAULT false,
    state text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'active', 'suspended', 'closed')),
    suspended_until timestamptz CHECK (suspended_until IS NULL OR state = 'suspended'),
    held boolean NOT NULL DEFAULT false CHECK (NOT held OR state = 'suspended'),  -- by its owner
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    channel_names text[] CHECK (cardinality(channel_names) BETWEEN 1 AND 64),
    max_listeners integer NOT NULL DEFAULT 0 CHECK (max_listeners >= 0),  -- 0: no limit
    grace_s double precision CHECK (grace_s >= 0),  -- null: the server's own setting
    server_id uuid REFERENCES relay.servers ON DELETE SET NULL,
    version bigint NOT NULL DEFAULT 1,
    token_version integer NOT NULL DEFAULT 1,  -- room tokens of an older one are refused
    closed_at timestamptz,
    close_reason text CHECK (close_reason IN (
        'closed_by_owner', 'closed_by_admin', 'source_gone', 'expired', 'owner_disabled'
    )),
    CHECK (active = (state <> 'closed')),
    CHECK ((closed_at IS NOT NULL) = (state = 'closed'))
);
-- Of rooms that are open; that a code rests for 30 days afterwards is the server's business.
CREATE UNIQUE INDEX audio_rooms_open_code ON relay.audio_rooms (code) WHERE active;
CREATE INDEX audio_rooms_code ON relay.audio_rooms (code, closed_at);
CREATE INDEX audio_rooms_created_by ON relay.audio_rooms (created_by, created_at DESC);
CREATE INDEX audio_rooms_public ON relay.audio_rooms (created_at DESC) WHERE active AND public;
CREATE INDEX audio_rooms_created_at ON relay.audio_rooms (created_at DESC);
CREATE INDEX audio_rooms_server_id ON relay.audio_rooms (server_id);
-- Whose the open ones are; every server asks with each sign of life.
CREATE INDEX audio_rooms_open_server_id ON relay.audio_rooms (server_id) WHERE active;

CREATE FUNCTION relay.touch() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER audio_rooms_touch BEFORE UPDATE ON relay.audio_rooms
    FOR EACH ROW EXECUTE FUNCTION relay.touch();

-- One row per stay. Its id is made by the server, so that a row that comes twice is one.
CREATE TABLE relay.room_participants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    room_id uuid NOT NULL REFERENCES relay.audio_rooms,
    user_id uuid REFERENCES relay.users,
    participant_id uuid NOT NULL,  -- who it is; survives reconnects
    nickname text CHECK (length(nickname) <= 200),
    client_id text CHECK (length(client_id) <= 200),
    role text NOT NULL CHECK (role IN ('broadcaster', 'listener')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    left_at timestamptz,
    connection_duration double precision CHECK (connection_duration >= 0),  -- s, monotonic clock
    leave_reason text CHECK (leave_reason IN (
        'left', 'lost', 'protocol_error', 'rate_limited', 'too_slow', 'silent', 'taken_over',
        'suspended', 'kicked', 'banned', 'revoked', 'refused', 'room_closed', 'shutdown', 'server_lost'
    )),
    ip_address inet,
    user_agent text,
    server_id uuid REFERENCES relay.servers ON DELETE SET NULL,
    frames_sent bigint NOT NULL DEFAULT 0 CHECK (frames_sent >= 0),  -- a broadcaster's: its packets
    frames_dropped bigint NOT NULL DEFAULT 0 CHECK (frames_dropped >= 0),
    avg_latency_ms double precision,
    CHECK (left_at >= joined_at)
);
CREATE INDEX room_participants_room_id ON relay.room_participants (room_id, joined_at DESC);
CREATE INDEX room_participants_open ON relay.room_participants (server_id) WHERE left_at IS NULL;
CREATE INDEX room_participants_user_id ON relay.room_participants (user_id);
CREATE INDEX room_participants_participant_id ON relay.room_participants (participant_id);
CREATE INDEX room_participants_server_id ON relay.room_participants (server_id);
CREATE INDEX room_participants_left_at ON relay.room_participants (left_at);
CREATE INDEX room_participants_joined_at ON relay.room_participants (joined_at);

-- A clock that was set back must not make a stay end before it began, nor last longer than it did:
-- how long it lasted is what counts, and the end follows from that.
CREATE FUNCTION relay.end_stay() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF NEW.connection_duration IS NULL THEN
        NEW.connection_duration := extract(epoch FROM NEW.left_at - NEW.joined_at);
    ELSE
        NEW.left_at := NEW.joined_at + make_interval(secs => NEW.connection_duration);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER room_participants_end BEFORE INSERT OR UPDATE ON relay.room_participants
    FOR EACH ROW WHEN (NEW.left_at IS NOT NULL) EXECUTE FUNCTION relay.end_stay();

CREATE TABLE relay.room_analytics (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    room_id uuid NOT NULL REFERENCES relay.audio_rooms,
    date date NOT NULL,  -- UTC
    peak_listeners integer NOT NULL DEFAULT 0 CHECK (peak_listeners >= 0),
    total_listen_minutes double precision NOT NULL DEFAULT 0 CHECK (total_listen_minutes >= 0),
    total_listeners integer NOT NULL DEFAULT 0 CHECK (total_listeners >= 0),
    avg_latency_ms double precision,
    total_packets_sent bigint NOT NULL DEFAULT 0 CHECK (total_packets_sent >= 0),
    total_packets_received bigint NOT NULL DEFAULT 0 CHECK (total_packets_received >= 0),
    final boolean NOT NULL DEFAULT false,  -- the stays it was made of may be gone
    UNIQUE (room_id, date)
);
CREATE INDEX room_analytics_date ON relay.room_analytics (date);

-- ---- moderation ----

CREATE TABLE relay.room_bans (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    room_id uuid NOT NULL REFERENCES relay.audio_rooms,
    participant_id uuid,
    user_id uuid REFERENCES relay.users,
    address cidr,  -- one address, or the /64 of an IPv6 one
    reason text,
    created_by uuid REFERENCES relay.users,
    created_at timestamptz NOT NULL DEFAULT now(),
    lifted_at timestamptz,
    CHECK (num_nonnulls(participant_id, user_id, address) >= 1)
);
CREATE INDEX room_bans_room_id ON relay.room_bans (room_id);
CREATE INDEX room_bans_user_id ON relay.room_bans (user_id);
CREATE INDEX room_bans_created_by ON relay.room_bans (created_by);

CREATE TABLE relay.invites (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    room_id uuid NOT NULL REFERENCES relay.audio_rooms,
    created_by uuid NOT NULL REFERENCES relay.users,
    secret_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    max_uses integer CHECK (max_uses > 0),
    uses integer NOT NULL DEFAULT 0 CHECK (uses >= 0 AND (max_uses IS NULL OR uses <= max_uses)),
    revoked_at timestamptz
);
CREATE INDEX invites_room_id ON relay.invites (room_id, created_at DESC);
CREATE INDEX invites_created_by ON relay.invites (created_by);

-- ---- listeners' own ----

CREATE TABLE relay.mix_presets (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid REFERENCES relay.users,
    participant_id uuid,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    faders double precision[] NOT NULL DEFAULT '{}' CHECK (cardinality(faders) <= 64),
    pans double precision[] NOT NULL DEFAULT '{}' CHECK (cardinality(pans) <= 64),
    mutes boolean[] NOT NULL DEFAULT '{}' CHECK (cardinality(mutes) <= 64),
    solos boolean[] NOT NULL DEFAULT '{}' CHECK (cardinality(solos) <= 64),
    master double precision NOT NULL DEFAULT 1 CHECK (master BETWEEN 0 AND 4),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(user_id, participant_id) = 1)
);
CREATE UNIQUE INDEX mix_presets_owner
    ON relay.mix_presets ((coalesce(user_id, participant_id)), name);
CREATE INDEX mix_presets_user_id ON relay.mix_presets (user_id);
CREATE INDEX mix_presets_updated_at ON relay.mix_presets (updated_at);
CREATE TRIGGER mix_presets_touch BEFORE UPDATE ON relay.mix_presets
    FOR EACH ROW EXECUTE FUNCTION relay.touch();

-- ---- records ----

CREATE TABLE relay.audit_log (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_type text NOT NULL CHECK (event_type IN (
        'login_success',
        'login_failure',
        'room_created',
        'room_joined',
        'room_left',
        'room_closed',
        'room_updated',
        'room_suspended',
        'room_resumed',
        'room_password_changed',
        'participant_kicked',
        'participant_banned',
        'ban_lifted',
        'mix_set',
        'invite_created',
        'invite_revoked',
        'rate_limit_exceeded',
        'invalid_token',
        'room_access_denied',
        'request_refused',
        'token_refresh',
        'token_theft',
        'logout',
        'password_changed',
        'account_created',
        'account_disabled',
        'account_enabled',
        'account_role_changed',
        'account_invited',
        'account_invite_revoked',
        'account_anonymised'
    )),
    user_id uuid REFERENCES relay.users,
    room_id uuid REFERENCES relay.audio_rooms,
    ip_address inet,
    user_agent text,
    details jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_created_at ON relay.audit_log (created_at DESC);
CREATE INDEX audit_log_user_id ON relay.audit_log (user_id, created_at DESC);
CREATE INDEX audit_log_room_id ON relay.audit_log (room_id, created_at DESC);
CREATE INDEX audit_log_event_type ON relay.audit_log (event_type, created_at DESC);
-- Whoever is to be forgotten is looked for in attempts to log in, too.
CREATE INDEX audit_log_email ON relay.audit_log (lower(details ->> 'email'))
    WHERE lower(details ->> 'email') IS NOT NULL;

-- How far each server's outbox has been taken over. The row moves in the transaction that takes
-- its events over, so that none is taken twice.
CREATE TABLE relay.outbox_progress (
    stream_id uuid PRIMARY KEY,  -- random per outbox file
    last_seq bigint NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER outbox_progress_touch BEFORE UPDATE ON relay.outbox_progress
    FOR EACH ROW EXECUTE FUNCTION relay.touch();

-- Events that the database refused; they are looked at by people.
CREATE TABLE relay.dead_letters (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    stream_id uuid NOT NULL,
    seq bigint NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream_id, seq)
);
CREATE INDEX dead_letters_created_at ON relay.dead_letters (created_at);
