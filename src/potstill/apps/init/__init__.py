"""Make the parts of a first recipe: a tokenizer from rows, and a model with random weights."""
