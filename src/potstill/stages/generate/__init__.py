"""Let the teacher answer the prompts."""
