"""WordNet 3.0's nouns, and the senses of class names."""
