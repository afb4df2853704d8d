"""Write the folder that ships."""
