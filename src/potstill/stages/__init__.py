"""The stages of a run; each is a folder whose entry is `stage.py`."""
