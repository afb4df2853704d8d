"""The server: OpenAI's API over a package's file in llama.cpp, with every refusal decided in advance."""
