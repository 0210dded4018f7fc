"""Names that users choose from, on the command line and in Python.

They are kept apart from the code that implements them, so that the command line can show its help without importing
torch.
"""

from __future__ import annotations

from typing import Literal

DType = Literal["float32", "bfloat16", "float16"]
"""Floating-point formats of weights and computation."""
WeightFormat = Literal["float", "int8"]
"""How a generator stores the weights of its linear layers: in the format of the computation, or rounded to 8 bits."""
FrameOutput = Literal["numpy", "torch", "pil"]
"""Types of decoded frames."""
Scope = Literal["video", "clip", "batch", "stream"]
"""Which blocks share a budget of tokens."""
Effort = Literal[0, 1, 2, 3]
"""How much is computed to score blocks for a budget."""
DEFAULT_EFFORT: Effort = 0
Fit = Literal["crop", "pad", "stretch"]
"""How frames of any size are fitted to the square of the model."""
FrameFit = Literal["crop", "pad", "stretch", "tile"]
"""The same, or overlapping squares that cover the whole frame."""
FitChoice = Literal["auto", "crop", "pad", "stretch", "tile"]
"""The same, or the one that suits the frame: "tile" unless it is square."""
AudioMode = Literal["copy", "drop"]
"""Whether the sound of a video is copied into videos that are made from it."""
RawFormat = Literal["y4m", "rgb24"]
"""Formats of uncompressed video that can be read from a stream."""
Engine = Literal["local", "ray"]
"""Where a collection is tokenized: in processes of this machine, or on a Ray cluster."""
Stage = Literal["tokenizer", "scorer", "generator"]
"""Models that can be trained."""
ModelLayout = Literal["adaptok", "official"]
"""Layouts of a model folder."""
ProtocolName = Literal["all", "adaptok", "official"]
"""Protocols of an evaluation. "official" is the former name of "adaptok"."""
GenerationKind = Literal["class", "frame"]
"""Kinds of generated videos: class-conditional generation, or frame prediction."""
Metric = Literal["psnr", "psnr_frame", "ssim", "ms_ssim", "lpips_vgg", "lpips_alex", "edge_ratio", "sharpness", "fvd"]
"""Metrics of an evaluation."""
