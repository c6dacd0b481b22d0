"""The subscriber: follows roots, caches their blocks, serves clients; in Jupyter (``extension``) or alone (``app``).

Imports nothing here: ``extension`` needs jupyter_server and ``app`` must not.
"""
