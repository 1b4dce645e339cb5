"""Attachments in a session's folder: the inbox the host fills, the outbox the agent fills, and the heartbeat.

Everything goes through directory descriptors and follows no link (directories.py). What is opened in the outbox is
looked at after it was opened, so that nothing can be put in its place meanwhile: only a regular file with a single
name is read, because a second hard link, a device or a pipe could be anybody's. What is unsafe or missing is
reported and left out; a message goes out without its bad file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nanotasks.domain.names import is_safe_name
from nanotasks.errors import HostileFileError
from nanotasks.session import directories
from nanotasks.session.layout import SessionFolder

_MAX_NAME_BYTES = 255
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# No attachment can have this name, because a backslash is not safe in one.
_PART = "\\part"
# Trouble of this host and not of the file: tried again.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT)


@dataclass(frozen=True)
class OutboxFile:
    name: str
    data: bytes


@dataclass(frozen=True)
class RefusedFile:
    """A file that was named but is not sent, and why."""

    name: str
    reason: str


def message_folder(message_id: str) -> str:
    """The name of a message's folder in the inbox: its id, where that may be a file name (NanoClaw 2's rule).

    Any other id (platforms have some with slashes) is named by its digest, `sha256-<hex>`, so that its attachments
    have a place too.
    """
    if is_file_name(message_id):
        return message_id
    return f"sha256-{hashlib.sha256(message_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def is_file_name(name: str) -> bool:
    """Whether a name is safe (NanoClaw 2's rule) and one that a file system takes."""
    if not is_safe_name(name):
        return False
    try:
        return len(name.encode()) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


# Inbox


def write_inbox_file(folder: SessionFolder, message_id: str, name: str, data: bytes) -> str:
    """Store an attachment and return its path as the agent sees it, `inbox/<message>/<name>`.

    The file appears whole and outlives a power cut. Storing the same bytes again changes nothing. Raises
    `HostileFileError` when the name is unsafe, something else has it, or a folder on the way is none.
    """
    if not is_file_name(name):
        raise HostileFileError(f"{name!r} cannot be the name of an attachment.")
    below = message_folder(message_id)
    with directories.opened(folder.root, "host", "inbox") as inbox:
        if directories.make(inbox, below):
            os.fsync(inbox)
        target = directories.enter(inbox, below)
        try:
            _store(target, name, data)
        finally:
            os.close(target)
    return f"inbox/{below}/{name}"


def _store(folder: int, name: str, data: bytes) -> None:
    if directories.entry(folder, name) is not None:
        if _read_regular(folder, name, len(data)) != data:
            raise HostileFileError(f"{name} is there already, with other content.")
        return
    directories.remove(folder, _PART)
    try:
        with os.fdopen(os.open(_PART, _WRITE, 0o600, dir_fd=folder), "wb") as output:
            os.fchmod(output.fileno(), directories.FILE_MODE)
            output.write(data)
            output.flush()
            os.fsync(output.fileno())
    except OSError:
        # Half a file would keep the room that the next try needs.
        directories.remove(folder, _PART)
        raise
    os.rename(_PART, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


# Outbox


def outbox_files(
    folder: SessionFolder, message_id: str, names: Iterable[object], max_bytes: int
) -> Iterator[OutboxFile | RefusedFile]:
    """The files that an outbound message names, one at a time; raises nothing about what the agent put there.

    A file larger than `max_bytes` is refused. Raises `OSError` for passing trouble of this host.
    """
    return (_outbox_file(folder, message_id, name, max_bytes) for name in names)


def _outbox_file(folder: SessionFolder, message_id: str, name: object, max_bytes: int) -> OutboxFile | RefusedFile:
    if not isinstance(name, str) or not is_file_name(name):
        return RefusedFile(str(name)[:100], "It is not the name of a file.")
    if not is_file_name(message_id):
        return RefusedFile(name, "The id of its message is not the name of a folder.")
    try:
        with directories.opened(folder.root, "workspace", "outbox", message_id) as outbox:
            return OutboxFile(name, _read_regular(outbox, name, max_bytes))
    except FileNotFoundError:
        return RefusedFile(name, "It is missing.")
    except OSError as error:
        if error.errno in _PASSING:
            raise
        return RefusedFile(name, f"{error.strerror}.")
    except HostileFileError as error:
        return RefusedFile(name, str(error))


def _read_regular(folder: int, name: str, max_bytes: int) -> bytes:
    try:
        file = os.open(name, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise HostileFileError(f"{name} is not a regular file.") from None
        raise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise HostileFileError(f"{name} is not a regular file.")
        if found.st_nlink != 1:
            raise HostileFileError(f"{name} has other names.")
        with os.fdopen(file, "rb", closefd=False) as source:
            # One byte more than is allowed tells a file that grows while it is read.
            data = source.read(max_bytes + 1)
    finally:
        os.close(file)
    if len(data) > max_bytes:
        raise HostileFileError(f"{name} has more than {max_bytes} bytes.")
    return data


def clear_outbox(folder: SessionFolder, message_id: str) -> str | None:
    """Remove a sent message's files; returns why that failed, which must not cause the message to be sent again."""
    if not is_file_name(message_id):
        return None
    try:
        with directories.opened(folder.root, "workspace", "outbox") as outbox:
            directories.remove(outbox, message_id)
    except (OSError, HostileFileError) as error:
        return str(error)
    return None


# Heartbeat


def heartbeat_ms(folder: SessionFolder) -> int | None:
    """When the agent last gave a sign of life, in milliseconds; None when it gave none since it was started."""
    try:
        with directories.opened(folder.root, "workspace") as workspace:
            found = directories.entry(workspace, ".heartbeat")
    except (OSError, HostileFileError):
        return None
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns // 1_000_000


def clear_heartbeat(folder: SessionFolder) -> None:
    """Forget the signs of life of an earlier agent, before a new one is started."""
    with directories.opened(folder.root, "workspace") as workspace:
        directories.remove(workspace, ".heartbeat")
