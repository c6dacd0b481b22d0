"""Programs beside the services: examples, conversion to and from HDF5, the demo."""
