"""The client: arrays over HTTP to a subscriber. Imports ``core`` and ``errors`` only, never a service."""
