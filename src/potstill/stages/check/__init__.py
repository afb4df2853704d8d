"""Check a recipe before anything is paid for."""
