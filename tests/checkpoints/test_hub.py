"""Models on the Hugging Face hub, against a stand-in of its HTTP interface: uploads, downloads, cards and errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from huggingface_hub import constants, file_download

from adaptok import AdapTok, Generator
from adaptok.checkpoints.hub import HubOptions, resolve, upload
from adaptok.config.generator import GeneratorConfig
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import weights_hash
from tests.helpers.commands import fails
from tests.helpers.hub import TOKEN, answer_always, serve
from tests.helpers.models import random_model, small_config

GENERATOR = {"width": 32, "depth": 1, "heads": 2, "codebook_size": 80, "blocks": 4, "latents": 8, "classes": 2}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that the library of the Hugging Face hub uses, with an empty cache and no other token."""
    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for module in (constants, file_download):  # older versions copy the constant
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield hub


@pytest.fixture
def codec() -> AdapTok:
    return saved_codec()


def saved_codec(**changes) -> AdapTok:
    model = random_model(small_config().model_copy(update=changes))
    with torch.no_grad():
        model.tokenizer.to_code.weight += len(changes)
    return AdapTok(model, weights_hash(model.state_dict()))


def generator_of(codec: AdapTok) -> Generator:
    config = GeneratorConfig(**GENERATOR, name="sampler", model="test", model_hash=codec.weights_hash)
    torch.manual_seed(0)
    return Generator(GeneratorModel(config), codec)


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def metadata_of(card: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def test_a_tokenizer_comes_back(hub, codec, tmp_path):
    url = codec.push_to_hub("me/small", token=TOKEN, license="apache-2.0", private=True, message="First version")
    assert url == f"{hub.url}/me/small"
    assert hub.repositories["me/small"].messages == ["initial commit", "First version"]
    hub.requests.clear()
    again = AdapTok.from_pretrained("me/small", device="cpu", token=TOKEN, cache_dir=tmp_path / "own")
    assert_same(again.model, codec.model)
    assert again.weights_hash == codec.weights_hash
    assert (tmp_path / "own" / "models--me--small").is_dir()
    assert not (tmp_path / "cache").exists()
    stored = {request.path.startswith("/lfs/"): request.token for request in hub.requests}
    assert stored == {False: TOKEN, True: None}  # the storage must not see the token

    hub.requests.clear()
    offline = AdapTok.from_pretrained("me/small", device="cpu", cache_dir=tmp_path / "own", local_files_only=True)
    assert_same(offline.model, codec.model)
    assert hub.requests == []
    with pytest.raises(FileNotFoundError, match=r"not among the downloads in .*fetch it once without local_files_only"):
        AdapTok.from_pretrained("me/small", local_files_only=True)


def test_revisions_are_kept_apart(hub, codec):
    codec.push_to_hub("me/small", token=TOKEN)
    first = hub.repositories["me/small"].branches["main"]
    other = saved_codec(name="other")
    other.push_to_hub("me/small", token=TOKEN, branch="next")
    assert hub.repositories["me/small"].branches["main"] == first
    names = {
        revision: AdapTok.from_pretrained("me/small", revision=revision).config.name for revision in (None, "next")
    }
    assert names == {None: "test", "next": "other"}
    other.push_to_hub("me/small", token=TOKEN)
    assert AdapTok.from_pretrained("me/small").weights_hash == other.weights_hash
    assert AdapTok.from_pretrained("me/small", revision=first).weights_hash == codec.weights_hash
    with pytest.raises(FileNotFoundError, match="no revision 'v9'; expected a branch, tag or commit"):
        AdapTok.from_pretrained("me/small", revision="v9")


def test_a_generator_comes_back_with_its_tokenizer(hub, codec):
    generator = generator_of(codec)
    codec.push_to_hub("me/small", token=TOKEN)
    generator.push_to_hub("me/sampler", token=TOKEN, base_model="them/base", datasets=["them/clips"])
    again = Generator.from_pretrained("me/sampler", codec="me/small", device="cpu")
    assert_same(again.model, generator.model)
    assert again.codec is not None
    assert torch.equal(again.sample([0, 1], seeds=[3, 4]).ids, generator.sample([0, 1], seeds=[3, 4]).ids)
    card = hub.text("me/sampler", "README.md")
    assert 'Generator.from_pretrained("me/sampler", codec="path/to/test")' in card
    assert metadata_of(card) == {
        "library_name": "adaptok",
        "pipeline_tag": "other",
        "tags": ["video", "video-generator", "discrete-tokens"],
        "base_model": "them/base",
        "datasets": ["them/clips"],
    }


def test_half_precision_is_stored(hub, codec):
    codec.push_to_hub("me/half", token=TOKEN, dtype="bf16")
    again = AdapTok.from_pretrained("me/half", device="cpu")
    assert torch.equal(again.model.tokenizer.to_code.weight, codec.model.tokenizer.to_code.weight.bfloat16().float())


def test_the_card_of_the_folder_is_completed(hub, codec, tmp_path):
    """Text that somebody added stays, and pictures that it shows are uploaded."""
    codec.save_pretrained(tmp_path / "model")
    text = "---\nlicense: mit\ntags: [mine]\n---\n# Mine\n![curve](curve.png) ![far](https://x.example/y.png)\n"
    text += '`AdapTok.from_pretrained("path/to/this/folder")`\n'
    (tmp_path / "model/README.md").write_text(text)
    (tmp_path / "model/curve.png").write_bytes(b"picture")
    (tmp_path / "model/private.txt").write_text("not shown")
    loaded = AdapTok.from_pretrained(tmp_path / "model", device="cpu")
    loaded.push_to_hub("me/mine", token=TOKEN)
    repository = hub.repositories["me/mine"]
    assert repository.commits[repository.branches["main"]].keys() == {
        ".gitattributes",
        "README.md",
        "SHA256SUMS",
        "config.json",
        "curve.png",
        "model.safetensors",
    }
    card = hub.text("me/mine", "README.md")
    assert "# Mine\n![curve](curve.png)" in card
    assert '`AdapTok.from_pretrained("me/mine")`' in card
    metadata = metadata_of(card)
    assert (metadata["license"], metadata["tags"], metadata["library_name"]) == ("mit", ["mine"], "adaptok")
    loaded.push_to_hub("me/mine", token=TOKEN, license="other")
    assert metadata_of(hub.text("me/mine", "README.md"))["license"] == "other"


def test_errors_are_one_line(hub, codec, tmp_path):
    codec.push_to_hub("me/private", token=TOKEN, private=True)
    cases = [
        (lambda: resolve("me/nothing"), FileNotFoundError, "no such model at http.* check the name, or give a token"),
        (lambda: resolve("me/private"), FileNotFoundError, "or a private one"),
        (lambda: codec.push_to_hub("me/new"), PermissionError, "refuses access .status 401.; check the token"),
        (lambda: codec.push_to_hub("new", token=TOKEN), ValueError, "'new', expected the form owner/name"),
        (lambda: AdapTok.from_pretrained(tmp_path, revision="v1"), ValueError, "'v1' of .* which is a folder"),
        (lambda: AdapTok.from_pretrained("adaptok-tiny", revision="v1"), ValueError, "'v1' of adaptok-tiny, which is"),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    hub.failing = True
    for call in (lambda: resolve("me/private"), lambda: upload(codec.save_pretrained, "me/x", token=TOKEN)):
        with pytest.raises(ConnectionError, match=r"me/.*: cannot be exchanged with http") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_no_connection(hub, codec, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for call in (lambda: resolve("me/x"), lambda: upload(codec.save_pretrained, "me/x", token=TOKEN)):
        with pytest.raises(ConnectionError, match=r"exchanged with http://127.0.0.1:9 .*check the connection"):
            call()


def test_a_name_states_its_revision(hub, codec):
    codec.push_to_hub("me/small", token=TOKEN)
    commit = hub.repositories["me/small"].branches["main"]
    saved_codec(name="other").push_to_hub("me/small", token=TOKEN)
    assert AdapTok.from_pretrained(f"me/small@{commit}").weights_hash == codec.weights_hash
    assert AdapTok.from_pretrained("me/small@main", revision="main").config.name == "other"
    with pytest.raises(ValueError, match="revision 'v1' of me/small@main, which names another"):
        resolve("me/small@main", HubOptions("v1"))
    with pytest.raises(FileNotFoundError, match="no revision 'v9'"):
        resolve("me/small@v9")


def test_a_misspelled_path_is_not_sent_to_the_hub(hub, codec, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    codec.save_pretrained("models/mine")
    with pytest.raises(FileNotFoundError, match=r"^modles/mine: no such .*; did you mean models.mine.*mine@main$"):
        AdapTok.from_pretrained("modles/mine")
    for command in (
        ["info", "modles/mine"],
        ["info", "videos/walk.mp4"],
        ["convert", "some/where", "out"],
        ["encode", "walk.mp4", "--model", "my/model"],
        ["generate", "--generator", "my/model"],
    ):
        assert re.fullmatch("adaptok: error: .*: no such file or model folder.*", fails(capsys, *command))
    assert hub.requests == []
    for name in ("modles/mine@main", "me/nothing"):
        with pytest.raises(FileNotFoundError, match="no such model at http"):
            resolve(name)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n{"])
def test_broken_answers_are_one_line(hub, monkeypatch, answer):
    """The connection ends before, within and after an answer, which is not JSON."""
    with answer_always(answer) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(ConnectionError, match=r"^me/x: cannot be exchanged with http.*try again$"):
            resolve("me/x")


@pytest.mark.slow
def test_the_command_line_uses_the_hub_of_the_environment(hub, codec, tmp_path):
    codec.push_to_hub("me/small", token=TOKEN)
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "own"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "adaptok", "info", "me/small@main", "--json"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert codec.weights_hash in done.stdout
