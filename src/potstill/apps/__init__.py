"""Commands that work outside the pipeline."""
