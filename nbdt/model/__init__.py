"""The model: a backbone with a head; saved, published and exported."""
