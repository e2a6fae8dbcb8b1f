"""An explanation as data, words, pictures, pages and files."""
