"""Serving one root: its files, its index, its changes."""
