"""NumberReader: two attentions that turn English number words into digits. Book chapter "Attention".

Notable: it has no feed-forward layer, no norm and no second layer, so that all the work is done by attention.
Keys carry context (*where* to look), values the bare word (*what* is there), so a digit can only come from
the words that its place looks at.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import MultiHeadAttention, attention
from ..masks import padding_mask

PAD_ID = 0
MAX_LEN = 12  # tokens: the longest number below a million has eleven words, and then the full stop
N_PLACES = 6  # digits of 999999
VOCABULARY = tuple(
    "<pad> . zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty"
    " ninety hundred thousand and".split()
)


def tokenize(text: str) -> list[int]:
    """Token ids of number words and the full stop that ends them; hyphens, commas and capitals do not matter.

    Raises:
        ValueError: no word at all, a word that is no English number word, or more than MAX_LEN tokens.

    >>> [VOCABULARY[i] for i in tokenize("Forty-two")]
    ['forty', 'two', '.']
    """
    words = text.lower().replace("-", " ").replace(",", " ").replace(".", " ").split()
    if not words:
        raise ValueError("the text holds no word; write a number such as 'forty-two'")
    for word in words:
        if word not in VOCABULARY[2:]:
            raise ValueError(f"{word!r} is no English number word below a million")
    if len(words) >= MAX_LEN:
        raise ValueError(f"at most {MAX_LEN - 1} words, got {len(words)}")
    return [VOCABULARY.index(word) for word in [*words, "."]]


class NumberReader(nn.Module):
    """Reads number words below a million into six digits, all six at once.

    Args:
        d_model: model width D.
        n_heads: number of heads H of both attentions.

    Raises:
        ValueError: ``d_model`` is not a multiple of ``n_heads``.

    >>> tokens = torch.tensor([tokenize("forty-two")])
    >>> NumberReader(d_model=8, n_heads=2)(tokens).shape  # (B, six places, ten digits)
    torch.Size([1, 6, 10])
    """

    def __init__(self, *, d_model: int = 32, n_heads: int = 2) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.embed = nn.Embedding(len(VOCABULARY), d_model)
        self.positions = nn.Embedding(MAX_LEN, d_model)
        self.self_attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.places = nn.Embedding(N_PLACES, d_model)
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.digit_head = nn.Linear(d_model, 10)

    def forward(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B P C"]:
        """Scores of the C = 10 digits for each of the P = 6 places.

        Raises:
            ValueError: rows of more than MAX_LEN tokens, or not a (B, S) table.
            TypeError: tokens that are not whole numbers.
        """
        output, _ = self._cross(tokens)
        return self.digit_head(output.transpose(1, 2).flatten(2))  # (B, H, P, Dh) -> (B, P, C)

    def place_weights(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B H P S"]:
        """How much each of the P = 6 places looks at each word, head by head."""
        return self._cross(tokens)[1]

    def word_weights(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B H S S"]:
        """How much each word looks at each word in the first attention."""
        x = self._words(tokens)[1]
        return self.self_attention.weights(x, x, padding_mask(tokens, PAD_ID))

    @torch.no_grad()
    def read(self, text: str) -> str:
        """The six digits for one text; raises ValueError as ``tokenize`` does."""
        tokens = torch.tensor([tokenize(text)], device=self.embed.weight.device)
        return "".join(map(str, self(tokens)[0].argmax(-1).tolist()))

    def _words(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if tokens.shape[-1] > MAX_LEN:
            raise ValueError(f"at most {MAX_LEN} tokens in a row, got {tokens.shape[-1]}")
        word = self.embed(tokens)
        return word, word + self.positions.weight[: tokens.shape[1]]

    def _cross(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        mask = padding_mask(tokens, PAD_ID)
        word, x = self._words(tokens)
        context = x + self.self_attention(x, x, mask)
        q, k, v = self.q_proj(self.places.weight), self.k_proj(context), self.v_proj(word)
        return attention(*(t.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2) for t in (q, k, v)), mask)
