"""Attachments on their way in: their bytes leave the content when it is accepted, and become files when it is appended.

    {"name": "a.pdf", "data": "<base64>"}  →  {"name": "a.pdf", "blobId": "blob-…"} and a row of media_blobs
                                           →  {"name": "a.pdf", "localPath": "inbox/<row id>/a.pdf"} and the file

The second step is `session.attachments`. Blobs go when every route of their event was appended, unless the event
was also dropped for want of an approval: then it can still be replayed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, exists, select

from nanotasks.central.base import table_of
from nanotasks.central.events import Drop, InboundEvent, InboundRoute, MediaBlob
from nanotasks.domain.access import AWAITS_APPROVAL
from nanotasks.domain.base64_text import decode_base64
from nanotasks.ids import new_id
from nanotasks.session.attachments import BLOB, DATA


@dataclass(frozen=True)
class Media:
    """The bytes of one attachment."""

    blob_id: str
    position: int
    name: str | None
    content_type: str | None
    data: bytes


def detach(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Media]]:
    """The content with a `blobId` in place of each attachment's `data`, and the media."""
    attachments = content.get("attachments")
    if not isinstance(attachments, list):
        return content, []
    kept: list[Any] = []
    media: list[Media] = []
    for position, attachment in enumerate(attachments):
        if isinstance(attachment, dict) and isinstance(attachment.get(DATA), str):
            one = _media(position, attachment)
            media.append(one)
            attachment = {**{key: value for key, value in attachment.items() if key != DATA}, BLOB: one.blob_id}
        kept.append(attachment)
    return ({**content, "attachments": kept} if media else content), media


def _media(position: int, attachment: Mapping[str, Any]) -> Media:
    name, mime = attachment.get("name"), attachment.get("mimeType")
    return Media(
        new_id("blob"),
        position,
        name if isinstance(name, str) else None,
        mime if isinstance(mime, str) else None,
        decode_base64(attachment[DATA]),
    )


def read_blobs(connection: Connection, event_ids: Collection[str]) -> dict[str, dict[str, bytes]]:
    """The bytes of these events' attachments: event id → blob id → bytes."""
    found: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    if not event_ids:
        return found
    for event_id, blob_id, data in connection.execute(
        select(MediaBlob.event_id, MediaBlob.id, MediaBlob.data).where(MediaBlob.event_id.in_(event_ids))
    ):
        found[event_id or ""][blob_id] = data
    return found


def delete_left_over(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete blobs that were stored before then and that nobody waits for; how many.

    They are those of messages that no agent got, and on PostgreSQL those of two appends that each left them to the
    other.
    """
    waits = exists().where(InboundEvent.id == MediaBlob.event_id, InboundEvent.state == "pending")
    on_its_way = exists().where(InboundRoute.event_id == MediaBlob.event_id, InboundRoute.state == "pending")
    left = select(MediaBlob.id).where(MediaBlob.created_at < before_ms, ~waits, ~on_its_way).limit(limit)
    ids = list(connection.execute(left).scalars())
    if ids:
        connection.execute(delete(table_of(MediaBlob)).where(MediaBlob.id.in_(ids)))
    return len(ids)


def delete_arrived(connection: Connection, event_ids: Collection[str]) -> None:
    """Delete the blobs of those events that nobody waits for any more."""
    on_its_way = exists().where(InboundRoute.event_id == MediaBlob.event_id, InboundRoute.state == "pending")
    replayable = exists().where(Drop.event_id == MediaBlob.event_id, Drop.reason == AWAITS_APPROVAL)
    arrived = delete(table_of(MediaBlob)).where(MediaBlob.event_id.in_(event_ids), ~on_its_way, ~replayable)
    connection.execute(arrived)
