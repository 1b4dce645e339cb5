-- What older hosts left out of inbound.db, one column each; new tables and indexes come from inbound.sql.

-- name: messages_in.series_id
ALTER TABLE messages_in ADD COLUMN series_id TEXT;
UPDATE messages_in SET series_id = id;

-- name: messages_in.trigger
ALTER TABLE messages_in ADD COLUMN trigger INTEGER NOT NULL DEFAULT 1;

-- name: messages_in.source_session_id
ALTER TABLE messages_in ADD COLUMN source_session_id TEXT;

-- name: messages_in.on_wake
ALTER TABLE messages_in ADD COLUMN on_wake INTEGER NOT NULL DEFAULT 0;

-- name: delivered.platform_message_id
ALTER TABLE delivered ADD COLUMN platform_message_id TEXT;

-- name: delivered.status
ALTER TABLE delivered ADD COLUMN status TEXT NOT NULL DEFAULT 'delivered';
