"""The root of the command line and all commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import Positional, subcommand
from tyro.constructors import PrimitiveConstructorSpec

from adaptok.cli.benchmark import Benchmark
from adaptok.cli.compare import Compare
from adaptok.cli.convert import Convert
from adaptok.cli.data import Data
from adaptok.cli.decode import Decode
from adaptok.cli.demo import Demo
from adaptok.cli.encode import Encode
from adaptok.cli.evaluate import Evaluate
from adaptok.cli.export import Export
from adaptok.cli.export_onnx import ExportOnnx
from adaptok.cli.generate import Generate
from adaptok.cli.info import Info
from adaptok.cli.options import Switch, option
from adaptok.cli.predict import Predict
from adaptok.cli.reconstruct import Reconstruct
from adaptok.cli.tokenize import Tokenize
from adaptok.cli.train import Train
from adaptok.cli.weights import Weights


class Words(tuple[str, ...]):
    """Names of a command and its subcommand.

    It is a class of its own because tyro imports typeguard to check a default of the type tuple[str, ...], which would
    take half of the time that the overview takes.
    """


_NO_WORDS = Words()
_WORDS = PrimitiveConstructorSpec(
    nargs="*",
    metavar="NAME",
    instance_from_str=Words,
    is_instance=lambda value: isinstance(value, Words),
    str_from_instance=list,
)


@dataclass(kw_only=True)
class Help:
    """Show this overview, or the options of one command."""

    of: Annotated[Positional[Words], _WORDS, option("[COMMAND …]")] = _NO_WORDS
    """Command to explain, such as: train tokenizer."""

    def run(self) -> None:
        from adaptok.cli.parser import print_help

        print_help(self.of)


@dataclass(kw_only=True)
class Adaptok:
    """Turn video into short adaptive sequences of discrete tokens, and back."""

    notes: ClassVar[str] = (
        "'adaptok COMMAND --help' explains the options of a command. Exit codes: 0 success, 1 failure, 2 wrong"
        " arguments or input files, 130 interrupted. Tab completion: 'adaptok --tyro-write-completion bash FILE' writes"
        " a script to source in the start-up file of the shell (bash, zsh, fish or tcsh)."
    )

    command: (
        Annotated[Encode, subcommand("encode")]
        | Annotated[Decode, subcommand("decode")]
        | Annotated[Reconstruct, subcommand("reconstruct")]
        | Annotated[Info, subcommand("info")]
        | Annotated[Tokenize, subcommand("tokenize")]
        | Annotated[Train, subcommand("train")]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Generate, subcommand("generate")]
        | Annotated[Predict, subcommand("predict")]
        | Annotated[Demo, subcommand("demo")]
        | Annotated[Data, subcommand("data")]
        | Annotated[Convert, subcommand("convert")]
        | Annotated[Export, subcommand("export")]
        | Annotated[ExportOnnx, subcommand("export-onnx")]
        | Annotated[Weights, subcommand("weights")]
        | Annotated[Benchmark, subcommand("benchmark")]
        | Annotated[Help, subcommand("help", is_default=True)]
    )
    version: Switch = False
    """Print the version and exit."""
