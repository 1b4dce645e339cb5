#!/bin/sh
# For starting an image by hand. The host gives the command itself, with an init process as PID 1.
exec python3 -P -s -m agent_runner "$@"
