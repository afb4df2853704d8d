"""Stage worth: the other rungs of the ladder."""
