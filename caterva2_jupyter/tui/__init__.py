"""``cat2tui``: a browser of roots in a terminal."""
