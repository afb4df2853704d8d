"""potstill: distil a large language model into a small one, and prove it on the file that is shipped."""

__version__ = "0.1.0"
