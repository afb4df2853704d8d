"""Store the teacher's distributions."""
