"""The teacher answers the prompts."""
