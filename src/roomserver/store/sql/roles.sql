-- Whom user-scoped reads run as: it sees what the policies let it see. Made by whoever may make
-- roles; `relay.*` is owned by the role that the server connects as, which no policy binds: the one
-- that relay.service names, else the one that runs this.
DO $$
DECLARE
    service name := coalesce(nullif(current_setting('relay.service', true), ''), CURRENT_USER);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated') THEN
        BEGIN
            CREATE ROLE authenticated NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- by a server on another database of the same PostgreSQL, at this moment
        END;
    END IF;
    IF current_setting('server_version_num')::integer < 160000 THEN
        IF NOT pg_has_role(service, 'authenticated', 'MEMBER') THEN
            EXECUTE format('GRANT authenticated TO %I', service);
        END IF;
    -- Who makes a role since PostgreSQL 16 may give it away, but not be it without saying so.
    ELSIF NOT pg_has_role(service, 'authenticated', 'SET') THEN
        EXECUTE format('GRANT authenticated TO %I WITH SET TRUE', service);
    END IF;
END
$$;
