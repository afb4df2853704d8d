"""Measure how fast the shipped file is on this machine."""
