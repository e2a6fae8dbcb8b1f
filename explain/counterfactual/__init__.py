"""Regions whose blurring flips a decision."""
