"""Losses that teach: each exact, each formed without a whole logits tensor."""
