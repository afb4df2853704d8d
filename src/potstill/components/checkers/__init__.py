"""Judge an answer: pass, fail or unknown."""
