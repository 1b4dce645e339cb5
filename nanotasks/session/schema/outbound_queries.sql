-- Every statement the host runs on outbound.db, by name. They read plain columns of plain tables; a function or a
-- table that is added here is added to what `outbound.py` authorises too.

-- name: configure
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA mmap_size = 0;
PRAGMA temp_store = MEMORY;

-- The transaction keeps page 1 and with it the schema that was checked, whatever the agent writes meanwhile.
-- name: begin
BEGIN;

-- Reading the header is enough to make SQLite roll back, and does not look at the schema.
-- name: roll_back
PRAGMA schema_version;

-- An ordinary table has a root page; SQLite refuses a schema in which a view or a virtual table has one.
-- name: tables
SELECT name FROM sqlite_schema
 WHERE type = 'table' AND typeof(rootpage) = 'integer' AND rootpage > 0
   AND name IN ('messages_out', 'processing_ack', 'container_state', 'task_reports');

-- name: columns.messages_out
PRAGMA table_xinfo(messages_out);

-- name: columns.processing_ack
PRAGMA table_xinfo(processing_ack);

-- name: columns.container_state
PRAGMA table_xinfo(container_state);

-- name: columns.task_reports
PRAGMA table_xinfo(task_reports);

-- name: messages_after
SELECT rowid, id, seq, in_reply_to, timestamp, deliver_after, CAST(strftime('%s', deliver_after) AS INTEGER) * 1000,
       kind, platform_id, channel_type, thread_id, content
  FROM messages_out WHERE rowid > ? ORDER BY rowid LIMIT ?;

-- name: next_rowid
SELECT rowid FROM messages_out WHERE rowid > ? ORDER BY rowid LIMIT 1;

-- name: id_at
SELECT id FROM messages_out WHERE rowid = ?;

-- name: max_rowid
SELECT coalesce(max(rowid), 0) FROM messages_out;

-- name: max_seq
SELECT seq FROM messages_out WHERE seq <= ? AND typeof(seq) = 'integer' ORDER BY seq DESC LIMIT 1;

-- name: ack
SELECT substr(status, 1, 12) FROM processing_ack WHERE message_id = ?;

-- Cut to what an honest one may have, because many are in memory at one time.
-- name: claims
SELECT substr(message_id, 1, 1100), substr(status_changed, 1, 40) FROM processing_ack
 WHERE status = 'processing' ORDER BY substr(status_changed, 1, 40) LIMIT ?;

-- name: container_state
SELECT current_tool, tool_declared_timeout_ms, tool_started_at, updated_at FROM container_state WHERE id = 1;

-- Cut to what the host keeps of them.
-- name: task_report
SELECT substr(claimed_at, 1, 40), substr(ended_at, 1, 40), substr(outcome, 1, 20), substr(error_class, 1, 20),
       substr(error, 1, 2000), substr(result, 1, 20000)
  FROM task_reports WHERE message_id = ?;
