"""Benchmarks: suites of runs and their report, and the speed measurements. Nothing of the library imports from here."""
