"""The class hierarchy: its nodes, how it is built, and its compiled index tensors."""
