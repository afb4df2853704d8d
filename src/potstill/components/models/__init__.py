"""A model seen from outside: configuration, GGUF header, shapes, what can be done with it."""
