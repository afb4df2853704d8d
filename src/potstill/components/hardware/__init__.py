"""What a device has, and what llama.cpp will need on it."""
