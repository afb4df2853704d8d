"""Measure the shipped file and the models it is compared with."""
