"""Suites: test items, their identity, append-only versions, checks and importers."""
