"""Licences of teachers and data, and the obligations that follow for a student."""
