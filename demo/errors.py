"""What a visitor is told when something is refused."""

from __future__ import annotations

import html

import gradio as gr

from nbdt.errors import NBDTError


def refused(error: NBDTError | str) -> gr.Error:
    """The error for the page and the API; Gradio shows messages as HTML, and ours quote files."""
    return gr.Error(html.escape(str(error), quote=False), print_exception=False)
