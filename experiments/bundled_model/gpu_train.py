"""Train the bundled tokenizer, scorer and generator in one go on one GPU.

    python experiments/bundled_model/gpu_train.py --data DATA --lpips LPIPS --out OUT \
        --tokenizer-seconds 1100 --scorer-seconds 80 --generator-seconds 80

The length of each stage is given in seconds, and its learning rate follows a cosine over them. Model folders are
written to OUT: `tokenizer` (averaged weights, every four minutes), `scorer` (the tokenizer with its new scorer) and
`generator`. Figures go to `OUT/log.jsonl`. README.md in this folder describes the recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gpu_generator import Shapes, add_options, train_generator
from gpu_scorer import train_scorer
from gpu_session import Session
from gpu_tokenizer import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with videos/train, videos/val and images")
    parser.add_argument("--lpips", type=Path, required=True, help="folder with lpips_vgg and lpips_alex .safetensors")
    parser.add_argument("--out", type=Path, required=True)
    add_options(parser)
    for stage in ("tokenizer", "scorer"):
        parser.add_argument(f"--{stage}-seconds", type=float, default=60.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--scorer-batch-size", type=int, default=24)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of the tokenizer")
    parser.add_argument("--drawings", type=int, default=3000, help="drawn clips among the training data")
    options = parser.parse_args()
    session = Session(options)
    shapes = Shapes(options.out / "shapes.npy", options.shapes, max(1, options.workers // 4))
    train_tokenizer(session)
    train_scorer(session)
    train_generator(session, shapes)


if __name__ == "__main__":
    main()
