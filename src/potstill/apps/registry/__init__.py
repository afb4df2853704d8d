"""Releases: record, gate, compare, history, bisect."""
