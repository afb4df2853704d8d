"""Licences of teachers and data, and what they oblige a student to."""
