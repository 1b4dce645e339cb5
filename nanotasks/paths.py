"""Where sockets live: a short directory of this user, found again by every process of the installation; and the marks
by which a data directory, and a shared one, is told from others.

A Unix socket's path has at most 107 bytes, and a data directory may be deeper than that. So sockets live in
`NANOTASKS_RUNTIME_DIR`, or in `/run/user/<uid>/nanotasks-<install>`, or in `/tmp/nanotasks-<uid>-<install>`,
where `<install>` comes from the data directory. The directory belongs to this user and nobody else may write
in it: a name in /tmp could have been taken by another user first, who would then hear what is said.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from nanotasks.errors import ConfigError
from nanotasks.settings import Settings

SOCKET_PATH_BYTES = 107


def runtime_dir(settings: Settings) -> Path:
    """The directory of this installation's sockets, created with mode 0700 when it is missing.

    Raises `ConfigError` when it cannot be made, belongs to another user, or others may write in it.
    """
    if settings.runtime_dir:
        chosen = Path(settings.runtime_dir).expanduser().absolute()
        _make_private(chosen, parents=True)
        return chosen
    candidates = _candidates(settings)
    # A login session may begin or end between two starts: a directory that is there already wins.
    existing = [path for path in candidates if _is_ours(path)]
    chosen = (existing or candidates)[0]
    _make_private(chosen, parents=False)
    return chosen


def socket_path(settings: Settings, name: str) -> Path:
    """The path of one socket, such as `terminal.sock`. Raises `ConfigError` when it is too long for the kernel."""
    path = runtime_dir(settings) / name
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise ConfigError(
            f"The socket path {path} is too long.",
            why=f"It has {length} bytes and the system allows {SOCKET_PATH_BYTES}.",
            fix="Set NANOTASKS_RUNTIME_DIR to a shorter directory, or unset it.",
        )
    return path


def place(settings: Settings) -> str:
    """The mark of this data directory, made once: other directories under the same host id have another one."""
    return _mark(settings.data_dir / "place")


def volume(settings: Settings) -> str | None:
    """The mark of the shared directory: hosts that read the same one have the same files. None on local storage.

    Raises `ConfigError` when the directory is not there: it is mounted or made by an operator.
    """
    if not settings.shared_dir:
        return None
    if not settings.files_dir.is_dir():
        raise ConfigError(
            f"The shared directory {settings.files_dir} is not there.",
            fix="Mount it, or make it if it is new, before the workers start.",
        )
    return _mark(settings.files_dir / "volume")


def _mark(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = secrets.token_hex(8)
        fresh = path.with_name(f"{path.name}.{mark}")
        fresh.write_text(mark)
        # A link is made whole or not at all, whoever else does it in this moment.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    return path.read_text()


def _candidates(settings: Settings) -> list[Path]:
    uid = os.getuid()
    per_user = Path(f"/run/user/{uid}")
    found = []
    if per_user.is_dir() and os.access(per_user, os.W_OK | os.X_OK):
        found.append(per_user / f"nanotasks-{settings.install_id}")
    found.append(Path("/tmp") / f"nanotasks-{uid}-{settings.install_id}")
    return found


def _is_ours(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _make_private(path: Path, *, parents: bool) -> None:
    fix = "Set NANOTASKS_RUNTIME_DIR to a directory that is yours alone."
    try:
        path.mkdir(mode=0o700, parents=parents, exist_ok=True)
        facts = path.lstat() if not parents else path.stat()
    except OSError as error:
        raise ConfigError(f"The runtime directory {path} cannot be used.", why=str(error), fix=fix) from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise ConfigError(f"The runtime directory {path} belongs to somebody else.", fix=fix)
    if stat.S_IMODE(facts.st_mode) & 0o022:
        raise ConfigError(f"Others may write in the runtime directory {path}.", fix=f"Run `chmod 700 {path}`.")
