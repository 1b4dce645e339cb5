"""The program that runs inside an agent's container: rows in, a model's turn, rows out.

It needs Python 3.11 and its standard library, and talks to its host through two SQLite files and nothing else:

    inbound.db    written by the host; opened read-only here, a fresh connection for every read
    outbound.db   written here, by this process and by the tool server (`python3 -m agent_runner.tools`)
    .heartbeat    its modification time says that a turn is alive

One turn:

    commit in inbound.db ─► due rows ─► claim ─► prompt ─► provider ─► result ─► rows + `completed`
                           (inbound)   one tx   (formatter)            (output)     one tx

A message is in one of these states, and this is what a crash at that point does:

    pending, no ack        nothing happened yet; the next start sees it again
    ack `processing`       claimed. The next start deletes the claim and prompts it again: a turn that died may have
                           sent messages through tools, and the model is asked once more
    ack `completed`        in one transaction with the turn's final rows: both are there or neither is
    ack `failed`           the row itself could not be turned into text; it never holds up another row

`loop.Runner` is the state machine. Everything it decides with is a small module without side effects: `batching`
(which rows), `commands`, `formatter` (the prompt), `output` (what a model's text means), `failures` (what to do about
an error). The file formats and most rules come from NanoClaw 2, whose host this runner can serve too.
"""
