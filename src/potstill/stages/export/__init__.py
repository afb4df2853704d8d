"""Write the student as a GGUF file."""
