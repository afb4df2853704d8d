"""What a device has, and what llama.cpp needs on it."""
