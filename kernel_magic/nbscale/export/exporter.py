"""The nbconvert exporter: `jupyter nbconvert --to nbscale` and JupyterLab's export menu."""

from __future__ import annotations

from typing import Any

from nbconvert.exporters import Exporter

from .script import script_of

__all__ = ["ScriptExporter"]


class ScriptExporter(Exporter):
    """Writes the notebook as a script that does the same from a shell."""

    export_from_notebook = "nbscale script"
    output_mimetype = "text/x-python"

    def _file_extension_default(self) -> str:
        return ".py"

    def from_notebook_node(  # type: ignore[override]  # text, as every text exporter
        self, nb: Any, resources: Any = None, **kwargs: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return the script and nbconvert's resources.

        Raises:
            ExportError: a cell holds what no script can do.
        """
        nb, found = super().from_notebook_node(nb, resources, **kwargs)
        return script_of(nb), found
