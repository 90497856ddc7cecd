"""Benchmarks: `bench_*.py` measure one part each, `python -m benchmarks` a whole server."""
