"""Benchmarks of the main path; `python -m tests.benchmarks` prints one JSON object with every figure."""
