"""The command line ``cat2cli``: ``main`` parses and maps errors, ``commands`` acts, ``output`` prints."""
