"""Flower's configuration: `nanotasks flower`, or `celery -A nanotasks.celery_app flower --conf=flower_config.py`.

It is authenticated unless it listens on loopback, shows and changes nothing (`revoke` means nothing here, and the
databases hold the work), and keeps nothing on disk. Task arguments are ids only, so there is no message to hide.
"""

import ipaddress

from nanotasks.errors import ConfigError
from nanotasks.settings import settings

_config = settings()
_authenticated = bool(_config.flower_user and _config.flower_password)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if not _authenticated and not _is_loopback(_config.flower_host):
    raise ConfigError(
        f"Flower would be open to everybody who reaches {_config.flower_host}.",
        fix="Set NANOTASKS_FLOWER_USER and NANOTASKS_FLOWER_PASSWORD, or NANOTASKS_FLOWER_HOST=127.0.0.1.",
    )

address = _config.flower_host
port = _config.flower_port
if _authenticated:
    basic_auth = [f"{_config.flower_user}:{_config.flower_password}"]
read_only = True
persistent = False
enable_events = True
max_tasks = 20_000
max_workers = 1_000
purge_offline_workers = 600
inspect_timeout = 1500.0  # milliseconds; Flower insists on a float
tasks_columns = "name,uuid,state,args,retries,exception,received,started,runtime,worker"
