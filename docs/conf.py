"""Sphinx configuration of the documentation."""

import caterva2_jupyter

project = "caterva2-jupyter"
author = "the caterva2-jupyter developers"
copyright = "2026, the caterva2-jupyter developers"
release = version = caterva2_jupyter.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
# Notebooks are executed and compared by the tests; their outputs are committed.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "none"
napoleon_google_docstring = False

html_theme = "pydata_sphinx_theme"
html_title = "caterva2-jupyter"
html_show_sourcelink = False
