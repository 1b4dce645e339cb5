"""A state machine over the real stores and services: two workers, one or two hosts, a virtual clock."""
