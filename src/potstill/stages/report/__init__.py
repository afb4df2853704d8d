"""Write the report page."""
