"""How the stages of a recipe are run; read `run.py` first."""
