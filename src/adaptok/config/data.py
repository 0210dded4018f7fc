"""Configuration of the training data: clips for tokenizers and scorers, token datasets for generators."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from adaptok.config.base import Config, Fraction01, Positive

Sampling = Literal["clips", "videos"]
"""How the clips of an epoch are chosen."""


class DataConfig(Config):
    """Videos and photographs that training clips are cut from."""

    train: tuple[str, ...] = ()
    """Folders, searched recursively for videos and photographs, or lists of files: CSV (path[,label], or
    id,path,action,label), text (path [label]), or an index written by 'adaptok data index' (.parquet)."""
    root: str | None = None
    """Folder that relative paths in lists are resolved against. The folder of the list by default."""
    sampling: Sampling = "clips"
    """'clips' draws every clip independently, from long videos more often than from short ones. 'videos' visits every
    video once per epoch, in a random order, as in the official recipe; photographs are then not used."""
    clip_start: Literal["random", "first"] = "random"
    """Where a clip starts in its video: at a 'random' frame or at the 'first' one, which needs `sampling` videos."""
    weights: tuple[Annotated[float, Field(ge=0.0)], ...] = ()
    """Relative frequency of clips from each entry of `train`. By default, all entries form one collection."""
    image_fraction: Annotated[Fraction01, Field(validation_alias=AliasChoices("image_fraction", "image_share"))] = 0.3
    """Fraction of clips made from photographs by a moving camera, where a collection has both kinds of files."""
    drawn_fraction: Annotated[Fraction01, Field(validation_alias=AliasChoices("drawn_fraction", "drawn_share"))] = 0.0
    """Fraction of clips drawn by a program: shapes, patterns and text with sharp edges."""
    text_fraction: Annotated[Fraction01, Field(validation_alias=AliasChoices("text_fraction", "text_share"))] = 0.0
    """Fraction of all clips with text written over them."""
    still_fraction: Fraction01 = 0.03
    """Fraction of the clips of videos that show one frame for their whole duration."""
    strides: tuple[Positive, ...] = (1, 1, 2)
    """Distances between consecutive frames of a clip, in frames of the video. One is drawn for each clip, so repeated
    values are drawn more often."""
    flip: bool = True
    """Mirror half of the clips horizontally."""
    reversed_fraction: Annotated[
        Fraction01, Field(validation_alias=AliasChoices("reversed_fraction", "reversed_share"))
    ] = 0.0
    """Fraction of clips played backwards."""
    cut_fraction: Annotated[Fraction01, Field(validation_alias=AliasChoices("cut_fraction", "cut_share"))] = 0.0
    """Fraction of clips that cut to another clip at a random frame."""
    crop: Literal["random", "center"] = "random"
    """'random' crops a random square of a video. 'center' resizes the short side of the frames to the side of the clip
    and crops the center, as encoding does."""
    min_crop: Annotated[float, Field(gt=0.0, le=1.0, validation_alias=AliasChoices("min_crop", "least_crop"))] = 0.9
    """Smallest random crop of a video, as a fraction of the clip's side. Crops smaller than the clip are enlarged."""
    validation: str | None = None
    """Folder of videos whose first clips are reconstructed at each validation. Without it, runs are not validated."""
    validation_clips: Positive | None = None
    """Maximum number of validation videos, spread evenly over all. Null uses all."""
    max_broken_fraction: Annotated[
        Fraction01, Field(validation_alias=AliasChoices("max_broken_fraction", "most_broken"))
    ] = 0.2
    """Fraction of unreadable files above which a run stops."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Number of processes that decode clips for each training process. 0 decodes in the training process."""
    cache_gib: Annotated[float, Field(ge=0.0)] = 3.0
    """Size of each worker's cache of decoded frames, in GiB."""

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.sampling == "videos" and (self.weights or self.drawn_fraction):
            name = "weights" if self.weights else "drawn_fraction"
            raise ValueError(
                f"data.{name} {getattr(self, name)} does not work with data.sampling videos, which visits every video"
                f" once per epoch; leave data.{name} out, or set data.sampling to clips"
            )
        if self.clip_start == "first" and self.sampling != "videos":
            raise ValueError("data.clip_start first needs data.sampling videos; set it, or data.clip_start random")
        return self


class TokenDataConfig(Config):
    """Token datasets that a generator is trained on."""

    train: tuple[str, ...] = ()
    """Token datasets: folders written by 'adaptok tokenize'."""
    sampling: Sampling = "clips"
    """'clips' visits every clip once per epoch. 'videos' visits every source video once per epoch with one of its
    clips, drawn at random, so that videos are equally likely however many clips they have, as in the official
    recipe."""
    validation: str | None = None
    """Token dataset of other videos, to measure loss and accuracy on."""
    held_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of the source videos held out for validation, with all their clips. An alternative to `validation`."""
    labels: tuple[str, ...] = ()
    """Class names in the order of their numbers. By default, those that occur in `train`, in alphabetical order."""
    validation_clips: Positive = 64
    """Maximum number of clips used for validation."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Number of processes that read the dataset for each training process. 0 reads in the training process."""

    @model_validator(mode="after")
    def _check(self) -> TokenDataConfig:
        if self.validation is not None and self.held_out:
            raise ValueError(
                f"data.validation {self.validation!r} and data.held_out {self.held_out:g} exclude each other; give one"
            )
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"data.labels {list(self.labels)} has duplicates; list each label once")
        return self
