"""Answers that were made elsewhere, as rows."""
