"""Decide which rows are learnt from, whatever their answers say: near-duplicates and what else a filter drops."""
