"""Model folders: tokenizers and generators of both layouts, with and without checksums."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import torch

from adaptok import AdapTok, Generator
from adaptok.checkpoints.folders import CONFIG_FILE, WEIGHTS_FILE
from adaptok.checkpoints.model_folder import read_folder, read_generator, write_folder, write_official_folder
from adaptok.config.model import ModelConfig
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from tests.fuzz.commands import command
from tests.fuzz.harness import Failure, Target, attempt
from tests.fuzz.mutations import bits_flipped, damaged, document_changed, safetensors_changed, to_json
from tests.fuzz.originals import FORMATS
from tests.helpers.models import random_model, small_config

ERRORS = (ValueError, FileNotFoundError)


class ModelFolders(Target):
    """A folder is refused, or its model works. Damage to a folder with checksums is refused."""

    name = "model_folders"

    def prepare(self, seeds: Path) -> None:
        for name in ("model", "model-modern", "generator", "generator-frames"):
            shutil.copytree(FORMATS / name, seeds / name)
        for name in ("model", "model-modern"):
            write_folder(read_folder(FORMATS / name).build(), seeds / f"new-{name}")
        write_folder(read_generator(FORMATS / "generator"), seeds / "new-generator")
        write_official_folder(read_generator(FORMATS / "generator"), seeds / "official-generator")
        write_official_folder(random_model(official_config()), seeds / "official-model")
        for path in seeds.glob("official-*/*"):
            if path.name not in (CONFIG_FILE, WEIGHTS_FILE):  # checksums, which published folders lack
                path.unlink()

    def open(self, seeds: Path) -> None:
        self.codecs = {name: AdapTok.from_pretrained(seeds / name, device="cpu") for name in ("model", "model-modern")}
        self.folders = {
            folder.name: {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            for folder in sorted(seeds.iterdir())
        }
        self.configs = [files["config.json"] for files in self.folders.values()]
        self.expected = {
            name: read_generator(seeds / name) if "generator" in name else read_folder(seeds / name).build()
            for name in self.folders
        }

    def run(self, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(self.folders))
        files = dict(self.folders[name])
        self.change(rng, name, files)
        target = folder / name
        target.mkdir()
        for file, data in files.items():
            (target / file).write_bytes(data)
        if rng.random() < 0.2:
            command("info", target)
        if "generator" in name:
            self.use_generator(name, target)
        else:
            self.use_tokenizer(name, target)

    def change(self, rng: random.Random, name: str, files: dict[str, bytes]) -> None:
        """Damage a file. Folders with checksums are damaged blindly, all others also in their contents."""
        file = rng.choice(list(files))
        data = files[file]
        if name.startswith("new-") or rng.random() < 0.3:
            others = self.configs if file.endswith(".json") else list(self.folders[name].values())
            files[file] = rng.choice((bits_flipped, lambda r, d: damaged(r, d, others)))(rng, data)
        elif file.endswith(".json"):
            document = json.loads(data)
            files[file] = to_json(document_changed(rng, document)).encode(errors="surrogatepass")
        else:
            files[file] = safetensors_changed(rng, data)
        if not name.startswith("new-") and rng.random() < 0.05:
            del files[file]

    def use_tokenizer(self, name: str, folder: Path) -> None:
        codec = attempt(ERRORS, lambda: AdapTok.from_pretrained(folder, device="cpu"))
        if name.startswith("new-"):
            self.compare(name, codec.model)
        config = codec.config.tokenizer
        clips = torch.rand(1, config.channels, config.frames, config.size, config.size)
        encoded = attempt(ValueError, codec.encode_clips, clips)
        attempt(ValueError, codec.decode_clips, encoded.ids, [[config.latents] * config.blocks])

    def use_generator(self, name: str, folder: Path) -> None:
        if name.startswith("new-"):
            self.compare(name, attempt(ERRORS, read_generator, folder))
        codec = self.codecs["model-modern" if name == "generator-frames" else "model"]
        generator = attempt(ERRORS, lambda: Generator.from_pretrained(folder, codec=codec, device="cpu"))
        condition = {"labels": [0]} if generator.config.classes else {"condition_ids": torch.zeros(1, 16).long()}
        attempt((ValueError, FloatingPointError), lambda: generator.sample(**condition, seeds=[0]))

    def compare(self, name: str, model: Model | GeneratorModel) -> None:
        expected = self.expected[name]
        weights = expected.state_dict()
        changed = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, weights[key])]
        if changed or model.config != expected.config:
            raise Failure(f"a damaged folder was read, with other {changed[:3] or 'settings'}")


def official_config() -> ModelConfig:
    """A small configuration that the official layout supports."""
    config = small_config(vector=True)
    scorer = config.scorer.model_copy(update={"distortion": "lpips", "scale": "linear"})
    return config.model_copy(update={"scorer": scorer})
