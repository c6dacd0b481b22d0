"""The part that holds files: roots over directories and HDF5 files, catalogs on disk, the block cache.

Plain synchronous code; ``threaded_source`` is the one place where it meets an event loop.
"""
