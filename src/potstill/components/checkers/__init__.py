"""Decide whether an answer is right: one checker per file, each gives pass, fail or unknown."""
