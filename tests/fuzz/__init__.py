"""Hostile inputs: whatever a person points potstill at ends in an answer or in one paragraph.

`make fuzz` tries 100,000; the test suite tries a few of each kind.
"""
