"""The manifest of a package and its verification."""
