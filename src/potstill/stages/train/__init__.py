"""Train the student and its control."""
