"""Packages: the entries of a manifest, a recipe without paths of this machine, verification, and signatures."""
