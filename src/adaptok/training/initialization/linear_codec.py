"""Initialization of a tokenizer as a progressive linear codec.

A transformer autoencoder with random weights needs thousands of steps to learn where to attend, and reconstructs little
but the mean colour until then. Here, the first attention layer of the encoder and of the decoder is set by hand, and
all other layers contribute nothing at first (zero output layers). The model is then a lossy linear codec before its
first training step, and training improves on it:

- Patch embedding and output layer are the principal components of pixel patches.
- The place of a token has a code: block, quadrant, quadrant of that quadrant and so on, each level one corner of a
  tetrahedron. In the product of two codes, a level that agrees counts 1, one that differs -1/3, and one that a coarse
  token leaves open 0.
- Latents are ordered from coarse to fine: one per coarse cell, then one per patch for the first components (set 0),
  then one per patch for the next components (set 1), and so on.
- A latent attends to the patches of its cell and stores the mean of the components of its set.
- A patch of the decoder attends, with one head per set, to the finest kept latent that covers it. If there is none, it
  attends to itself, which adds nothing.

Only weights and embeddings of the usual architecture are set. The constant that queries and keys need comes from the
bias of the LayerNorm, in a dimension that nothing else writes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adaptok.config.tokenizer import ScalarQuantizerConfig, TokenizerConfig
from adaptok.models.feed_forward import Mlp
from adaptok.models.patches import patchify
from adaptok.models.tokenizer import Tokenizer
from adaptok.models.transformer import TransformerBlock

CODE_SCALE = 2.0
"""Size of a place code, relative to a first component of unit variance. Larger codes make the divisor of LayerNorm more
nearly constant; smaller ones leave more of the content to the layers after the first."""
SHARPNESS = 12.0
"""Difference between the attention logits of a matching and of an open level."""
GATE = 50.0
"""Attention logit that keeps the tokens of other sets out of a head. It is no larger than needed, because it multiplies
the effect of Adam's steps on these weights."""
FILLERS = 8
"""Number of dimensions that give all codes the same mean and norm, so that LayerNorm treats them alike."""
MISSING = 0.6
"""Levels by which a latent must match a patch better than the patch matches itself. It is below 4/3, by which the same
place in another block falls short."""
PCA_ROWS = 32768
"""Maximum number of patches that the principal components are computed from."""
_CORNERS = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).float()


@dataclass(frozen=True)
class Cell:
    """Role of a latent: the components of `set` over a square of the grid at `level`, where 0 is the whole frame."""

    set: int
    level: int
    row: int
    column: int


@dataclass(frozen=True)
class Layout:
    """Use of the dimensions of the width."""

    levels: int
    sets: int
    code_dim: int
    width: int

    @property
    def place(self) -> int:
        """First dimension of the place code, which has 3 for the block and 3 for each level."""
        return self.width - self.place_dims - self.sets - 2 - FILLERS

    @property
    def place_dims(self) -> int:
        return 3 * (1 + self.levels)

    @property
    def set(self) -> int:
        """First of the dimensions that mark the set of a latent."""
        return self.place + self.place_dims

    @property
    def patch(self) -> int:
        """Dimension that marks patches."""
        return self.set + self.sets

    @property
    def constant(self) -> int:
        """Dimension that nothing writes to, and that the bias of LayerNorm sets to 1."""
        return self.patch + 1

    @property
    def filler(self) -> float:
        """Sum of squares of the filler dimensions, which give all codes the same sum and norm."""
        return (self.place_dims + 1) ** 2 / FILLERS + 2

    @property
    def slots(self) -> int:
        """First of the dimensions that hold the code of a latent."""
        return self.place - self.code_dim

    @property
    def content(self) -> int:
        """Number of principal components that fit into the width."""
        return self.slots


def cells(config: TokenizerConfig) -> list[Cell]:
    """List the roles of the K latents of a block, from coarse to fine. Every prefix covers the frame evenly."""
    levels = config.grid.bit_length() - 1
    coarse = max(0, levels - 1)
    order = [Cell(0, coarse, r, c) for r, c in spread_order(coarse)]
    index = 0
    while len(order) < config.latents:
        order += [Cell(index, levels, r, c) for r, c in spread_order(levels)]
        index += 1
    return order[: config.latents]


def spread_order(level: int) -> list[tuple[int, int]]:
    """List the cells of a 2^level x 2^level grid so that every prefix covers it evenly (bit-reversed Morton order)."""
    side = 1 << level

    def key(cell: tuple[int, int]) -> int:
        bits = [((cell[0] >> b) & 1) << 1 | ((cell[1] >> b) & 1) for b in range(level)]  # finest first
        return sum(bit << 2 * (level - 1 - i) for i, bit in enumerate(bits))

    return sorted(((r, c) for r in range(side) for c in range(side)), key=key)


def initialize_linear(tokenizer: Tokenizer, clips: Tensor) -> None:
    """Turn a tokenizer into a progressive linear codec, in place.

    Args:
        tokenizer: tokenizer with the scalar quantizer, without overlapping windows.
        clips: `[B, C, T, S, S]` in [0, 1], a few hundred clips to compute principal components from.

    Raises:
        ValueError: the architecture is not suitable.
    """
    config = tokenizer.config
    layout = _layout(config)
    with torch.no_grad():
        patches = patchify(clips, config.patch_size, config.temporal_patch_size).flatten(0, 2)
        patches = patches[:: max(1, len(patches) // PCA_ROWS)]
        mean, components, deviations = principal_components(patches, layout.content)
        # stored components are less unequal than the original ones, so that later layers can use the fine ones
        units = (deviations * deviations[0]).sqrt()
        stored = (deviations / units).square()  # variances of the stored components
        for block in (*tokenizer.encoder.blocks, *tokenizer.decoder.blocks):
            assert isinstance(block, TransformerBlock)
            assert isinstance(block.mlp, Mlp)
            block.attn.proj.weight.zero_()
            block.mlp.fc2.weight.zero_()
        code = _write_embeddings(tokenizer, layout)
        norm = float((code + stored.sum() / layout.width).sqrt())  # divisor of LayerNorm for a patch in the encoder
        used = layout.sets * layout.code_dim
        standard = (patches - mean) @ components[:, :used] / deviations[:used]
        assert isinstance(config.quantizer, ScalarQuantizerConfig)
        levels = config.quantizer.levels * layout.sets
        spreads = torch.tensor([best_spread(x, n) for x, n in zip(standard.T, levels, strict=True)])
        _write_pixels(
            tokenizer, layout, mean, components, units, float((code + stored[:used].sum() / layout.width).sqrt())
        )
        scale = spreads / stored[:used].sqrt()  # from a stored component to its code
        _write_encoder(tokenizer, layout, scale, norm)
        _write_decoder(tokenizer, layout, _decoding_gains(tokenizer, layout, clips) / scale, float(code.sqrt()))


INITIALIZED_PREFIXES = (
    "patch_embedding.",
    "encoder.blocks.0.norm1.",
    "encoder.blocks.0.attn.qkv.",
    "to_code.",
    "from_code.",
    "decoder.blocks.0.norm1.",
    "decoder.blocks.0.attn.qkv.",
    "to_pixels.",
    "head.output.",
)
"""Prefixes of the weights that are set by hand. They are large by design, and training steps of the usual size would
ruin them."""


def _layout(config: TokenizerConfig) -> Layout:
    grid, width = config.grid, config.encoder.width
    sets = 1 + max(cell.set for cell in cells(config)) if grid & (grid - 1) == 0 else 0
    layout = Layout(grid.bit_length() - 1, sets, config.quantizer.code_dim, width)
    head = width // config.encoder.heads
    options = {stack.changed_options() for stack in (config.encoder, config.decoder)} - {""}
    problems = {
        f"a grid of {grid} patches a side, expected a power of two": grid & (grid - 1) != 0,
        f"the block options {' and '.join(sorted(options))}; leave them at their defaults": bool(options),
        "encoder and decoder of different widths or heads": config.encoder != config.decoder,
        f"{config.blocks} blocks, expected at most 4": config.blocks > 4,
        "the vector quantizer, expected the scalar one": config.quantizer.kind != "scalar",
        f"{config.encoder.heads} heads, expected {sets} or more": config.encoder.heads < sets,
        f"{head} dimensions a head, expected {layout.place_dims + 2} or more": head < layout.place_dims + 2,
        f"width {width}, which has no room for the components": layout.content < sets * layout.code_dim,
        "fixed positions, expected learned_positions": not config.learned_positions,
        "overlapping windows": config.overlapping,
    }
    for problem, present in problems.items():
        if present:
            raise ValueError(
                f"initialization linear does not support {problem}; change it, or set initialization to random"
            )
    return layout


def principal_components(rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean `[N]`, components `[N, count]` and standard deviations `[count]` of `rows [M, N]`."""
    mean = rows.mean(0)
    _, singular, components = torch.pca_lowrank(rows - mean, q=count, center=False, niter=4)
    return mean, components, singular / len(rows) ** 0.5


def best_spread(values: Tensor, levels: int) -> float:
    """Find the factor of `values [M]` (mean 0, variance 1) before tanh with which `levels` even steps fit best."""
    top = levels - 1
    errors = {}
    for spread in torch.arange(0.15, 1.5, 0.05).tolist():
        codes = ((values * spread).tanh().add(1).mul(top / 2).round()) * 2 / top - 1
        gain = (codes * values).sum() / codes.square().sum().clamp(min=1e-6)
        errors[spread] = float((values - gain * codes).square().mean())
    return min(errors, key=errors.__getitem__)


def place_code(layout: Layout, block: int, cell: Cell, *, patch: bool) -> Tensor:
    """Return the code `[D]` of a token. All codes have the same sum and norm."""
    code = torch.zeros(layout.width)
    path = [
        (cell.row >> (cell.level - 1 - i) & 1) * 2 + (cell.column >> (cell.level - 1 - i) & 1)
        for i in range(cell.level)
    ]
    for i, corner in enumerate([block, *path]):
        code[layout.place + 3 * i : layout.place + 3 * i + 3] = _CORNERS[corner]
    code[layout.patch if patch else layout.set + cell.set] = 1
    # n fillers m ± d with n m = -sum and n (m² + d²) = the remaining sum of squares
    middle = -code.sum() / FILLERS
    difference = (layout.filler + layout.place_dims + 1 - code.square().sum()) / FILLERS - middle**2
    code[-FILLERS:] = middle + difference.sqrt() * torch.tensor([1.0, -1.0]).repeat(FILLERS // 2)
    return code * CODE_SCALE


def _write_embeddings(tokenizer: Tokenizer, layout: Layout) -> Tensor:
    """Set positions and queries. Returns the mean square of a code over the width, which is the same for all codes."""
    config = tokenizer.config
    grid = [Cell(0, layout.levels, r, c) for r in range(config.grid) for c in range(config.grid)]
    patches = torch.stack([place_code(layout, i, cell, patch=True) for i in range(config.blocks) for cell in grid])
    rows = cells(config)
    latents = torch.stack([place_code(layout, i, cell, patch=False) for i in range(config.blocks) for cell in rows])
    tokenizer.encoder_patch_positions.copy_(patches)
    tokenizer.decoder_patch_queries.copy_(patches)
    tokenizer.encoder_queries.copy_(latents)
    tokenizer.decoder_latent_positions.copy_(latents)
    if config.patch_type_embedding:
        tokenizer.decoder_patch_type.zero_()
    return patches[0].square().mean()


def _write_pixels(
    tokenizer: Tokenizer, layout: Layout, mean: Tensor, components: Tensor, units: Tensor, norm: float
) -> None:
    embedding, output, config = tokenizer.patch_embedding, tokenizer.to_pixels, tokenizer.config
    embedding.weight.zero_()
    embedding.weight[: layout.content] = components.T / units[:, None]
    embedding.bias.zero_()
    embedding.bias[: layout.content] = -(mean @ components) / units
    order = (config.channels, config.temporal_patch_size, config.patch_size, config.patch_size)

    def channels_last(values: Tensor) -> Tensor:
        return values.reshape(*order, -1).permute(1, 2, 3, 0, 4).reshape(values.shape)

    output.weight.zero_()
    output.weight[:, : layout.content] = channels_last(components * units) * norm
    output.bias.copy_(channels_last(mean[:, None])[:, 0])


def _clear_attention(block: TransformerBlock, layout: Layout) -> None:
    """Clear the heads that are set by hand. The others keep their random weights."""
    used = layout.sets * layout.width // block.attn.heads
    for part in block.attn.qkv.weight.chunk(3):
        part[:used].zero_()
    block.attn.proj.weight.zero_()
    assert isinstance(block.norm1, nn.LayerNorm)
    block.norm1.weight[layout.constant] = 0
    block.norm1.bias[layout.constant] = 1


class _ClearedLayer(NamedTuple):
    """Layer whose first heads are cleared."""

    block: TransformerBlock
    weight: Tensor
    """`[3 D, D]`, weights of queries, keys and values."""
    width: int
    head_width: int
    unit: float
    """Factor that scales a normalized place code to size 1."""
    gate: float
    """Value whose product with itself is an attention logit of GATE."""


def _clear_layer(block: nn.Module, layout: Layout, norm: float) -> _ClearedLayer:
    assert isinstance(block, TransformerBlock)
    _clear_attention(block, layout)
    d = layout.width // block.attn.heads
    return _ClearedLayer(block, block.attn.qkv.weight, layout.width, d, norm / CODE_SCALE, (GATE * d**0.5) ** 0.5)


def _match_places(block: TransformerBlock, layout: Layout, head: int, norm: float) -> None:
    """Set queries and keys of a head so that each level that agrees adds SHARPNESS to the attention logit."""
    width, d = layout.width, layout.width // block.attn.heads
    scale = (SHARPNESS * d**0.5 / 3) ** 0.5 * norm / CODE_SCALE
    for i in range(layout.place_dims):
        block.attn.qkv.weight[head * d + i, layout.place + i] = scale
        block.attn.qkv.weight[width + head * d + i, layout.place + i] = scale


def _write_encoder(tokenizer: Tokenizer, layout: Layout, scale: Tensor, norm: float) -> None:
    block, weight, width, d, unit, gate = _clear_layer(tokenizer.encoder.blocks[0], layout, norm)
    for head in range(layout.sets):
        _match_places(block, layout, head, norm)
        # latents of this set attend to patches, all other tokens do not
        row = head * d + layout.place_dims
        weight[row, layout.constant] = -gate
        weight[row, layout.set + head] = 2 * gate * unit
        weight[width + row, layout.patch] = gate * unit
        for i in range(layout.code_dim):
            component = head * layout.code_dim + i
            weight[2 * width + head * d + i, component] = scale[component] * norm
            block.attn.proj.weight[layout.slots + i, head * d + i] = 1
    tokenizer.to_code.weight.zero_()
    tokenizer.to_code.bias.zero_()
    for i in range(layout.code_dim):
        tokenizer.to_code.weight[i, layout.slots + i] = 1


def _decoding_gains(tokenizer: Tokenizer, layout: Layout, clips: Tensor) -> Tensor:
    """Compute the least-squares factors `[sets * code_dim]` from quantized codes back to stored components."""
    config = tokenizer.config
    products = torch.zeros(2, layout.sets, layout.code_dim)
    index = [(k, cell) for k, cell in enumerate(cells(config)) if cell.level == layout.levels]
    for clip in clips.split(8):
        encoded = tokenizer.encode(clip)
        codes = tokenizer.quantize(encoded).codes
        stored = tokenizer.to_code(encoded)
        for k, cell in index:
            products[0, cell.set] += (codes[:, :, k] * stored[:, :, k]).sum((0, 1))
            products[1, cell.set] += codes[:, :, k].square().sum((0, 1))
    return (products[0] / products[1].clamp(min=1e-6)).flatten()


def _write_decoder(tokenizer: Tokenizer, layout: Layout, gains: Tensor, norm: float) -> None:
    tokenizer.from_code.weight.zero_()
    tokenizer.from_code.bias.zero_()
    for i in range(layout.code_dim):
        tokenizer.from_code.weight[layout.slots + i, i] = 1
    block, weight, width, d, unit, gate = _clear_layer(tokenizer.decoder.blocks[0], layout, norm)
    for head in range(layout.sets):
        _match_places(block, layout, head, norm)
        own, patch = head * d + layout.place_dims, head * d + layout.place_dims + 1
        # latents of this set have the highest logits; the patch itself is slightly below a latent that covers it
        loss = layout.levels - 0.5 if head == 0 else MISSING
        weight[own, layout.constant] = gate
        weight[patch, layout.constant] = gate * (1 - loss * SHARPNESS / GATE)
        weight[width + own, layout.set + head] = gate * unit
        weight[width + patch, layout.patch] = gate * unit
        for i in range(layout.code_dim):
            component = head * layout.code_dim + i
            weight[2 * width + head * d + i, layout.slots + i] = norm
            block.attn.proj.weight[component, head * d + i] = gains[component]
