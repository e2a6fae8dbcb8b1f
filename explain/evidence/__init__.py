"""Evidence: the training images nearest to a photograph, on both sides of each decision."""
