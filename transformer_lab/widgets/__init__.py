"""Widgets of the book: the same file runs in JupyterLab, in Colab, and on a page without a kernel."""

from .attention_heads import NumberReaderHeads
from .attention_qkv import QueryKeyValue
from .attention_scaling import AttentionScaling
from .masks_paint import MaskPainter

__all__ = ["AttentionScaling", "MaskPainter", "NumberReaderHeads", "QueryKeyValue"]
