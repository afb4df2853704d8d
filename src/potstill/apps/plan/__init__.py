"""Predict what a model or a recipe needs, how fast it runs, and which students fit a device."""
