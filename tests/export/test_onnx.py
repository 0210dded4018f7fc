"""Export to ONNX: onnxruntime computes what PyTorch computes, and the example decodes a token file without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptok.cli.main import main
from adaptok.codec.codec import AdapTok
from adaptok.export.onnx import TORCH, export_onnx
from adaptok.models.model import weights_hash
from adaptok.utils.files import sha256_of
from tests.helpers.models import cumulative_model, option_config, random_model, small_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "decode_onnx.py"
LENGTHS = [[8, 0, 3, 5], [1, 2, 3, 4], [0, 0, 0, 8]]
WITHOUT_TORCH = "import runpy, sys; sys.modules.update(torch=None, adaptok=None); sys.argv.pop(0);"
WITHOUT_TORCH += " runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.mark.slow
@pytest.mark.parametrize("config", [option_config(), small_config(vector=True)], ids=["scalar", "vector"])
def test_onnxruntime_agrees(config, clips, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    if torch.__version__ < TORCH:
        pytest.skip("needs a newer PyTorch")
    model = random_model(config)
    codec = AdapTok(model, weights_hash(model.state_dict()))
    codec.save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    main(["export-onnx", str(tmp_path / "model"), str(out), "--quiet"])
    with pytest.raises(SystemExit):
        main(["export-onnx", str(tmp_path / "model"), str(out)])
    assert "--force" in capsys.readouterr().err

    document = json.loads((out / "onnx.json").read_text())
    assert (document["opset"], document["model_hash"]) == (18, codec.weights_hash)
    networks = document["networks"]
    sessions = {name: onnxruntime.InferenceSession(str(out / each["file"])) for name, each in networks.items()}
    for name, session in sessions.items():
        assert networks[name]["sha256"] == sha256_of(out / networks[name]["file"])
        for kind, tensors in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            described = [(each["name"], each["shape"][1:]) for each in networks[name][kind]]
            assert described == [(tensor.name, tensor.shape[1:]) for tensor in tensors]

    latents, lengths = codec.encode_clips(clips), np.array(LENGTHS)
    ids, encoded, inputs = sessions["encoder"].run(None, {"clips": clips.numpy()})
    assert np.array_equal(ids, latents.ids)
    for actual, expected in ((encoded, latents.encoded), (inputs, latents.inputs)):
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    (scores,) = sessions["scorer"].run(None, {"encoded": encoded, "decoder_inputs": inputs, "lengths": lengths})
    np.testing.assert_allclose(scores, codec.score_clips(latents, LENGTHS), atol=1e-4)
    (decoded,) = sessions["decoder"].run(None, {"ids": ids, "lengths": lengths})
    np.testing.assert_allclose(decoded, codec.decode_clips(latents.ids, LENGTHS), atol=1e-4)

    frames = torch.randint(256, (21, 18, 44, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = codec.encode(frames.numpy(), budget=12, uniform=True, fit="tile", window_overlap=2)
    tokens.save(tmp_path / "clip.adaptok")
    arguments = [EXAMPLE, out, tmp_path / "clip.adaptok", tmp_path / "frames.npy"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
    difference = np.load(tmp_path / "frames.npy").astype(int) - codec.decode(tokens, original=False)
    assert len(difference) == 21
    assert np.abs(difference).max() <= 1  # rounding


@pytest.mark.slow
def test_a_scorer_of_the_spectrum_reads_pixels(clips, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    if torch.__version__ < TORCH:
        pytest.skip("needs a newer PyTorch")
    model = cumulative_model(reads="spectrum").eval()
    export_onnx(model, weights_hash(model.state_dict()), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "scorer.onnx"))
    (scores,) = session.run(None, {"clips": clips.numpy(), "lengths": np.array(LENGTHS)})
    features = model.scorer.features(clips, clips.new_empty(3, 4))
    with torch.no_grad():
        expected = model.scorer(features, features, LENGTHS).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-4)
