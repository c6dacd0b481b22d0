"""The broker: tells subscribers which roots exist, who serves them, and what changed.

``registry`` decides (pure), ``outbox`` keeps what a slow subscriber has not read yet (pure), ``broker``
holds the connections, ``handlers`` speak HTTP, ``app`` starts it all (``cat2bro``).
"""
