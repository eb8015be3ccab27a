"""Notebook to script: reads notebooks and never runs them."""

from __future__ import annotations

from .script import ExportError, export_file, script_of

__all__ = ["ExportError", "export_file", "script_of"]
