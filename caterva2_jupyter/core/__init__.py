"""The pure part: values in, values out. No I/O, no async, no clock; NumPy and the standard library.

What to read for which question:

=================  ==========================================================================
``source``         what is a source? (the one idea that everything is composed of)
``paths``          which texts are paths?
``metadata``       what is known about a dataset? (entries, geometry, dtypes)
``attributes``     how do attributes travel?
``catalog``        what does a query for a listing say, and what does a page hold?
``selection``      what did the user index with?
``chunk_grid``     which blocks of which chunks does a selection touch?
``blocks``         how are blocks cut from, and put back into, a compressed Blosc2 chunk?
``codec``          how are blocks decoded and encoded? (the only module that calls blosc2)
``assembly``       where do decoded blocks go in the result?
``wire``           how do requests and records look on the wire?
``cache_format``   how do blocks look in the cache's files?
``events``         how are changes told?
``roots``          what does a broker tell about a root?
=================  ==========================================================================
"""
