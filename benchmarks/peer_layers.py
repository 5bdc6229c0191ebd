"""Other people's layers with the weights of ours, for comparisons: then both compute the same."""

from collections.abc import Iterable

from torch import Tensor
from transformers import LongformerConfig, MambaConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from transformers.models.mamba.modeling_mamba import MambaMixer

from transformer_lab.efficient.selective_scan import MambaBlock
from transformer_lab.efficient.sliding_window import WindowAttention

MAMBA_NAMES = {"conv": "conv1d", "step_proj": "dt_proj", "log_rate": "A_log", "skip": "D"}  # ours: theirs


def longformer(ours: WindowAttention) -> LongformerSelfAttention:
    """Hugging Face's; its output projection stands outside of the class."""
    settings = LongformerConfig(
        hidden_size=ours.q_proj.in_features,
        num_attention_heads=ours.n_heads,
        attention_window=[ours.window],
        attention_probs_dropout_prob=0.0,
    )
    theirs = LongformerSelfAttention(settings, layer_id=0).to(ours.q_proj.weight)
    for its, mine in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        getattr(theirs, its).load_state_dict(getattr(ours, mine).state_dict())
        getattr(theirs, f"{its}_global").load_state_dict(getattr(ours, f"global_{mine}").state_dict())
    return theirs


def mamba(ours: MambaBlock) -> MambaMixer:
    """Hugging Face's, which computes step by step where its own kernels are not installed."""
    settings = MambaConfig(
        hidden_size=ours.d_model,
        state_size=ours.d_state,
        conv_kernel=ours.d_conv,
        expand=ours.d_inner // ours.d_model,
        time_step_rank=ours.rank,
    )
    theirs = MambaMixer(settings, layer_idx=0).to(ours.skip)
    theirs.load_state_dict(as_in_mamba_mixer(ours.state_dict().items()))
    return theirs


def as_in_mamba_mixer(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """``tensors`` of our block, by their names in Hugging Face's."""
    parts = ((name.split("."), tensor) for name, tensor in tensors)
    return {".".join([MAMBA_NAMES.get(first, first), *rest]): tensor for (first, *rest), tensor in parts}
