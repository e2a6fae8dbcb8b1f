"""What the panels of the page share."""
