"""xarray over a service: ``xr.open_dataset(address, engine="caterva2")``, lazily and as h5netcdf reads the same file.

``backend`` is the engine, ``opening`` asks the service, ``dimensions``, ``attributes`` and ``variables`` hold the rules
of netCDF4 and HDF5, ``lazy_array`` reads. Importing this imports nothing.
"""
