"""Token files: blind damage, and changed contents under a right checksum."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np

from adaptok import AdapTok, VideoTokens
from adaptok.codec.token_file import TokenFileError
from tests.fuzz.commands import command
from tests.fuzz.harness import Failure, Target, attempt
from tests.fuzz.mutations import damaged, document_changed, from_safetensors, safetensors_changed, to_safetensors
from tests.fuzz.originals import FORMATS
from tests.helpers.videos import write_video

BLANK = "0" * 64


class TokenFiles(Target):
    """A damaged file is refused. A consistent one of changed contents is refused or decoded, within the limits."""

    name = "token_files"

    def prepare(self, seeds: Path) -> None:
        for path in (FORMATS / "token-files").iterdir():
            shutil.copy(path, seeds)
        shutil.copytree(FORMATS / "model", seeds / "model")
        codec = AdapTok.from_pretrained(seeds / "model", device="cpu")
        write_video(seeds / "wide.mp4", 11, (40, 72))
        encoded = {
            "tiles": codec.encode(seeds / "wide.mp4", budget=20, fit="tile", short_side=40),
            "overlap": codec.encode(seeds / "wide.mp4", budget=20, window_overlap=2),
        }
        for name, tokens in encoded.items():
            tokens.save(seeds / f"{name}.adaptok")

    def open(self, seeds: Path) -> None:
        self.model = seeds / "model"
        self.files = {path.name: path.read_bytes() for path in sorted(seeds.glob("*.adaptok"))}
        self.codec = AdapTok.from_pretrained(self.model, device="cpu")

    def run(self, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(self.files))
        original = self.files[name]
        path = folder / name
        if blind := rng.random() < 0.6:
            data = damaged(rng, original, list(self.files.values()))
        else:
            data = consistent(rng, original)
        path.write_bytes(data)
        if rng.random() < 0.1:
            command("info", path)
        if not blind and rng.random() < 0.1:
            command("decode", path, folder / "out.mp4", "--model", self.model, "--device", "cpu")
        tokens = attempt(TokenFileError, VideoTokens.load, path)
        if blind and data not in self.files.values():
            raise Failure(f"a damaged file was read: {tokens!r}")
        if tokens != VideoTokens.from_bytes(tokens.to_bytes()):
            raise Failure(f"{tokens!r} change when they are written and read")
        repr(tokens)
        if tokens.info.model_hash == self.codec.weights_hash:
            self.decode(tokens)

    def decode(self, tokens: VideoTokens) -> None:
        info = tokens.info
        shapes = attempt(ValueError, lambda: [part.shape for part in self.codec.iter_decode(tokens)])
        sizes = {shape[1:] for shape in shapes}
        if sum(shape[0] for shape in shapes) != info.frames or sizes != {(info.height, info.width, 3)}:
            raise Failure(f"frames of shapes {shapes}, expected those of {info}")
        if tokens.scores is not None and np.isfinite(tokens.scores).all():
            shorter = attempt(ValueError, tokens.truncate, 16)
            if len(shorter) > len(tokens):
                raise Failure(f"{len(tokens)} tokens were truncated to {len(shorter)}")


def consistent(rng: random.Random, data: bytes) -> bytes:
    """Change what a token file says, and sign it again."""
    header, tensors = from_safetensors(data)
    if rng.random() < 0.3:
        try:
            return signed(safetensors_changed(rng, data))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return damaged(rng, data)  # a header that cannot be signed
    document = json.loads(header["__metadata__"]["adaptok"])
    if rng.random() < 0.5:  # a field that the shapes of the tensors do not depend on
        field = rng.choice(("rate", "width", "height", "frames", "audio", "fit", "short_side", "latents", "model"))
        changed = document_changed(rng, [document.get(field)])
        document[field] = changed[0] if isinstance(changed, list) and changed else changed
    else:
        document = document_changed(rng, document)
    header["__metadata__"]["adaptok"] = json.dumps(document)
    return signed(to_safetensors(header, tensors))


def signed(data: bytes) -> bytes:
    """Set the checksum of a token file, as docs/formats.md describes it."""
    header, tensors = from_safetensors(data)
    document = json.loads(header["__metadata__"]["adaptok"])
    if not isinstance(document, dict):
        return data
    document["checksum"] = BLANK
    header["__metadata__"]["adaptok"] = json.dumps(document)
    blank = to_safetensors(header, tensors)
    return blank.replace(BLANK.encode(), hashlib.sha256(blank).hexdigest().encode(), 1)
