"""A hierarchy in the terminal, as a drawing, or as an HTML page."""
