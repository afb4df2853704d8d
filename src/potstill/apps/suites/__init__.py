"""Evaluate a model on a suite."""
