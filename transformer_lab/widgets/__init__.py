"""Widgets of the book: the same file runs in JupyterLab, in Colab, and on a page without a kernel."""

from .attention_heads import NumberReaderHeads
from .attention_qkv import QueryKeyValue
from .attention_scaling import AttentionScaling
from .efficient_calculator import CostCalculator
from .encoder_decoder_walk import TokenWalk
from .feed_forward_knots import ReluKnots
from .flash_tiles import FlashTiles
from .generation_translator import NumberTranslator
from .induction_heads import InductionHeads
from .masks_paint import MaskPainter
from .norms_depth import DepthAndWiring
from .positional_dials import RotaryDials
from .positional_hands import SinusoidHands
from .scaling_budget import ComputeBudget
from .selective_scan_state import SelectiveState
from .sliding_window_reach import WindowReach
from .why_attention_distance import GradientAndDistance

__all__ = [
    "AttentionScaling",
    "ComputeBudget",
    "CostCalculator",
    "DepthAndWiring",
    "FlashTiles",
    "GradientAndDistance",
    "InductionHeads",
    "MaskPainter",
    "NumberReaderHeads",
    "NumberTranslator",
    "QueryKeyValue",
    "ReluKnots",
    "RotaryDials",
    "SelectiveState",
    "SinusoidHands",
    "TokenWalk",
    "WindowReach",
]
