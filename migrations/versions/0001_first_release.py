"""The whole schema of the first release.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"], unique=False)
    op.create_table(
        "chat_counters",
        sa.Column("channel_type", sa.String(), nullable=False),
        sa.Column("platform_id", sa.String(), nullable=False),
        sa.Column("last_order", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("signalled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("channel_type", "platform_id", name=op.f("pk_chat_counters")),
    )
    op.create_table(
        "chat_sdk_kv",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_chat_sdk_kv")),
    )
    op.create_table(
        "chat_sdk_lists",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key", "idx", name=op.f("pk_chat_sdk_lists")),
    )
    op.create_table(
        "chat_sdk_locks",
        sa.Column("thread_id", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("thread_id", name=op.f("pk_chat_sdk_locks")),
    )
    op.create_table(
        "chat_sdk_subscriptions",
        sa.Column("thread_id", sa.String(), nullable=False),
        sa.Column("subscribed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("thread_id", name=op.f("pk_chat_sdk_subscriptions")),
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), server_default="{}", nullable=False),
        sa.Column("capacity", sa.Integer(), server_default="50", nullable=False),
        sa.Column("state", sa.String(), server_default="up", nullable=False),
        sa.Column("storage", sa.String(), server_default="local", nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('up', 'draining', 'down')", name=op.f("ck_hosts_state")),
        sa.CheckConstraint("storage IN ('local', 'shared')", name=op.f("ck_hosts_storage")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "inbound_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("channel_type", sa.String(), nullable=False),
        sa.Column("platform_id", sa.String(), nullable=False),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("platform_message_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("accept_order", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("timestamp", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("is_mention", sa.Integer(), server_default="0", nullable=False),
        sa.Column("is_group", sa.Integer(), nullable=True),
        sa.Column("reply_to", sa.String(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), server_default="pending", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_failed_at", sa.BigInteger(), nullable=True),
        sa.Column("next_try_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("routed_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'routed', 'dropped', 'dead')", name=op.f("ck_inbound_events_state")),
        sa.CheckConstraint("is_mention IN (0, 1)", name=op.f("ck_inbound_events_is_mention")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_events")),
        sa.UniqueConstraint(
            "channel_type", "platform_id", "platform_message_id", "digest", name="uq_inbound_events_identity"
        ),
    )
    op.create_index(
        "ix_inbound_events_next_try_at",
        "inbound_events",
        ["next_try_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND next_try_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'pending' AND next_try_at IS NOT NULL"),
    )
    op.create_index(
        "ix_inbound_events_oldest",
        "inbound_events",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_inbound_events_pending",
        "inbound_events",
        ["channel_type", "platform_id", "accept_order"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("expires_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("payload", sa.String(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_expires_at", "leases", ["expires_at"], unique=False)
    op.create_table(
        "mailbox_items",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("channel_type", sa.String(), nullable=False),
        sa.Column("platform_id", sa.String(), nullable=False),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("files", sa.String(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("shown_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox_items")),
        sa.UniqueConstraint("delivery_id", name=op.f("uq_mailbox_items_delivery_id")),
    )
    op.create_index(
        "ix_mailbox_items_unshown",
        "mailbox_items",
        ["channel_type", "platform_id", "id"],
        unique=False,
        sqlite_where=sa.text("shown_at IS NULL"),
        postgresql_where=sa.text("shown_at IS NULL"),
    )
    op.create_table(
        "messaging_groups",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("channel_type", sa.String(), nullable=False),
        sa.Column("platform_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("is_group", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unknown_sender_policy", sa.String(), server_default="strict", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("denied_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "unknown_sender_policy IN ('strict', 'request_approval', 'public')",
            name=op.f("ck_messaging_groups_unknown_sender_policy"),
        ),
        sa.CheckConstraint("is_group IN (0, 1)", name=op.f("ck_messaging_groups_is_group")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messaging_groups")),
        sa.UniqueConstraint("channel_type", "platform_id", name=op.f("uq_messaging_groups_channel_type_platform_id")),
    )
    op.create_table(
        "schema_meta",
        sa.Column("meta_key", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("schema_version", sa.String(), nullable=False),
        sa.Column("app_version", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("meta_key", name=op.f("pk_schema_meta")),
    )
    op.create_table(
        "ticks",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_ticks")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "agent_groups",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("agent_provider", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_agent_groups_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_groups")),
        sa.UniqueConstraint("folder", name=op.f("uq_agent_groups_folder")),
    )
    op.create_index(op.f("ix_agent_groups_host_id"), "agent_groups", ["host_id"], unique=False)
    op.create_table(
        "drops",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=True),
        sa.Column("channel_type", sa.String(), nullable=False),
        sa.Column("platform_id", sa.String(), nullable=False),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("sender_name", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("messaging_group_id", sa.String(), nullable=True),
        sa.Column("agent_group_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["inbound_events.id"], name=op.f("fk_drops_event_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drops")),
        sa.UniqueConstraint("event_id", name=op.f("uq_drops_event_id")),
    )
    op.create_index(op.f("ix_drops_created_at"), "drops", ["created_at"], unique=False)
    op.create_table(
        "media_blobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=True),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("content_type", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"], ["inbound_events.id"], name=op.f("fk_media_blobs_event_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media_blobs")),
    )
    op.create_index(op.f("ix_media_blobs_event_id"), "media_blobs", ["event_id"], unique=False)
    op.create_table(
        "user_dms",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("channel_type", sa.String(), nullable=False),
        sa.Column("messaging_group_id", sa.String(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["messaging_group_id"], ["messaging_groups.id"], name=op.f("fk_user_dms_messaging_group_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_dms_user_id")),
        sa.PrimaryKeyConstraint("user_id", "channel_type", name=op.f("pk_user_dms")),
    )
    op.create_table(
        "agent_destinations",
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("local_name", sa.String(), nullable=False),
        sa.Column("target_type", sa.String(), nullable=False),
        sa.Column("target_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("target_type IN ('channel', 'agent')", name=op.f("ck_agent_destinations_target_type")),
        sa.ForeignKeyConstraint(
            ["agent_group_id"], ["agent_groups.id"], name=op.f("fk_agent_destinations_agent_group_id")
        ),
        sa.PrimaryKeyConstraint("agent_group_id", "local_name", name=op.f("pk_agent_destinations")),
    )
    op.create_index(
        "ix_agent_destinations_target_type_target_id", "agent_destinations", ["target_type", "target_id"], unique=False
    )
    op.create_table(
        "agent_group_members",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("added_by", sa.String(), nullable=True),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["added_by"], ["users.id"], name=op.f("fk_agent_group_members_added_by")),
        sa.ForeignKeyConstraint(
            ["agent_group_id"], ["agent_groups.id"], name=op.f("fk_agent_group_members_agent_group_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_agent_group_members_user_id")),
        sa.PrimaryKeyConstraint("user_id", "agent_group_id", name=op.f("pk_agent_group_members")),
    )
    op.create_table(
        "container_configs",
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("effort", sa.String(), nullable=True),
        sa.Column("image_tag", sa.String(), nullable=True),
        sa.Column("assistant_name", sa.String(), nullable=True),
        sa.Column("max_messages_per_prompt", sa.Integer(), nullable=True),
        sa.Column("skills", sa.String(), server_default='"all"', nullable=False),
        sa.Column("mcp_servers", sa.String(), server_default="{}", nullable=False),
        sa.Column("packages_apt", sa.String(), server_default="[]", nullable=False),
        sa.Column("packages_npm", sa.String(), server_default="[]", nullable=False),
        sa.Column("additional_mounts", sa.String(), server_default="[]", nullable=False),
        sa.Column("cli_scope", sa.String(), server_default="group", nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("cli_scope IN ('disabled', 'group', 'global')", name=op.f("ck_container_configs_cli_scope")),
        sa.ForeignKeyConstraint(
            ["agent_group_id"],
            ["agent_groups.id"],
            name=op.f("fk_container_configs_agent_group_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("agent_group_id", name=op.f("pk_container_configs")),
    )
    op.create_table(
        "messaging_group_agents",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("messaging_group_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("session_mode", sa.String(), server_default="shared", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("engage_mode", sa.String(), server_default="mention", nullable=False),
        sa.Column("engage_pattern", sa.String(), nullable=True),
        sa.Column("sender_scope", sa.String(), server_default="all", nullable=False),
        sa.Column("ignored_message_policy", sa.String(), server_default="drop", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "engage_mode IN ('pattern', 'mention', 'mention-sticky')",
            name=op.f("ck_messaging_group_agents_engage_mode"),
        ),
        sa.CheckConstraint(
            "ignored_message_policy IN ('drop', 'accumulate')",
            name=op.f("ck_messaging_group_agents_ignored_message_policy"),
        ),
        sa.CheckConstraint("sender_scope IN ('all', 'known')", name=op.f("ck_messaging_group_agents_sender_scope")),
        sa.CheckConstraint(
            "session_mode IN ('shared', 'per-thread', 'agent-shared')",
            name=op.f("ck_messaging_group_agents_session_mode"),
        ),
        sa.ForeignKeyConstraint(
            ["agent_group_id"], ["agent_groups.id"], name=op.f("fk_messaging_group_agents_agent_group_id")
        ),
        sa.ForeignKeyConstraint(
            ["messaging_group_id"], ["messaging_groups.id"], name=op.f("fk_messaging_group_agents_messaging_group_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messaging_group_agents")),
        sa.UniqueConstraint(
            "messaging_group_id",
            "agent_group_id",
            name=op.f("uq_messaging_group_agents_messaging_group_id_agent_group_id"),
        ),
    )
    op.create_index(
        op.f("ix_messaging_group_agents_agent_group_id"), "messaging_group_agents", ["agent_group_id"], unique=False
    )
    op.create_table(
        "pending_channel_approvals",
        sa.Column("messaging_group_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("original_message", sa.String(), nullable=False),
        sa.Column("approver_user_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.String(), server_default="", nullable=False),
        sa.Column("options_json", sa.String(), server_default="[]", nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_group_id"], ["agent_groups.id"], name=op.f("fk_pending_channel_approvals_agent_group_id")
        ),
        sa.ForeignKeyConstraint(
            ["messaging_group_id"],
            ["messaging_groups.id"],
            name=op.f("fk_pending_channel_approvals_messaging_group_id"),
        ),
        sa.PrimaryKeyConstraint("messaging_group_id", name=op.f("pk_pending_channel_approvals")),
    )
    op.create_table(
        "pending_sender_approvals",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("messaging_group_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("sender_identity", sa.String(), nullable=False),
        sa.Column("sender_name", sa.String(), nullable=True),
        sa.Column("original_message", sa.String(), nullable=False),
        sa.Column("approver_user_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.String(), server_default="", nullable=False),
        sa.Column("options_json", sa.String(), server_default="[]", nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_group_id"], ["agent_groups.id"], name=op.f("fk_pending_sender_approvals_agent_group_id")
        ),
        sa.ForeignKeyConstraint(
            ["messaging_group_id"], ["messaging_groups.id"], name=op.f("fk_pending_sender_approvals_messaging_group_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_sender_approvals")),
        sa.UniqueConstraint(
            "messaging_group_id",
            "sender_identity",
            name=op.f("uq_pending_sender_approvals_messaging_group_id_sender_identity"),
        ),
    )
    op.create_index(
        op.f("ix_pending_sender_approvals_messaging_group_id"),
        "pending_sender_approvals",
        ["messaging_group_id"],
        unique=False,
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("messaging_group_id", sa.String(), nullable=True),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("route_key", sa.String(), nullable=False),
        sa.Column("agent_provider", sa.String(), nullable=True),
        sa.Column("status", sa.String(), server_default="active", nullable=False),
        sa.Column("container_status", sa.String(), server_default="stopped", nullable=False),
        sa.Column("last_active", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("next_due_at", sa.BigInteger(), nullable=True),
        sa.Column("due_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("signalled_at", sa.BigInteger(), nullable=True),
        sa.Column("outbound_mark", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("outbound_mark_id", sa.String(), nullable=True),
        sa.Column("append_error", sa.String(), nullable=True),
        sa.Column("wake_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wake_retry_at", sa.BigInteger(), nullable=True),
        sa.Column("wake_error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "container_status IN ('running', 'idle', 'stopped')", name=op.f("ck_sessions_container_status")
        ),
        sa.CheckConstraint("status IN ('active', 'closed')", name=op.f("ck_sessions_status")),
        sa.ForeignKeyConstraint(["agent_group_id"], ["agent_groups.id"], name=op.f("fk_sessions_agent_group_id")),
        sa.ForeignKeyConstraint(
            ["messaging_group_id"], ["messaging_groups.id"], name=op.f("fk_sessions_messaging_group_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_agent_group_id"), "sessions", ["agent_group_id"], unique=False)
    op.create_index(
        "ix_sessions_messaging_group_id_thread_id", "sessions", ["messaging_group_id", "thread_id"], unique=False
    )
    op.create_index("ix_sessions_next_due_at", "sessions", ["next_due_at"], unique=False)
    op.create_index(
        "uq_sessions_route_key",
        "sessions",
        ["route_key"],
        unique=True,
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "thread_engagements",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("messaging_group_id", sa.String(), nullable=False),
        sa.Column("thread_id", sa.String(), nullable=False),
        sa.Column("engaged_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["messaging_group_id"],
            ["messaging_groups.id"],
            name=op.f("fk_thread_engagements_messaging_group_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_thread_engagements_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "messaging_group_id", "thread_id", name=op.f("pk_thread_engagements")),
    )
    op.create_table(
        "user_roles",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=True),
        sa.Column("granted_by", sa.String(), nullable=True),
        sa.Column("granted_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role <> 'owner' OR agent_group_id IS NULL", name=op.f("ck_user_roles_owner_is_global")),
        sa.CheckConstraint("role IN ('owner', 'admin')", name=op.f("ck_user_roles_role")),
        sa.ForeignKeyConstraint(["agent_group_id"], ["agent_groups.id"], name=op.f("fk_user_roles_agent_group_id")),
        sa.ForeignKeyConstraint(["granted_by"], ["users.id"], name=op.f("fk_user_roles_granted_by")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_roles_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_roles")),
    )
    # Without coalesce, several global roles of one user would differ by their NULLs.
    op.create_index(
        "uq_user_roles_grant",
        "user_roles",
        ["user_id", "role", sa.text("coalesce(agent_group_id, '')")],
        unique=True,
    )
    op.create_index("ix_user_roles_scope", "user_roles", ["agent_group_id", "role"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=True),
        sa.Column("message_out_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("channel_type", sa.String(), nullable=True),
        sa.Column("platform_id", sa.String(), nullable=True),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("in_reply_to", sa.String(), nullable=True),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("first_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("send_started_at", sa.BigInteger(), nullable=True),
        sa.Column("sending_owner", sa.String(), nullable=True),
        sa.Column("signalled_at", sa.BigInteger(), nullable=True),
        sa.Column("error_class", sa.String(), nullable=True),
        sa.Column("error_text", sa.String(), nullable=True),
        sa.Column("platform_message_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("projected_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'retrying', 'parked', 'held', 'delivered', 'dead')",
            name=op.f("ck_deliveries_state"),
        ),
        sa.ForeignKeyConstraint(["agent_group_id"], ["agent_groups.id"], name=op.f("fk_deliveries_agent_group_id")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_deliveries_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("session_id", "message_out_id", name=op.f("uq_deliveries_session_id_message_out_id")),
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["next_attempt_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'sending', 'retrying', 'parked')"),
        postgresql_where=sa.text("state IN ('pending', 'sending', 'retrying', 'parked')"),
    )
    op.create_index(
        "ix_deliveries_lane_open",
        "deliveries",
        ["lane", "seq"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'sending', 'retrying', 'parked')"),
        postgresql_where=sa.text("state IN ('pending', 'sending', 'retrying', 'parked')"),
    )
    op.create_index("ix_deliveries_session_id_in_reply_to", "deliveries", ["session_id", "in_reply_to"], unique=False)
    op.create_index(
        "ix_deliveries_session_pending",
        "deliveries",
        ["session_id", "lane"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_deliveries_state_created_at", "deliveries", ["state", "created_at"], unique=False)
    op.create_index(
        "ix_deliveries_unprojected",
        "deliveries",
        ["session_id"],
        unique=False,
        sqlite_where=sa.text("projected_at IS NULL AND state IN ('delivered', 'dead')"),
        postgresql_where=sa.text("projected_at IS NULL AND state IN ('delivered', 'dead')"),
    )
    op.create_index(
        "uq_deliveries_lane_sending",
        "deliveries",
        ["lane"],
        unique=True,
        sqlite_where=sa.text("state = 'sending'"),
        postgresql_where=sa.text("state = 'sending'"),
    )
    op.create_table(
        "host_files",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("schema_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("integrity", sa.String(), nullable=True),
        sa.Column("checked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_host_files_host_id")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_host_files_session_id")),
        sa.PrimaryKeyConstraint("host_id", "path", name=op.f("pk_host_files")),
    )
    op.create_index(op.f("ix_host_files_session_id"), "host_files", ["session_id"], unique=False)
    op.create_table(
        "inbound_routes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("trigger", sa.Integer(), nullable=False),
        sa.Column("inbound_id", sa.String(), nullable=False),
        sa.Column("reply_channel_type", sa.String(), nullable=True),
        sa.Column("reply_platform_id", sa.String(), nullable=True),
        sa.Column("reply_thread_id", sa.String(), nullable=True),
        sa.Column("state", sa.String(), server_default="pending", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("signalled_at", sa.BigInteger(), nullable=True),
        sa.Column("appended_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'appended', 'context', 'completed', 'answered', 'dead')",
            name=op.f("ck_inbound_routes_state"),
        ),
        sa.CheckConstraint("trigger IN (0, 1)", name=op.f("ck_inbound_routes_trigger")),
        sa.ForeignKeyConstraint(["agent_group_id"], ["agent_groups.id"], name=op.f("fk_inbound_routes_agent_group_id")),
        sa.ForeignKeyConstraint(["event_id"], ["inbound_events.id"], name=op.f("fk_inbound_routes_event_id")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_inbound_routes_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_routes")),
        sa.UniqueConstraint("event_id", "session_id", name=op.f("uq_inbound_routes_event_id_session_id")),
    )
    op.create_index(
        "ix_inbound_routes_session_id_inbound_id", "inbound_routes", ["session_id", "inbound_id"], unique=False
    )
    op.create_index(
        "ix_inbound_routes_unappended",
        "inbound_routes",
        ["session_id", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_inbound_routes_unfinished",
        "inbound_routes",
        ["session_id"],
        unique=False,
        sqlite_where=sa.text("state = 'appended'"),
        postgresql_where=sa.text("state = 'appended'"),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("runtime_id", sa.String(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("isolated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("end_reason", sa.String(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("reset_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("runtime IN ('docker', 'process')", name=op.f("ck_instances_runtime")),
        sa.ForeignKeyConstraint(["agent_group_id"], ["agent_groups.id"], name=op.f("fk_instances_agent_group_id")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_instances_host_id")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_instances_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
    )
    op.create_index(
        "ix_instances_host_live",
        "instances",
        ["host_id"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("ix_instances_session_id_epoch", "instances", ["session_id", "epoch"], unique=False)
    op.create_index("ix_instances_host_id_ended_at", "instances", ["host_id", "ended_at"], unique=False)
    op.create_index(
        "uq_instances_live",
        "instances",
        ["session_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "pending_approvals",
        sa.Column("approval_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=True),
        sa.Column("channel_type", sa.String(), nullable=True),
        sa.Column("platform_id", sa.String(), nullable=True),
        sa.Column("platform_message_id", sa.String(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.String(), server_default="pending", nullable=False),
        sa.Column("title", sa.String(), server_default="", nullable=False),
        sa.Column("options_json", sa.String(), server_default="[]", nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'approved', 'rejected', 'expired')", name=op.f("ck_pending_approvals_status")
        ),
        sa.ForeignKeyConstraint(
            ["agent_group_id"], ["agent_groups.id"], name=op.f("fk_pending_approvals_agent_group_id")
        ),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_pending_approvals_session_id")),
        sa.PrimaryKeyConstraint("approval_id", name=op.f("pk_pending_approvals")),
    )
    op.create_index("ix_pending_approvals_action_status", "pending_approvals", ["action", "status"], unique=False)
    op.create_table(
        "pending_questions",
        sa.Column("question_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("message_out_id", sa.String(), nullable=False),
        sa.Column("platform_id", sa.String(), nullable=True),
        sa.Column("channel_type", sa.String(), nullable=True),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("options_json", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_pending_questions_session_id")),
        sa.PrimaryKeyConstraint("question_id", name=op.f("pk_pending_questions")),
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("error_class", sa.String(), nullable=True),
        sa.Column("error_text", sa.String(), nullable=True),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('delivered', 'transient', 'rate_limited', 'permanent', 'destination', 'unknown_outcome')",
            name=op.f("ck_delivery_attempts_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_delivery_attempts_delivery_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_attempts")),
        sa.UniqueConstraint("delivery_id", "number", name=op.f("uq_delivery_attempts_delivery_id_number")),
    )


def downgrade() -> None:
    raise NotImplementedError("Restore the backup taken before the upgrade; there is nothing older to return to.")
