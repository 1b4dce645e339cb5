"""Watching: metrics and events, read from the central database and so the same from every process."""
