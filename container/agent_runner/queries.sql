-- Every statement the runner executes, by name. inbound.db is `main` and outbound.db is `acks` in the reading ones.

-- Due: pending, its time has come, meant for this start, and not claimed or answered by this session before.
-- Acks are looked at before the limit, so that answered rows which the host has not synced yet take nobody's place.
-- A row that died with an agent once or twice keeps its place in its chat while it is put off for some seconds; one that
-- keeps failing lets the others pass.
-- name: due_triggers
SELECT m.id, m.seq, m.kind, m.timestamp, 1, m.channel_type, m.platform_id, m.thread_id, m.content, m.tries
  FROM messages_in AS m
 WHERE m.status = 'pending' AND m."trigger" = 1 AND m.kind <> 'system' AND m.id IS NOT NULL
   AND (m.process_after IS NULL OR datetime(m.process_after) <= datetime('now'))
   AND (m.on_wake = 0 OR m.id IN (SELECT value FROM json_each(:wake_ids)))
   AND NOT EXISTS (SELECT 1 FROM acks.processing_ack AS a WHERE a.message_id = m.id)
   AND NOT EXISTS (SELECT 1 FROM messages_in AS o
                    WHERE o.status = 'pending' AND o."trigger" = 1 AND o.kind <> 'system' AND o.tries BETWEEN 1 AND 2
                      AND o.seq < m.seq AND o.channel_type IS m.channel_type AND o.platform_id IS m.platform_id
                      AND datetime(o.process_after) > datetime('now'))
 ORDER BY m.seq, m.rowid
 LIMIT :limit;

-- name: due_context
SELECT m.id, m.seq, m.kind, m.timestamp, 0, m.channel_type, m.platform_id, m.thread_id, m.content, m.tries
  FROM messages_in AS m
 WHERE m.status = 'pending' AND m."trigger" <> 1 AND m.kind <> 'system' AND m.id IS NOT NULL
   AND (m.process_after IS NULL OR datetime(m.process_after) <= datetime('now'))
   AND (m.on_wake = 0 OR m.id IN (SELECT value FROM json_each(:wake_ids)))
   AND NOT EXISTS (SELECT 1 FROM acks.processing_ack AS a WHERE a.message_id = m.id)
 ORDER BY m.seq DESC, m.rowid DESC
 LIMIT :limit;

-- name: overtaken_context
SELECT m.id
  FROM messages_in AS m
 WHERE m.status = 'pending' AND m."trigger" <> 1 AND m.kind <> 'system' AND m.id IS NOT NULL
   AND m.seq < :seq
   AND (m.process_after IS NULL OR datetime(m.process_after) <= datetime('now'))
   AND (m.on_wake = 0 OR m.id IN (SELECT value FROM json_each(:wake_ids)))
   AND m.id NOT IN (SELECT value FROM json_each(:taken))
   AND NOT EXISTS (SELECT 1 FROM acks.processing_ack AS a WHERE a.message_id = m.id);

-- When the next row becomes due, in seconds since 1970: due times count to the second.
-- name: next_due
SELECT min(CAST(strftime('%s', process_after) AS INTEGER)) FROM messages_in
 WHERE status = 'pending' AND kind <> 'system' AND datetime(process_after) > datetime('now');

-- name: wake_ids
SELECT id FROM messages_in WHERE status = 'pending' AND on_wake <> 0;

-- name: inbound_max_seq
SELECT coalesce(max(seq), 0) FROM messages_in;

-- name: newest_inbound_from
SELECT id, thread_id, status = 'pending' FROM messages_in WHERE channel_type = ? AND platform_id = ? ORDER BY seq DESC LIMIT 1;

-- name: destinations
SELECT name, display_name, type, channel_type, platform_id, agent_group_id FROM destinations ORDER BY name;

-- name: session_routing
SELECT channel_type, platform_id, thread_id FROM session_routing WHERE id = 1;

-- name: outbound_max_seq
SELECT coalesce(max(seq), 0) FROM messages_out;

-- name: insert_outbound
INSERT INTO messages_out (id, seq, in_reply_to, timestamp, kind, channel_type, platform_id, thread_id, content)
VALUES (:id, :seq, :in_reply_to, :timestamp, :kind, :channel_type, :platform_id, :thread_id, :content);

-- Claims carry SQLite's UTC text, to the second: the host compares them with its own clock.
-- name: set_ack
INSERT INTO processing_ack (message_id, status, status_changed) VALUES (?, ?, datetime('now'))
ON CONFLICT (message_id) DO UPDATE SET status = excluded.status, status_changed = excluded.status_changed;

-- name: release_claim
DELETE FROM processing_ack WHERE message_id = ? AND status = 'processing';

-- name: release_all_claims
DELETE FROM processing_ack WHERE status = 'processing';

-- name: get_state
SELECT value FROM session_state WHERE key = ?;

-- name: set_state
INSERT INTO session_state (key, value, updated_at) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at;

-- name: delete_state
DELETE FROM session_state WHERE key = ?;

-- name: set_tool
INSERT INTO container_state (id, current_tool, tool_declared_timeout_ms, tool_started_at, updated_at)
VALUES (1, :tool, :timeout_ms, :started_at, :now)
ON CONFLICT (id) DO UPDATE SET current_tool = excluded.current_tool,
  tool_declared_timeout_ms = excluded.tool_declared_timeout_ms, tool_started_at = excluded.tool_started_at,
  updated_at = excluded.updated_at;

-- name: forget_tool
UPDATE container_state SET current_tool = NULL, tool_declared_timeout_ms = NULL, tool_started_at = NULL, updated_at = ?
 WHERE current_tool IS NOT NULL OR tool_declared_timeout_ms IS NOT NULL OR tool_started_at IS NOT NULL;

-- Times of a report carry milliseconds: the host measures by them how late a run began.
-- name: report_claim
INSERT INTO task_reports (message_id, claimed_at) VALUES (:id, :now)
ON CONFLICT (message_id) DO UPDATE SET claimed_at = excluded.claimed_at, ended_at = NULL, outcome = NULL,
  error_class = NULL, error = NULL, result = NULL;

-- name: report_end
INSERT INTO task_reports (message_id, ended_at, outcome, error_class, error, result)
VALUES (:id, :now, :outcome, :error_class, :error, :result)
ON CONFLICT (message_id) DO UPDATE SET ended_at = excluded.ended_at, outcome = excluded.outcome,
  error_class = excluded.error_class, error = excluded.error, result = excluded.result;

-- One row per series, its newest.
-- name: tasks
SELECT coalesce(series_id, id), status, process_after, recurrence, content, max(coalesce(seq, -1))
  FROM messages_in WHERE kind = 'task' AND status IN (SELECT value FROM json_each(?))
 GROUP BY coalesce(series_id, id) ORDER BY process_after, seq;

-- name: answer
SELECT content FROM messages_in WHERE id = ? AND kind = 'system';
