"""What a model costs: arithmetic, memory, time -- book chapter "What attention costs".

Front end: efficient_calculator.js. The arithmetic is that of ``transformer_lab.efficient``.

Sizes of the models: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, Table 3, "base"; Radford et al.
(2019), "Language Models are Unsupervised Multitask Learners", Table 2; Brown et al. (2020),
https://arxiv.org/abs/2005.14165, Table 2.1; Touvron et al. (2023), https://arxiv.org/abs/2307.09288, section
2.2, with the widths of their published checkpoints (config.json of meta-llama/Llama-2-7b-hf and -70b-hf).
Of the encoder-decoder of 2017 one stack of six layers is counted, without attention to the other.

Peaks of the devices, dense, as their makers publish them: NVIDIA T4 datasheet (2019); "NVIDIA Ada GPU
Architecture" whitepaper, Appendix A, RTX 4090 (FP16 with FP32 accumulation, INT8); "NVIDIA A100 Tensor Core
GPU" datasheet (2021), 80 GB SXM; "NVIDIA H100 Tensor Core GPU" datasheet (2023), SXM, halved where it counts
sparsity. Four bytes are FP32 outside of the tensor cores, two are FP16 or BF16, one is INT8 or FP8.
"""

from pathlib import Path

import traitlets as t

from ..efficient import A100, H100
from ._base import BookWidget
from ._bundle import bundle

MODELS = {
    "base, 2017": {
        "d_model": 512, "d_ff": 2048, "n_layers": 6, "n_heads": 8, "n_kv_heads": 8, "gated": False,
    },
    "GPT-2 small": {
        "d_model": 768, "d_ff": 3072, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "gated": False,
    },
    "GPT-3": {
        "d_model": 12288, "d_ff": 49152, "n_layers": 96, "n_heads": 96, "n_kv_heads": 96, "gated": False,
    },
    "LLaMA-2-7B": {
        "d_model": 4096, "d_ff": 11008, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "gated": True,
    },
    "LLaMA-2-70B": {
        "d_model": 8192, "d_ff": 28672, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "gated": True,
    },
}  # fmt: skip
DEVICES = {  # FLOP/s by bytes per number; bytes/s between memory and arithmetic units; bytes of memory
    "T4": {"flops": {4: 8.1e12, 2: 65e12, 1: 130e12}, "bandwidth": 320e9, "memory": 16e9},
    "RTX 4090": {"flops": {4: 82.6e12, 2: 165.2e12, 1: 660.6e12}, "bandwidth": 1008e9, "memory": 24e9},
    "A100": {
        "flops": {4: 19.5e12, 2: A100.flops_per_second, 1: 624e12},
        "bandwidth": A100.bytes_per_second,
        "memory": 80e9,
    },
    "H100": {
        "flops": {4: 67e12, 2: H100.flops_per_second, 1: 1979e12},
        "bandwidth": H100.bytes_per_second,
        "memory": 80e9,
    },
}
CONTEXTS = tuple(2**i for i in range(7, 21))
BATCHES = tuple(2**i for i in range(11))


class CostCalculator(BookWidget):
    """FLOPs, bytes and the least time of a model that reads a context and writes on, on one device.

    Traits:
        sizes: of the model: d_model, d_ff, n_layers, n_heads, n_kv_heads, and gated, whether the feed-forward
            network has three matrices in place of two. ``MODELS`` has some that were published.
        latent: one latent vector a token, of 4 Dh + Dh / 2 numbers, in place of keys and values (DeepSeek-AI,
            2024, https://arxiv.org/abs/2405.04434, Table 1); then n_kv_heads does not matter.
        bytes_per_number: of weights and cache, 4, 2 or 1.
        n_tokens: in the context, a power of two from 128 to 1,048,576.
        batch: texts side by side, a power of two from 1 to 1,024.
        device: one of ``DEVICES``, whose published peaks bound the time from below.
        models, devices: ``MODELS`` and ``DEVICES``.
    """

    _esm = bundle(Path(__file__).with_suffix(".js"))
    sizes = t.Dict(default_value=MODELS["LLaMA-2-7B"]).tag(sync=True)
    latent = t.Bool(False).tag(sync=True)
    bytes_per_number = t.Int(2).tag(sync=True)
    n_tokens = t.Int(4096).tag(sync=True)
    batch = t.Int(1).tag(sync=True)
    device = t.Unicode("H100").tag(sync=True)
    models = t.Dict(MODELS, read_only=True).tag(sync=True)
    devices = t.Dict(DEVICES, read_only=True).tag(sync=True)

    @t.validate("sizes")
    def _whole_model(self, proposal):
        sizes = proposal["value"]
        wanted = MODELS["LLaMA-2-7B"]
        if sizes.keys() != wanted.keys():
            raise t.TraitError(f"sizes must have {', '.join(wanted)}; got {', '.join(map(str, sizes))}")
        numbers = {name: size for name, size in sizes.items() if name != "gated"}
        for name, size in numbers.items():
            if not isinstance(size, int) or size < 1:
                raise t.TraitError(f"{name} must be a whole number, 1 or more, got {size!r}")
        if not isinstance(sizes["gated"], bool):
            raise t.TraitError(f"gated must be True or False, got {sizes['gated']!r}")
        for whole, part in (("d_model", "n_heads"), ("n_heads", "n_kv_heads")):
            if sizes[whole] % sizes[part]:
                raise t.TraitError(f"{part} must divide {whole}={sizes[whole]}, got {sizes[part]}")
        return sizes

    @t.validate("bytes_per_number")
    def _a_format(self, proposal):
        if proposal["value"] not in (4, 2, 1):
            raise t.TraitError(f"bytes_per_number must be 4, 2 or 1, got {proposal['value']}")
        return proposal["value"]

    @t.validate("n_tokens", "batch")
    def _power_of_two(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = CONTEXTS if name == "n_tokens" else BATCHES
        if value not in allowed:
            bounds = f"from {allowed[0]} to {allowed[-1]}"
            raise t.TraitError(f"{name} must be a power of two {bounds}, got {value}")
        return value

    @t.validate("device")
    def _known(self, proposal):
        if proposal["value"] not in DEVICES:
            raise t.TraitError(f"device must be one of {', '.join(DEVICES)}; got {proposal['value']!r}")
        return proposal["value"]

    def __repr__(self) -> str:  # the default holds a memory address, which no stored output can match
        model = next((name for name, sizes in MODELS.items() if sizes == self.sizes), f"sizes={self.sizes}")
        kind = ", latent" if self.latent else ""
        return (
            f"CostCalculator({model}{kind}, bytes_per_number={self.bytes_per_number},"
            f" n_tokens={self.n_tokens}, batch={self.batch}, device={self.device!r})"
        )
