"""Train the teacher on rows with right answers."""
