"""h5py on the file itself: ``read_local_hdf5.py DIRECTORY``."""

import sys

import h5py
from loop import serve

serve(lambda name: h5py.File(f"{sys.argv[1]}/field.h5")["field"])
