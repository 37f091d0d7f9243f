"""Stands before the package of this name for what the tests start: jsonschema does without it.

The package compiles a grammar when it is loaded, for more than a second in each process of papermill or Ray.
"""

raise ImportError("not needed here")
