"""Benchmarks, which also run as tests: they assert results, never times."""
