-- A refresh token may be exchanged more than once: by two tabs, or again when the answer was lost.
-- `successor` is the last that it was exchanged for.
-- Whether any of those it was exchanged for has been used is known when each says where it comes from.
ALTER TABLE relay.refresh_tokens
    ADD COLUMN parent uuid REFERENCES relay.refresh_tokens ON DELETE SET NULL;
CREATE INDEX refresh_tokens_parent ON relay.refresh_tokens (parent);
UPDATE relay.refresh_tokens child SET parent = before.id
FROM relay.refresh_tokens before WHERE before.successor = child.id;
