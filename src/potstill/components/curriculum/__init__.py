"""A curriculum: what the training prompts must cover, and the operators that write prompts until they do."""
