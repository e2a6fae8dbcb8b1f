"""The page on which a person goes through suspicious photographs of a memory."""
