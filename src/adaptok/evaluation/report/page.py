"""The pages of a report: Markdown, and HTML that needs nothing but itself.

Both are made from the document of `report.json` alone, and pictures.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptok.evaluation.measures import NAMES, UNITS
from adaptok.evaluation.report.charts import Line, bar_chart, line_chart

Frame = NDArray[np.uint8]
Picture = tuple[str, list[tuple[str, list[Frame]]]]
Row = list[str]

_MOST_BARS = 24
_GAP = 2

STYLE = """
:root{color-scheme:light dark;--paper:#fbfbfd;--card:#fff;--ink:#1c2230;--faint:#667085;--grid:#e4e7ee;--edge:#e4e7ee;
--c0:#2f6fed;--c1:#e0702a;--c2:#1f9d6b;--c3:#a24bd6;--c4:#c9a100;--c5:#d6406f}
@media(prefers-color-scheme:dark){:root{--paper:#12151c;--card:#1a1f29;--ink:#e8ebf2;--faint:#98a2b5;--grid:#2b3240;
--edge:#2b3240;--c0:#6ea2ff;--c1:#ff9d5c;--c2:#4fd09c;--c3:#cf8bf5;--c4:#e8c84a;--c5:#ff7fa6}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:76rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:0 0 .5rem}
p.lead{color:var(--faint);margin:.2rem 0 1rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.7rem}
.facts div{background:var(--card);border:1px solid var(--edge);border-radius:.6rem;padding:.6rem .8rem}
.facts b{display:block;font-size:1.35rem;line-height:1.2}.facts span{color:var(--faint);font-size:.85rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
figure{margin:0;background:var(--card);border:1px solid var(--edge);border-radius:.6rem;padding:.8rem;min-width:0}
figcaption{font-size:.9rem;margin-bottom:.4rem;overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font-size:13px}
.grid{stroke:var(--grid)}.guide{stroke:var(--faint);stroke-dasharray:2 4;fill:none}
.legend{margin:.3rem 0 0;font-size:.85rem;display:flex;flex-wrap:wrap;gap:.2rem 1rem}
.legend i{display:inline-block;width:1.5rem;border-top:2px solid;vertical-align:middle;margin-right:.35rem}
.table{overflow-x:auto;background:var(--card);border:1px solid var(--edge);border-radius:.6rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.45rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--edge)}
th:first-child,td:first-child{text-align:left}tr:last-child td{border-bottom:0}th{color:var(--faint);font-weight:600}
img{width:100%;display:block;border-radius:.3rem;image-rendering:auto}
td.wrap{white-space:normal;overflow-wrap:anywhere;text-align:left}
"""


def markdown_page(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"# {title(document)}", "", *(f"- {name}: {value}" for name, value in facts(document)), ""]
    for heading, head, rows in tables(document):
        lines += [f"## {heading}", "", _markdown_row(head), _markdown_row(["---", *["---:"] * (len(head) - 1)])]
        lines += [*(_markdown_row(row) for row in rows), ""]
    lines += ["## To repeat it", "", *(f"- {name}: {value}" for name, value in repeat(document)), ""]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html_page(document: dict[str, Any], shown: dict[str, list[Picture]]) -> str:
    """The report as one HTML file: styles, charts and pictures are in it, and nothing is fetched."""
    body = f"<h1>{escape(title(document))}</h1><p class=lead>{escape(lead(document))}</p>"
    cards = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in headline(document))
    body += f'<div class="facts">{"".join(cards)}</div>'
    if charts := rate_charts(document):
        body += f'<h2>Quality over tokens</h2><div class="cards">{"".join(charts)}</div>'
    for heading, head, rows in tables(document):
        body += f"<h2>{escape(heading)}</h2>{_html_table(head, rows)}"
    if charts := token_charts(document):
        body += f'<h2>Where tokens go</h2><div class="cards">{"".join(charts)}</div>'
    for name in ("worst", "best"):
        if shown.get(name):
            figures = "".join(_figure(escape(caption), _picture(strips)) for caption, strips in shown[name])
            body += f'<h2>{name.capitalize()} clips</h2><div class="cards">{figures}</div>'
    body += f"<h2>To repeat it</h2>{_html_table(['', ''], [list(row) for row in repeat(document)], wrap=True)}"
    return _html(title(document), body)


def _html(heading: str, body: str) -> str:
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    meta += f'<title>{escape(heading)}</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{meta}</head><body>{body}</body></html>\n'


def title(document: dict[str, Any]) -> str:
    names = {"tokenizer": "Evaluation", "pairs": "Comparison of two folders", "generation": "Evaluation of samples"}
    model = document.get("model")
    return names[document["kind"]] + (f" of {model['name']}" if model else "")


def lead(document: dict[str, Any]) -> str:
    protocol = document["protocol"]
    square = "at their own size" if protocol["size"] is None else f"{protocol['size']} x {protocol['size']} pixels"
    return f"{protocol['takes'].capitalize()}. Clips of {protocol['frames']} frames, {square}."


def headline(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The few figures that come first: those of the largest budget."""
    data, result = document["data"], document["results"][-1]
    figures = result[result["way"]]
    found = [("videos", f"{data['videos']}"), ("clips", f"{data['clips']}")]
    budget = "" if result["budget"] is None else f" at {result['budget']:g} tokens"
    found += [(NAMES[name] + budget, with_unit(name, figures[name])) for name in document["metrics"]]
    gains = [r for r in document["results"] if "psnr" in r.get("gain", {})]
    if gains:
        best = max(gains, key=lambda r: r["gain"]["psnr"])
        gained = with_unit("psnr", best["gain"]["psnr"], "+")
        found.append((f"gain over uniform lengths at {best['budget']:g} tokens", gained))
    return found


def facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    data = document["data"]
    found = [
        ("protocol", f"{document['protocol']['name']}: {lead(document)}"),
        ("videos, clips", f"{data['videos']}, {data['clips']}"),
    ]
    found += [(f"{name} left out", why) for name, why in document["left_out"].items()]
    found += [
        (f"{name} undefined", f"for {count} of {data['clips']} clips, which its means leave out")
        for name, count in document["undefined"].items()
    ]
    if data["skipped"]:
        found.append(("videos left out", "; ".join(f"{name}: {why}" for name, why in data["skipped"].items())))
    return found


def tables(document: dict[str, Any]) -> list[tuple[str, Row, list[Row]]]:
    """Heading, head and rows of every table."""
    results, metrics = document["results"], document["metrics"]
    rows = [
        [_budget(r["budget"]), way, *(with_unit(m, r[way].get(m)) for m in metrics)]
        for r in results
        for way in ("adaptive", "uniform", "prediction", "samples")
        if way in r
    ]
    found = [("Quality", ["budget", "lengths", *(NAMES[m] for m in metrics)], rows)]
    gains = [r for r in results if r.get("gain")]
    if gains:
        names = [m for m in metrics if any(m in r["gain"] for r in gains)]
        head = ["budget", *(f"gain in {NAMES[m]}" for m in names), "uniform for this PSNR", "saved"]
        found.append(("What adaptive lengths are worth", head, [_gain_row(r, names) for r in gains]))
    spent = [(r["budget"], r[r["way"]]) for r in results if "tokens_per_clip" in r[r["way"]]]
    if spent:
        head = ["budget", "tokens a clip", "tokens a second", "kbit/s", "codebook used", "entropy (bits)"]
        found.append(("Tokens", head, [_token_row(budget, figures) for budget, figures in spent]))
        known = [(budget, f["calibration"]) for budget, f in spent if f["calibration"]]
        if known:
            head = ["budget", "rank correlation", "mean relative error", "mean relative bias", "blocks"]
            found.append(("Predicted against actual distortion", head, [_calibration_row(*each) for each in known]))
    return [*found, _speed_table(document["speed"])] if document.get("speed") else found


def _gain_row(result: dict[str, Any], names: Sequence[str]) -> Row:
    saving = result["saving"].get("psnr")
    row = [_budget(result["budget"]), *(with_unit(m, result["gain"].get(m), "+") for m in names)]
    return [*row, *(["–", "–"] if saving is None else [f"{saving['uniform_tokens']:.0f}", f"{saving['saved']:.1%}"])]


def _token_row(budget: float | None, figures: dict[str, Any]) -> Row:
    codebook = figures["codebook"]
    return [
        _budget(budget),
        f"{figures['tokens_per_clip']:.1f}",
        f"{figures['tokens_per_second']:.0f}",
        f"{figures['bits_per_second'] / 1000:.2f}",
        f"{codebook['used']} of {codebook['size']} ({codebook['used_share']:.1%})",
        f"{codebook['entropy']:.2f}",
    ]


def _calibration_row(budget: float | None, found: dict[str, Any]) -> Row:
    relative = [f"{found[name]:.1%}" for name in ("mean_relative_error", "mean_relative_bias")]
    return [_budget(budget), f"{found['rank_correlation']:.3f}", *relative, f"{found['blocks']}"]


def _speed_table(speed: dict[str, Any]) -> tuple[str, Row, list[Row]]:
    rows = [
        [name, f"{spent:.1f}", f"{speed[f'{name}_clips_per_second']:.2f}"]
        for name, spent in speed["seconds"].items()
        if f"{name}_clips_per_second" in speed
    ]
    return f"Speed (largest memory {speed['memory_gb']:.2f} GB)", ["work", "seconds", "clips a second"], rows


def repeat(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Everything that another needs to come to the same numbers."""
    again, model = document["repeat"], document.get("model")
    found = [("command", again["command"])]
    found += [(name, value) for name, value in facts(document) if name == "protocol" or "left out" in name]
    if model:
        found += [("model", f"{model['name']}, {model['dtype']}"), ("SHA-256 of its tokenizer", model["weights"])]
        found += [("SHA-256 of its scorer", model["scorer"])] if model["scorer"] else []
    if document["protocol"]["scope"]:
        found.append(("budget shared by", document["protocol"]["scope"]))
    if document["protocol"]["batch_size"]:
        found.append(("batch size", str(document["protocol"]["batch_size"])))
    if document["protocol"]["ms_ssim_scales"]:
        found.append(("scales of MS-SSIM", str(document["protocol"]["ms_ssim_scales"])))
    if document["protocol"]["patch_size"]:
        found.append(("patch size of the edge ratio", f"{document['protocol']['patch_size']} pixels"))
    found.append(("SHA-256 of the list of the videos' SHA-256", document["data"]["sha256"]))
    if document["detector"]:
        found.append(("SHA-256 of the FVD's detector", document["detector"]))
    found.append(("versions", ", ".join(f"{name} {value}" for name, value in again["versions"].items())))
    found.append(("machine", ", ".join(f"{value}" for value in again["machine"].values())))
    return found


def rate_charts(document: dict[str, Any]) -> list[str]:
    """A chart of every metric over tokens per clip."""
    results = document["results"]
    if len(results) < 2 or "tokens_per_clip" not in results[0][results[0]["way"]]:
        return []
    charts = []
    for metric in document["metrics"]:
        lines = []
        for colour, way in enumerate(("adaptive", "uniform")):
            known = [r[way] for r in results if way in r and r[way].get(metric) is not None]
            points = sorted((figures["tokens_per_clip"], figures[metric]) for figures in known)
            if points:
                lines.append(Line(f"{way} lengths", points, colour, dashed=way == "uniform"))
        label = NAMES[metric] + (f" ({UNITS[metric]})" if metric in UNITS else "")
        if lines:
            charts.append(_figure(escape(NAMES[metric]), line_chart(lines, "tokens of a clip", label)))
    return charts


def token_charts(document: dict[str, Any]) -> list[str]:
    """Histograms of lengths, and calibration."""
    charts, lines = [], []
    for index, result in enumerate(document["results"]):
        figures = result[result["way"]]
        if "lengths" not in figures or result["way"] != "adaptive":
            continue
        bars = histogram({int(n): count for n, count in figures["lengths"]["histogram"].items()})
        chart = bar_chart(bars, "length of a block", "share of blocks", index)
        charts.append(_figure(f"Lengths at {result['budget']:g} tokens a clip", chart))
        if figures["calibration"]:
            curve = [(p["predicted"], p["actual"]) for p in figures["calibration"]["curve"]]
            lines.append(Line(f"{result['budget']:g} tokens", curve, index))
    if lines:
        chart = line_chart(lines, "predicted distortion of a block", "actual", log=True, diagonal=True)
        charts.append(_figure("Calibration of the scorer: twelve groups of blocks each", chart))
    return charts


def histogram(counts: dict[int, int]) -> list[tuple[str, float]]:
    """Shares of blocks by length, in at most `_MOST_BARS` groups of equal width."""
    total, longest = sum(counts.values()), max(counts)
    step = int(np.gcd.reduce([*counts, longest])) or 1
    while longest // step >= _MOST_BARS:
        step *= 2
    groups: dict[int, float] = dict.fromkeys(range(0 if 0 in counts else step, longest + step, step), 0.0)
    for length, count in counts.items():
        groups[min(-(-length // step) * step, max(groups))] += count / total
    return [(str(length), share) for length, share in groups.items()]


def with_unit(metric: str, value: float | None, sign: str = "") -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    digits = 2 if metric in ("psnr", "psnr_frame", "fvd") else 4
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}" + (f" {UNITS[metric]}" if metric in UNITS else "")


def _budget(budget: float | None) -> str:
    return "–" if budget is None else f"{budget:g}"


def columns(rows: Sequence[Row]) -> list[str]:
    """Rows of cells, one under the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def comparison_markdown(document: dict[str, Any], rows: Sequence[Row]) -> str:
    """Two reports beside each other, as Markdown; `rows` starts with the head."""
    table = [_markdown_row(rows[0]), _markdown_row(["---:"] * len(rows[0])), *map(_markdown_row, rows[1:])]
    return "\n".join(["# Comparison of two evaluations", "", _how_compared(document), "", *table, ""])


def comparison_html(document: dict[str, Any], rows: Sequence[Row]) -> str:
    """The same as one HTML file."""
    body = f"<h1>Comparison of two evaluations</h1><p class=lead>{escape(_how_compared(document))}</p>"
    return _html("Comparison of two evaluations", body + _html_table(rows[0], rows[1:]))


def _how_compared(document: dict[str, Any]) -> str:
    sides = [f"{s.upper()}: {document[s]['folder']}, {document[s]['clips']} clips." for s in ("a", "b")]
    how = "differences of the same clips" if document["same_clips"] else "clips of either report by themselves"
    text = f"Intervals of {document['level']:.0%}: {document['resamples']} bootstrap draws of videos, {how}."
    other = f" The protocols differ in {', '.join(document['differs'])}." if document["differs"] else ""
    return " ".join([*sides, text]) + other


def _figure(caption: str, body: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{body}</figure>"


def _html_table(head: Row, rows: Sequence[Row], *, wrap: bool = False) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    style = ' class="wrap"' if wrap else ""
    lines = "".join("<tr>" + "".join(f"<td{style}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    top = f"<tr>{cells}</tr>" if any(head) else ""
    return f'<div class="table"><table>{top}{lines}</table></div>'


def _picture(rows: Sequence[tuple[str, list[Frame]]]) -> str:
    """Rows of frames in one picture, a caption over each."""
    parts = [f"<figcaption>{escape(name)}</figcaption>{_image(frames)}" for name, frames in rows]
    return "".join(parts)


def _image(frames: Sequence[Frame]) -> str:
    height, width = frames[0].shape[:2]
    strip = np.full((height, (width + _GAP) * len(frames) - _GAP, 3), 128, np.uint8)
    for index, frame in enumerate(frames):
        strip[:, index * (width + _GAP) : index * (width + _GAP) + width] = frame
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "JPEG", quality=90)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
