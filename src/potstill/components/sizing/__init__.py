"""Bytes, hours and costs of a run."""
