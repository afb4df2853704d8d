"""Judge the measurements."""
