"""Corrections: collecting them on the page, exporting them, and the models trained with them."""
