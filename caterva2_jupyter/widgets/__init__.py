"""What shows remote datasets in notebooks: a viewer, a browser, figures, figures that follow changes, progress bars.

Nothing here is imported before it is used: ``array.view()``, ``client.browse()`` and ``array.plot()`` find it by name.
It needs the extra ``widgets``: ``pip install 'caterva2-jupyter[widgets]'``.
"""

from __future__ import annotations
