"""Faults: a machine, a network and a platform at their worst, and what is promised all the same."""
