"""The self-check of an installation: ``python -m caterva2_jupyter.tests -v``.

It starts a broker, publishers and subscribers on free ports and uses them as clients do, in under two minutes. State
and logs are left in ``_caterva2_tests`` of the current directory. With ``CATERVA2_USE_EXTERNAL=1`` it uses the services
that a client would find, changes nothing there, and skips what needs services of its own.
"""
