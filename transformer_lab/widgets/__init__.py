"""Widgets of the book: the same file runs in JupyterLab, in Colab, and on a page without a kernel."""

from .attention_heads import NumberReaderHeads
from .attention_qkv import QueryKeyValue

__all__ = ["NumberReaderHeads", "QueryKeyValue"]
