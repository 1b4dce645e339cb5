"""The data plane: one folder per session, with what the host tells the agent and what the agent answers.

`inbound.db` is ours (`inbound.py`), everything under `workspace/` is the agent's and hostile (`outbound.py`,
`files.py`). Layout and creation are in `layout.py`, the tables in `schema/`.
"""

from nanotasks.session.errors import HotJournalError, OutboundBusyError, SessionFileError
from nanotasks.session.inbound import Inbound, open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import OutboundReader, ReadLimits, open_outbound

__all__ = [
    "HotJournalError",
    "Inbound",
    "OutboundBusyError",
    "OutboundReader",
    "ReadLimits",
    "SessionFileError",
    "SessionFolder",
    "open_inbound",
    "open_outbound",
]
