"""What a hierarchy or an edit changes, measured on labelled images."""
