"""Names: what people, platforms and agents call things, made safe and unique.

Every rule is NanoClaw 2's, so that folders, destinations and attachment names written by it are found again.
Checks match the whole text; a trailing newline never slips through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from nanotasks.domain.text import trim

MAX_PACKAGES = 20
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_GROUP_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_APT_PACKAGE = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_NPM_PACKAGE = re.compile(r"(?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*")
_RESERVED_FOLDERS = {"global"}

_EXTENSION_BY_MIME = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/heic": "heic",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/mp4": "m4a",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/zip": "zip",
    "text/plain": "txt",
}
_EXTENSION_BY_TYPE = {
    "image": "jpg",
    "photo": "jpg",
    "sticker": "webp",
    "voice": "ogg",
    "audio": "mp3",
    "video": "mp4",
    "animation": "mp4",
}


def normalize_name(display_name: str) -> str:
    """The local form of a name: lower case, runs of anything but a-z and 0-9 become one `-`; `unnamed` when empty."""
    return _NOT_PLAIN.sub("-", display_name.lower()).strip("-") or "unnamed"


def unique_name(base: str, taken: Container[str] | Callable[[str], bool]) -> str:
    """`base`, or the first of `base-2`, `base-3`, … that is not taken."""
    is_taken = taken if callable(taken) else taken.__contains__
    candidate, number = base, 2
    while is_taken(candidate):
        candidate, number = f"{base}-{number}", number + 1
    return candidate


def group_folder(name: str, taken: Container[str] | Callable[[str], bool]) -> str:
    """The folder of a new agent group called `name`."""
    return unique_name(normalize_name(name), taken)


def is_group_folder(folder: str) -> bool:
    """Whether a person may give a group this folder: 1 to 64 of `A-Z a-z 0-9 _ -`, plain first, and not `global`."""
    return bool(_GROUP_FOLDER.fullmatch(folder)) and folder.lower() not in _RESERVED_FOLDERS


def chat_local_name(
    name: str | None, channel_type: str, chat_id: str, taken: Container[str] | Callable[[str], bool]
) -> str:
    """The destination name an agent gets for a chat that it is wired to."""
    return unique_name(normalize_name(name or f"{channel_type}-{chat_id[:8]}"), taken)


def namespaced_platform_id(channel_type: str, raw: str) -> str:
    """The stored form of a platform's chat id: `<channel>:<raw>`, unless the platform's ids name themselves.

    Stored and received ids must match byte for byte, or messages find no chat.
    """
    names_itself = raw.startswith((f"{channel_type}:", "+", "group:")) or "@" in raw or channel_type == "deltachat"
    return raw if names_itself else f"{channel_type}:{raw}"


def is_safe_name(name: object) -> bool:
    """Whether a name given by a platform or an agent may become one file name inside a folder."""
    return isinstance(name, str) and name not in {"", ".", ".."} and not any(bad in name for bad in "/\\\0")


def derive_attachment_name(attachment: Mapping[str, Any], now_ms: int) -> str:
    """The name of an attachment: its own, or `attachment-<ms>` with an extension from `mimeType`, else from `type`.

    An attachment's own name is returned as it is; whoever writes the file asks `is_safe_name`.
    """
    name = attachment.get("name")
    if isinstance(name, str) and name:
        return name
    extension = extension_for_mime(attachment.get("mimeType")) or _extension_for_type(attachment.get("type"))
    return f"attachment-{now_ms}.{extension}" if extension else f"attachment-{now_ms}"


def extension_for_mime(mime: object) -> str:
    """The extension without its dot, or an empty text; parameters and case of the MIME type do not matter."""
    return _EXTENSION_BY_MIME.get(trim(mime.split(";")[0]).lower(), "") if isinstance(mime, str) else ""


def _extension_for_type(kind: object) -> str:
    return _EXTENSION_BY_TYPE.get(kind.lower(), "") if isinstance(kind, str) else ""


def is_container_name(name: str) -> bool:
    """Whether a text may be handed to the container runtime as a name."""
    return bool(_CONTAINER_NAME.fullmatch(name))


def is_apt_package(name: str) -> bool:
    """Whether an agent may ask for this Debian package; the name ends in a build file."""
    return bool(_APT_PACKAGE.fullmatch(name))


def is_npm_package(name: str) -> bool:
    """Whether an agent may ask for this npm package, with or without an @scope."""
    return bool(_NPM_PACKAGE.fullmatch(name))


def is_package_count(apt: int, npm: int) -> bool:
    """Whether one request may name so many packages: 1 to 20 together."""
    return 1 <= apt + npm <= MAX_PACKAGES
