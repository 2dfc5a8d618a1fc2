"""Tests, laid out like the code; helpers are imported as tests.oracle, tests.strategies."""
