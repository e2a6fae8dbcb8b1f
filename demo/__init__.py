"""The page: a photograph in, its path and node maps out."""
