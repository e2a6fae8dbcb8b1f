"""A hierarchy in the terminal, as a picture, or as an HTML page."""
