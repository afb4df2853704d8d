"""Compare a GGUF file in llama.cpp with the checkpoint that it was made from."""
