-- Every statement the host runs on inbound.db, by name.

-- name: configure
PRAGMA journal_mode = DELETE;
-- FULL would not make the journal's removal, which is the commit, durable: a power cut could take the last one back.
PRAGMA synchronous = EXTRA;
PRAGMA foreign_keys = ON;

-- name: schema_version
PRAGMA user_version;

-- name: columns
SELECT m.name || '.' || c.name FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table';

-- name: begin
BEGIN IMMEDIATE;

-- name: max_seq
SELECT coalesce(max(seq), 0) FROM messages_in;

-- name: present
SELECT id FROM messages_in WHERE id IN (SELECT value FROM json_each(?));

-- name: insert
INSERT INTO messages_in (id, seq, kind, timestamp, process_after, recurrence, series_id, trigger,
                         platform_id, channel_type, thread_id, content, source_session_id, on_wake)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- Both sides go through datetime(): an ISO text compares greater than SQLite's own form, and a text that is no
-- time becomes NULL, which is never due. The runner uses the same rule.
-- name: count_due
SELECT count(*) FROM messages_in
 WHERE status = 'pending' AND trigger = 1 AND (process_after IS NULL OR datetime(process_after) <= datetime(:now));

-- The second in which `count_due` begins to count a row; a row without a time has been due for ever.
-- name: next_due
SELECT min(iif(process_after IS NULL, 0, CAST(strftime('%s', process_after) AS INTEGER) * 1000)) FROM messages_in
 WHERE status = 'pending' AND trigger = 1 AND id NOT IN (SELECT value FROM json_each(:settled));

-- name: open_rows
SELECT id, kind FROM (SELECT id, kind, seq FROM messages_in WHERE status = 'pending'
                      UNION ALL SELECT id, kind, seq FROM messages_in WHERE status = 'paused') ORDER BY seq;

-- A terminal state is left by an operator only: a late ack does not revive a failed row.
-- name: complete
UPDATE messages_in SET status = 'completed'
 WHERE id IN (SELECT value FROM json_each(?)) AND status IN ('pending', 'paused') RETURNING id;

-- name: fail
UPDATE messages_in SET status = 'failed' WHERE id = :id AND status IN ('pending', 'paused');

-- name: retry
UPDATE messages_in SET tries = :tries, process_after = :process_after WHERE id = :id AND status = 'pending';

-- What the host says of an occurrence that nobody has taken yet.
-- name: revise
UPDATE messages_in SET content = :content, process_after = :process_after, recurrence = :recurrence, status = :status
 WHERE id = :id AND status IN ('pending', 'paused')
   AND (content, coalesce(process_after, ''), coalesce(recurrence, ''), status)
       <> (:content, coalesce(:process_after, ''), coalesce(:recurrence, ''), :status);

-- name: claimed
SELECT id, coalesce(status, ''), coalesce(tries, 0),
       CAST(round((julianday(process_after) - 2440587.5) * 86400000.0) AS INTEGER)
  FROM messages_in WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq;

-- name: row_by_id
SELECT id, seq, kind, timestamp, status, process_after, recurrence, series_id, tries, trigger,
       platform_id, channel_type, thread_id, content, source_session_id, on_wake
  FROM messages_in WHERE id = ?;

-- name: row_by_seq
SELECT id, seq, kind, timestamp, status, process_after, recurrence, series_id, tries, trigger,
       platform_id, channel_type, thread_id, content, source_session_id, on_wake
  FROM messages_in WHERE seq = ?;

-- name: source_session_id
SELECT source_session_id FROM messages_in WHERE id = ?;

-- name: newest_peer
SELECT source_session_id FROM messages_in
 WHERE channel_type = 'agent' AND platform_id = ? AND timestamp <= ? AND source_session_id IS NOT NULL
 ORDER BY seq DESC LIMIT 1;

-- What was given up may yet be delivered, when an operator has it tried again.
-- name: record_delivery
INSERT INTO delivered (message_out_id, platform_message_id, status, delivered_at) VALUES (?, ?, ?, ?)
ON CONFLICT (message_out_id) DO UPDATE
  SET platform_message_id = excluded.platform_message_id, status = excluded.status, delivered_at = excluded.delivered_at
  WHERE delivered.status = 'failed' AND excluded.status = 'delivered';

-- name: delivered
SELECT message_out_id, status FROM delivered WHERE message_out_id IN (SELECT value FROM json_each(?));

-- name: clear_destinations
DELETE FROM destinations;

-- name: insert_destination
INSERT INTO destinations (name, display_name, type, channel_type, platform_id, agent_group_id)
VALUES (?, ?, ?, ?, ?, ?);

-- name: destinations
SELECT name, display_name, type, channel_type, platform_id, agent_group_id FROM destinations ORDER BY name;

-- name: set_session_routing
INSERT INTO session_routing (id, channel_type, platform_id, thread_id) VALUES (1, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
  SET channel_type = excluded.channel_type, platform_id = excluded.platform_id, thread_id = excluded.thread_id;
