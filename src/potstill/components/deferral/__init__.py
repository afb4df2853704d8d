"""When not to answer: confidence scores, thresholds with a guarantee, and drift that voids the guarantee."""
