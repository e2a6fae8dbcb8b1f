"""Classifiers on the features of a frozen network, which are kept on the disk between runs."""
