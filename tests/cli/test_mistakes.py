"""Mistyped command lines: one line on standard error that names the remedy, and exit code 2."""

from __future__ import annotations

import shlex

import pytest

from adaptok.cli.main import main

MISTAKES = {
    # commands
    "foo": "unknown command 'foo'",
    "encod clip.mp4": "unknown command 'encod'; did you mean encode?",
    "tokenise clips": "unknown command 'tokenise'; did you mean tokenize?",
    "train": "train: expected tokenizer, scorer or generator after it",
    "train tokeniser": "train: unknown command 'tokeniser'; did you mean tokenizer?",
    "data synthesise out": "data: unknown command 'synthesise'; did you mean synthesize?",
    "benchmark": "benchmark: expected encode, decode, allocate, generate or train after it",
    "evaluate": "evaluate: expected reconstruction, generation, prediction or files after it",
    "help encod": "unknown command 'encod'; did you mean encode?",
    # flags
    "encode clip.mp4 --budgett 5": "encode: unknown flag --budgett; did you mean --budget?",
    "encode clip.mp4 out.adaptok --modle x": "encode: unknown flag --modle; did you mean --model?",
    "reconstruct clip.mp4 --sidebyside": "unknown flag --sidebyside; did you mean --side-by-side?",
    "generate --lable spin": "generate: unknown flag --lable; did you mean --label?",
    "evaluate files --referense a --prediction b": "unknown flag --referense; did you mean --reference?",
    "--verson": "unknown flag --verson; did you mean --version?",
    "train tokenizer --outptu x": "unknown flag --outptu; did you mean --output?",
    "train tokenizer --optimizer.lrr 1e-4": "unknown key 'optimizer.lrr', did you mean 'optimizer.lr'?",
    "train generator --set modle.width=3": "unknown key 'modle.width'",
    "train scorer --set optimizer.lr": "--set optimizer.lr: expected KEY=VALUE",
    # values
    "encode clip.mp4 --scope vide": "--scope: 'vide' is not video, clip, batch or stream; did you mean video?",
    "encode clip.mp4 --scope=vide": "--scope: 'vide' is not video, clip, batch or stream; did you mean video?",
    "encode clip.mp4 --budget many": "--budget: 'many' is not a number",
    "encode clip.mp4 --budget 1,2": "--budget: '1,2' is not a number",
    "encode clip.mp4 --batch-size four": "--batch-size: 'four' is not an integer",
    "encode clip.mp4 --budget": "--budget: expected a value after it",
    "encode clip.mp4 --budget --json": "--budget: expected a value after it",
    "reconstruct clip.mp4 --budget 12,x": "--budget: 'x' is not a number",
    "benchmark encode --dtype float31": "--dtype: 'float31' is not float32, bfloat16 or float16; did you mean float32?",
    "evaluate reconstruction x --metrics psnr sim": "--metrics: 'sim' is not psnr, ",
    "evaluate files --reference a --prediction b --metrics vmaf": "--metrics: 'vmaf' is not psnr, ",
    "compare a b --level 2": "--level 2, expected a number between 0 and 1",
    "train tokenizer --config tinny": "tinny: no such preset",
    "demo --port 99999": "port 99999, expected 0 to 65535",
    "demo --max-seconds 0": "limit of 0 seconds, expected more than 0",
    # arguments and files
    "encode": "encode: expected VIDEO",
    "decode --json": "decode: expected TOKENS",
    "compare a": "compare: expected A B",
    "evaluate files --reference a": "evaluate files: expected --prediction;",
    "encode clip.mp4 out.adaptok more": "encode: unexpected argument 'more'",
    "encode clip.mp4 out.adaptok -o other.adaptok": "clip.mp4: no such file",
    "encode - out.adaptok": "-: standard input is encoded as a stream; add --stream",
    "encode - --stream": "-: no name for the token file; give it after the hyphen",
    "encode - out.adaptok --stream --input-format rgb24": "--input-size is missing, expected width and height of the",
    "encode - out.adaptok --stream --input-format rgb24 --input-size 64": "--input-size 64, expected width and height",
    "encode - out.adaptok --stream --input-size 64x48": "--input-size 64x48 with y4m, whose header states the size",
    "encode - out.adaptok --input-format rgb": "--input-format: 'rgb' is not y4m or rgb24; did you mean rgb24?",
    "encode clip.mp4 --stream --scope clip": "--stream with --scope clip, expected the scope stream or none",
    "encode clip.mp4 --target-psnr 28 --budget 96": "--target-psnr 28 and --budget 96 exclude each other",
    "encode clip.mp4 --target-psnr 28 --target-lpips 0.2": "--target-psnr 28 and --target-lpips 0.2 exclude each other",
    "encode clip.mp4 --target-psnr 28 --scope batch": "--target-psnr 28 with the scope batch, expected video or clip",
    "encode - x.adaptok --stream --target-lpips 0.2": "--target-lpips 0.2 with the scope stream, expected",
    "encode clip.mp4 --target-psnr 28 --lpips-weights x": "--lpips-weights x without --target-lpips",
    "reconstruct clip.mp4 --target-psnr 28 --target 0.1": "--target-psnr 28 and --target 0.1 exclude each other",
    "reconstruct clip.mp4 --target-psnr 28 --compare-uniform": "--compare-uniform needs a budget",
    "encode clip.mp4 --effort 4": "--effort: '4' is not 0, 1, 2 or 3",
    "encode https://host/clip.mp4": "https://host/clip.mp4: URLs are opened only if asked; add --allow-url",
    "reconstruct http://host/clip.mp4": "http://host/clip.mp4: URLs are opened only if asked; add --allow-url",
    "encode ftp://host/clip.mp4 --allow-url": "a URL of the scheme 'ftp', expected http or https",
    "reconstruct -": "-: standard input can be read only once",
    "decode https://host/x.adaptok": "URLs are not supported; download the file and give its local path",
    "encode .": ".: neither videos (.avi, ",
    "encode . -o x.adaptok": "x.adaptok: the name of a file, expected a folder to write, as . is one",
    "evaluate reconstruction nowhere": "nowhere: no such folder or list of files",
    "info nowhere": "nowhere: no such model folder",
    "export nowhere": "nowhere: holds no checkpoint, expected the folder of a run of 'adaptok train'",
}


@pytest.mark.parametrize(("line", "expected"), MISTAKES.items())
def test_mistake_is_one_line_with_the_remedy(line, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert captured.err.startswith("adaptok: error: ")
    assert expected in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    {
        "encode clip.mp4 precious.mp4 --force": "precious.mp4: expected the name of an output file",
        "encode clip.mp4 a.adaptok -o b.adaptok": "two outputs, a.adaptok and --output b.adaptok; give one of them",
        "encode clip.mp4 -": "-: standard input and output are not supported",
        "decode clip.mp4 back.txt": "back.txt: expected the name of an output file with the suffix .mp4",
        "decode clip.mp4 clip.mp4 --force": "clip.mp4: output and input are the same file",
        "reconstruct clip.mp4 --plot p.txt": "p.txt: expected the name of an output file with the suffix .png",
        "reconstruct clip.mp4 out.mp4 --plot p.txt": "p.txt: expected",
        "reconstruct clip.mp4 --side-by-side": "--side-by-side needs a video to write",
        "predict clip.mp4 -o out.mp4 --sheet sheet.mp4": "sheet.mp4: expected",
        "data index clip.mp4 -o index.csv": "index.csv: expected",
        "compare a b -o page.txt": "page.txt: expected",
    }.items(),
)
def test_outputs_are_checked_before_the_work(line, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "precious.mp4"):
        (tmp_path / name).write_text("precious")
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.splitlines()) == 1, error
    assert expected in error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "clip.mp4": "precious",
        "precious.mp4": "precious",
    }


def test_suggestion_for_a_flag_before_its_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["-q", "encode", "clip.mp4"])
    assert "unknown flag -q" in capsys.readouterr().err
