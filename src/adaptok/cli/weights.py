"""`adaptok weights list` and `adaptok weights fetch`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, subcommand

from adaptok.cli.errors import did_you_mean, one_of
from adaptok.cli.options import Messages, group, option
from adaptok.cli.output import columns, download_progress, show

if TYPE_CHECKING:
    from adaptok.metrics.pretrained import Published


@dataclass(kw_only=True)
class ListWeights:
    """List the published weights that adaptok can use: size, SHA-256, source, and where they are cached."""

    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.checkpoints.official_models import OFFICIAL_MODELS, cached_model
        from adaptok.metrics.registry import METRIC_WEIGHTS

        rows: dict[str, dict[str, Any]] = {}
        for name, weights in METRIC_WEIGHTS.items():
            place = weights.cached if weights.cached.is_file() else None
            rows[name] = {
                "megabytes": weights.megabytes,
                "sha256": weights.sha256,
                "source": weights.url,
                "path": place,
            }
        for name, repo_id in OFFICIAL_MODELS.items():
            source = f"https://huggingface.co/{repo_id}"
            rows[name] = {"megabytes": None, "sha256": None, "source": source, "path": cached_model(repo_id)}
        lines, sources = [("name", "MB", "SHA-256", "cached")], ["source"]
        for name, row in rows.items():
            digest = "stated by the hub" if row["sha256"] is None else row["sha256"][:12]
            lines.append((name, str(row["megabytes"] or "-"), digest, "yes" if row["path"] else "no"))
            sources.append(row["source"])
        table = [f"{line}  {source}" for line, source in zip(columns(lines), sources, strict=True)]
        show(self.messages, rows, "\n".join(table))


@dataclass(kw_only=True)
class FetchWeights:
    """Download published weights into the cache, and verify their SHA-256."""

    notes: ClassVar[str] = (
        "An interrupted download resumes when the command is started again. Weights of metrics go to $ADAPTOK_CACHE"
        " (~/.cache/adaptok), where 'adaptok evaluate' finds them; models go to the cache of the Hugging Face hub."
    )

    names: Annotated[Positional[tuple[str, ...]], option("NAME [NAME …]")]
    """Names that 'adaptok weights list' shows, such as lpips-vgg or adaptok-scorer."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.checkpoints.official_models import OFFICIAL_MODELS, fetch_model
        from adaptok.metrics.registry import METRIC_WEIGHTS

        known = (*METRIC_WEIGHTS, *OFFICIAL_MODELS)
        for name in self.names:
            if name not in known:
                raise ValueError(f"{name}: expected {one_of(known)}{did_you_mean(name, known)}")
        paths = {}
        for name in self.names:
            if name in METRIC_WEIGHTS:
                paths[name] = self._fetch(name, METRIC_WEIGHTS[name])
            else:
                paths[name] = str(fetch_model(OFFICIAL_MODELS[name]))
        show(self.messages, paths, "\n".join(f"{name}: {path}" for name, path in paths.items()))

    def _fetch(self, name: str, weights: Published) -> str:
        try:
            with download_progress(self.messages, name) as progress:
                return str(weights.fetch(progress))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the next 'adaptok weights fetch' resumes the download") from None


@dataclass(kw_only=True)
class Weights:
    """List or download the published weights of metrics and models."""

    command: Annotated[ListWeights, subcommand("list")] | Annotated[FetchWeights, subcommand("fetch")]
