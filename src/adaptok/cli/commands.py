"""The root of the command line and all commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, subcommand

from adaptok.cli.benchmark import Benchmark
from adaptok.cli.compare import Compare
from adaptok.cli.convert import Convert
from adaptok.cli.data import Data
from adaptok.cli.decode import Decode
from adaptok.cli.encode import Encode
from adaptok.cli.evaluate import Evaluate
from adaptok.cli.export import Export
from adaptok.cli.generate import Generate
from adaptok.cli.info import Info
from adaptok.cli.options import Switch, option
from adaptok.cli.predict import Predict
from adaptok.cli.reconstruct import Reconstruct
from adaptok.cli.tokenize import Tokenize
from adaptok.cli.train import Train


@dataclass(kw_only=True)
class Help:
    """Show this overview, or the options of one command."""

    of: Annotated[Positional[tuple[str, ...]], option("[COMMAND …]")] = ()
    """Command to explain, such as: train tokenizer."""

    def run(self) -> None:
        from adaptok.cli.parser import print_help

        print_help(self.of)


@dataclass(kw_only=True)
class Adaptok:
    """Turn video into short adaptive sequences of discrete tokens, and back.

    'adaptok COMMAND --help' explains the options of a command. Exit codes: 0 success, 1 failure, 2 wrong arguments or
    input files, 130 interrupted. Tab completion: 'adaptok --tyro-write-completion bash FILE' writes a script to source
    from your shell's start-up file (bash, zsh, fish or tcsh).
    """

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
        | Annotated[Data, subcommand("data")]
        | Annotated[Convert, subcommand("convert")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Benchmark, subcommand("benchmark")]
        | Annotated[Help, subcommand("help", is_default=True)]
    )
    version: Switch = False
    """Print the version and exit."""
