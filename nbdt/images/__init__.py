"""Images: open one safely, or list the images of a data set."""
