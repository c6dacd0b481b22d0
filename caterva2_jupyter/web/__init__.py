"""Tornado pieces that the services share; it knows sources, but no service, no root and no file.

======================  ===================================================================
``service``             the base handler of stand-alone services: errors, guards, JSON
``access``              who may: policies, and the checks of Host and Origin
``byte_range``          one ``Range`` header
``caps``                what one client may have at once
``source_handlers``     REST v1 over any source, for Tornado's handlers and Jupyter's alike
``read_handlers``       those of its answers that are records
``event_handlers``      those that are told as it happens
``source_routes``       all of them with their routes
``direct_reads``        small reads, answered before a handler is made
``outgoing_websocket``  opening a WebSocket to another service
``serve``               listening, one ready line, a clean stop
======================  ===================================================================
"""
