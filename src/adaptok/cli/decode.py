"""`adaptok decode TOKENS [VIDEO]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from adaptok.cli.audio import find_sound
from adaptok.cli.decode_rows import decode_rows, is_token_dataset
from adaptok.cli.errors import one_of
from adaptok.cli.folders import find_jobs, run_jobs
from adaptok.cli.options import Computation, InputLimits, Messages, Switch, group, option
from adaptok.cli.output import (
    TOKEN_SUFFIXES,
    VIDEO_SUFFIXES,
    Advance,
    input_path,
    one_output,
    output_path,
    progress,
    say,
    show,
)
from adaptok.config.choices import AudioMode

if TYPE_CHECKING:
    from adaptok.codec.codec import AdapTok
    from adaptok.codec.token_file import VideoTokens


@dataclass(kw_only=True)
class Decode:
    """Decode a token file into a video, or all token files of a folder, or rows of a token dataset."""

    tokens: Annotated[Positional[Path], option("TOKENS")]
    """Token file to read, or a folder whose token files are all decoded; its sub-folders are mirrored. Or a token
    dataset of 'adaptok tokenize': a folder of Parquet files, or one of them."""
    out: Annotated[Positional[Path | None], option("[VIDEO]")] = None
    """Video to write (.mp4, .m4v, .mov or .mkv). The default is the name of the token file with the suffix .mp4, in the
    current folder. For a folder or a token dataset, the folder to write, by default the name of the input followed by
    -decoded. Videos of a token dataset are named by the number of the row and the source, such as
    000012-walk.mp4."""
    output: Annotated[Path | None, option("VIDEO", "-o")] = None
    """The same as the argument VIDEO."""
    rows: Annotated[tuple[str, ...], option("N [N …]")] = ()
    """Rows of a token dataset to decode, counted from 0: numbers, and ranges such as 8-11. All rows are decoded by
    default."""
    budget: Annotated[float | None, option("N")] = None
    """Drop tokens first, down to this number per clip on average. Needs tokens with scores. All tokens are decoded by
    default."""
    square: Switch = False
    """Write what the model sees instead of the original frame size: its square, or the whole frame at its scale."""
    any_model: Switch = False
    """Decode even if another model wrote the tokens, as long as their shapes match."""
    audio: AudioMode = "copy"
    """Whether the sound of the original video is copied, if the token file says where it is."""
    force: Switch = False
    """Overwrite existing videos. Without it, those of a folder are skipped."""
    skip_existing: Switch = False
    """Do nothing where the video exists. This is how folders are decoded in any case, unless --force is given."""
    maxima: Annotated[InputLimits, group("limit")] = field(default_factory=InputLimits)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        if is_token_dataset(self.tokens):
            self._run_rows()
            return
        if self.rows:
            raise ValueError(f"--rows {' '.join(self.rows)}: expected a token dataset, which {self.tokens} is not")
        if self.tokens.is_dir():
            self._run_folder()
            return
        source = input_path(self.tokens)
        out = one_output(self.out, self.output, Path(source.name).with_suffix(".mp4"))
        assert out is not None
        if self.skip_existing and out.is_file() and not self.force:
            show(self.messages, {"out": str(out), "skipped": True}, f"{out}: exists, skipped")
            return
        output_path(out, self.force, [source], VIDEO_SUFFIXES)
        tokens = self._load(source)
        codec = self.computation.load()
        codec.check_tokens(tokens, any_model=self.any_model)
        with progress(self.messages, "decoding", tokens.info.frames, "frames") as advance:
            document, note = self._decode(codec, tokens, source, out, advance)
        if note is not None:
            say(self.messages, note)
        show(self.messages, document, f"{out}: {tokens.info.frames} frames from {tokens.tokens} tokens")

    def _load(self, source: Path) -> VideoTokens:
        from adaptok.codec.token_file import VideoTokens

        tokens = VideoTokens.load(source)
        return tokens if self.budget is None else tokens.truncate(self.budget)

    def _decode(
        self, codec: AdapTok, tokens: VideoTokens, source: Path, out: Path, advance: Advance | None = None
    ) -> tuple[dict[str, Any], str | None]:
        """Decode tokens of the file `source` into a video; return a description, and a note about its sound."""
        from adaptok.video.writing import VideoWriter

        info = tokens.info
        sound, note = find_sound(tokens, source) if self.audio == "copy" else (None, None)
        with VideoWriter(out, info.fps, sound=sound) as writer:
            for frames in codec.iter_decode(
                tokens,
                original=not self.square,
                any_model=self.any_model,
                batch_size=self.computation.batch_size,
                limits=self.maxima.limits,
                progress=advance,
            ):
                writer.write(frames)
        height, width = info.geometry.canvas if self.square else (info.height, info.width)
        document = {
            "out": str(out),
            "frames": info.frames,
            "rate": info.rate,
            "width": width,
            "height": height,
            "tokens": tokens.tokens,
            "audio": "copied" if sound is not None else "dropped" if info.audio is not None else None,
        }
        return document, note

    def _run_rows(self) -> None:
        name = self.tokens.resolve()
        out = one_output(self.out, self.output, Path(f"{name.name if name.is_dir() else name.stem}-decoded"))
        assert out is not None

        def write(codec: AdapTok, tokens: VideoTokens, made: Path) -> dict[str, Any]:
            return self._decode(codec, tokens, self.tokens, made)[0]

        decode_rows(
            self.tokens,
            out,
            self.rows,
            self.computation.load,
            write,
            self.messages,
            budget=self.budget,
            any_model=self.any_model,
            force=self.force,
            skip_existing=self.skip_existing,
        )

    def _run_folder(self) -> None:
        out = one_output(self.out, self.output, Path(f"{self.tokens.resolve().name}-decoded"))
        assert out is not None
        jobs = find_jobs(self.tokens, out, _list_token_files, ".mp4", force=self.force)
        codec = self.computation.load()

        def work(path: Path, made: Path) -> dict[str, Any]:
            document, note = self._decode(codec, self._load(path), path, made)
            return {**document, "note": note}

        run_jobs(self.messages, "decoding", jobs, out, work)


def _list_token_files(folder: Path) -> list[Path]:
    from adaptok.video.folders import list_files

    files = list_files(folder, TOKEN_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: no file with the suffix {one_of(TOKEN_SUFFIXES)} in it, expected some")
    return files
