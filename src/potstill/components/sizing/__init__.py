"""Bytes, hours and money of a run."""
