"""The page of the demo: components of gradio, and the functions that connect them with the computation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NamedTuple

import gradio as gr

from adaptok.codec.codec import AdapTok
from adaptok.demo import page
from adaptok.demo.generation import MAX_CLIPS, MAX_SEED, generate, labels
from adaptok.demo.models import Models
from adaptok.demo.reconstruction import Choice, Reconstruction, budget_range, reconstruct
from adaptok.demo.sessions import Cancelled, Job, Session, Sessions
from adaptok.demo.uploads import UploadLimits, check_upload
from adaptok.generation import Generator, Sampling

TITLE = "adaptok: video as short, adaptive sequences of tokens"
_TARGET_RANGE = (14, 32)
"""PSNR in dB."""
_FITS = [
    ("Whole frame, as tiles", "auto"),
    ("Central square", "crop"),
    ("Whole frame, with bars", "pad"),
    ("Whole frame, stretched", "stretch"),
]
_MODES = [("Number of tokens", "budget"), ("Quality", "target")]
_KINDS = [("Adaptive", "adaptive"), ("Uniform", "uniform")]
_HINT = "Drop a clip, record one, or use the example. The reconstruction appears here."
_CANCELLED = "Cancelled."
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}
_log = logging.getLogger(__name__)


class _Buttons(NamedTuple):
    """Buttons that start and cancel the job of a tab."""

    start: gr.Button
    cancel: gr.Button


def build(models: Models, limits: UploadLimits, sessions: Sessions) -> gr.Blocks:
    """Build the page.

    Args:
        models: Models that compute.
        limits: Limits of uploaded clips.
        sessions: Visitors.
    """
    delete = (600, 3600)  # every ten minutes, uploads older than an hour
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=delete) as blocks:
        gr.HTML(
            "<h1>adaptok</h1><p>Turn a clip into a short, adaptive sequence of discrete tokens, and back. Still scenes"
            " get few tokens, and busy scenes get many.</p>",
            elem_classes="adaptok-head",
        )
        with gr.Tab("Reconstruct", id="reconstruct"):
            clip = _reconstruct_tab(models, limits, sessions)
        with gr.Tab("Compare", id="compare"):
            _compare_tab(models, limits, sessions, clip)
        if models.generator is not None:
            with gr.Tab("Generate", id="generate"):
                _generate_tab(models.generator, sessions)

        def leave(request: gr.Request) -> None:
            sessions.close(str(request.session_hash))

        blocks.unload(leave)
    return blocks


def _clip_input(limits: UploadLimits, name: str) -> tuple[gr.Video, gr.Markdown]:
    clip = gr.Video(
        label="Your clip",
        sources=["upload", "webcam"],
        webcam_options=gr.WebcamOptions(mirror=False),
        height=300,
        elem_id=f"{name}-clip",
        elem_classes="adaptok-clip",
        buttons=[],
    )
    gr.HTML(page.refusal(limits), elem_classes="adaptok-refusal", elem_id=f"{name}-refusal")
    example = gr.Button("Use the example clip", size="sm", elem_id=f"{name}-example")
    note = gr.Markdown(
        f"Up to {limits.megabytes:g} MB. The first {limits.seconds:g} seconds are used. Clips stay on this server and"
        " are deleted.",
        elem_classes="adaptok-note",
    )
    example.click(lambda: str(files("adaptok") / "assets" / "walk.mp4"), None, clip, show_progress="hidden", **_PRIVATE)
    return clip, note


def _frame_choice(elem_id: str) -> gr.Radio:
    info = "The model sees squares. Tiles are overlapping squares that cover the frame, each with tokens of its own."
    return gr.Radio(_FITS, value="auto", label="Frame", info=info, elem_id=elem_id)


def _budget_slider(codec: AdapTok, label: str, value: int, elem_id: str) -> gr.Slider:
    low, high, step = budget_range(codec)
    c = codec.config.tokenizer
    return gr.Slider(
        low,
        high,
        value=max(low, min(high, round(value / step) * step)),
        step=step,
        label=label,
        info=f"Per clip of {c.frames} frames of each tile, on average. {high} keeps all tokens.",
        buttons=[],
        elem_id=elem_id,
    )


def _reconstruct_tab(models: Models, limits: UploadLimits, sessions: Sessions) -> gr.Video:
    codec = models.codec
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            clip, note = _clip_input(limits, "reconstruct")
            mode = gr.Radio(_MODES, value="budget", label="Target", elem_id="mode")
            budget = _budget_slider(codec, "Tokens", codec.max_budget // 2, "budget")
            target = gr.Slider(
                *_TARGET_RANGE,
                value=20,
                step=0.5,
                label="Quality in dB (PSNR)",
                info="The fewest tokens that reach it are kept. Higher is better.",
                visible=False,
                buttons=[],
                elem_id="target",
            )
            fit = _frame_choice("fit")
            buttons = _buttons("Reconstruct", "reconstruct")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(page.message(_HINT), elem_classes="adaptok-result", elem_id="reconstruct-result")
            tokens, video = _downloads([("Download tokens", "tokens"), ("Download video", "video")])

    def work(job: Job, session: Session, path: str | None, mode: str, budget: float, target: float, fit: Any) -> Any:
        if path is None:
            return page.message(_HINT), *[gr.DownloadButton(visible=False)] * 2
        choice = Choice(budget, target=target if mode == "target" else None)
        made = reconstruct(codec, check_upload(path, limits), [choice], fit, session, job, "reconstruct")
        return page.reconstruction_page(made), *_files(made)

    mode.change(
        lambda mode: (gr.Slider(visible=mode == "budget"), gr.Slider(visible=mode == "target")),
        mode,
        [budget, target],
        show_progress="hidden",
        **_PRIVATE,
    )
    clip.change(lambda path: _describe(path, limits), clip, note, show_progress="hidden", **_PRIVATE)
    triggers = [buttons.start.click, clip.change, budget.release, target.release, mode.input, fit.input]
    _connect(
        sessions, "reconstruct", triggers, work, [clip, mode, budget, target, fit], [result, tokens, video], buttons
    )
    return clip


def _compare_tab(models: Models, limits: UploadLimits, sessions: Sessions, source: gr.Video) -> None:
    codec = models.codec
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            clip, note = _clip_input(limits, "compare")
            with gr.Row():
                sliders, kinds = [], []
                for letter, kind in (("A", "adaptive"), ("B", "uniform")):
                    with gr.Column(min_width=200):
                        name = letter.lower()
                        sliders.append(
                            _budget_slider(codec, f"Tokens of {letter}", codec.max_budget // 2, f"budget-{name}")
                        )
                        kinds.append(gr.Radio(_KINDS, value=kind, label=f"Lengths of {letter}", elem_id=f"kind-{name}"))
            fit = _frame_choice("compare-fit")
            buttons = _buttons("Compare", "compare")
        with gr.Column(scale=3, min_width=300):
            hint = "Two reconstructions of the same clip appear here, beside the original."
            result = gr.HTML(page.message(hint), elem_classes="adaptok-result", elem_id="compare-result")
            tokens = _downloads([("Tokens of A", "tokens-a"), ("Tokens of B", "tokens-b")])
            videos = _downloads([("Video of A", "video-a"), ("Video of B", "video-b")])

    def work(
        job: Job, session: Session, path: str | None, a: float, b: float, kind_a: str, kind_b: str, fit: Any
    ) -> Any:
        if path is None:
            raise ValueError("No clip yet; upload one, record one, or use the example.")
        choices = [Choice(a, kind_a == "uniform"), Choice(b, kind_b == "uniform")]
        made = reconstruct(codec, check_upload(path, limits), choices, fit, session, job, "compare")
        return page.reconstruction_page(made), *_files(made)

    source.change(lambda path: path, source, clip, show_progress="hidden", **_PRIVATE)
    clip.change(lambda path: _describe(path, limits), clip, note, show_progress="hidden", **_PRIVATE)
    inputs = [clip, *sliders, *kinds, fit]
    _connect(sessions, "compare", [buttons.start.click], work, inputs, [result, *tokens, *videos], buttons)


def _generate_tab(generator: Generator, sessions: Sessions) -> None:
    names = labels(generator)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            label = gr.Dropdown(list(names), value=names[0], label="Class", elem_id="label")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
            scale = gr.Slider(
                1,
                5,
                value=1.5,
                step=0.1,
                label="Guidance",
                info="Larger values follow the class more closely.",
                buttons=[],
            )
            temperature = gr.Slider(
                0, 1.5, value=1.0, step=0.05, label="Temperature", info="Lower values prefer likely tokens.", buttons=[]
            )
            clips = gr.Slider(1, MAX_CLIPS, value=2, step=1, label="Clips", buttons=[], elem_id="clips")
            buttons = _buttons("Generate", "generate")
        with gr.Column(scale=3, min_width=300):
            hint = "Generated clips appear here. The bundled generator was trained on clips of moving shapes."
            result = gr.HTML(page.message(hint), elem_classes="adaptok-result", elem_id="generate-result")
            (video,) = _downloads([("Download video", "generated")])
    c = generator.check_codec().config.tokenizer

    def work(job: Job, session: Session, label: str, seed: float, scale: float, heat: float, clips: float) -> Any:
        settings = Sampling(temperature=heat, cfg_scale=scale)
        made = generate(generator, label, int(clips), int(seed or 0), settings, session, job)
        html = page.generation_page(made, c.latents, c.temporal_patch_size)
        return html, gr.DownloadButton(value=str(made.strip), visible=True)

    inputs = [label, seed, scale, temperature, clips]
    _connect(sessions, "generate", [buttons.start.click], work, inputs, [result, video], buttons)


def _buttons(text: str, name: str) -> _Buttons:
    with gr.Row():
        start = gr.Button(text, variant="primary", elem_id=f"{name}-start")
        cancel = gr.Button("Cancel", interactive=False, elem_id=f"{name}-cancel", min_width=100)
    return _Buttons(start, cancel)


def _downloads(names: list[tuple[str, str]]) -> list[gr.DownloadButton]:
    with gr.Row(elem_classes="adaptok-downloads"):
        return [
            gr.DownloadButton(text, visible=False, size="sm", min_width=120, elem_id=f"download-{name}")
            for text, name in names
        ]


def _files(made: Reconstruction) -> list[gr.DownloadButton]:
    return [gr.DownloadButton(value=str(path), visible=True) for path in (*made.tokens, *made.videos)]


def _describe(path: str | None, limits: UploadLimits) -> Any:
    """Describe a clip below its player. Errors are shown in place of the result."""
    try:
        return gr.skip() if path is None else check_upload(path, limits).describe()
    except ValueError:
        return ""


def _connect(
    sessions: Sessions,
    name: str,
    triggers: list[Any],
    work: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    buttons: _Buttons,
) -> None:
    """Run a job when one of the triggers fires.

    While it runs, its buttons are swapped: it cannot be started again, and can be cancelled. Jobs of all visitors run
    one after another, as each uses the whole machine.

    Args:
        sessions: Visitors.
        name: Name of the job.
        triggers: Events that start it.
        work: Function of the job, the session and the values of the inputs. It returns the values of the outputs.
        inputs: Components that it reads.
        outputs: Components that it writes, the result first, and buttons for downloads after it.
        buttons: Buttons of the job.
    """

    def begin(request: gr.Request) -> tuple[Any, Any]:
        sessions.get(str(request.session_hash)).begin(name)
        return gr.Button("Working…", interactive=False), gr.Button(interactive=True)

    def run(request: gr.Request, progress: gr.Progress = gr.Progress(), *values: Any) -> Any:  # noqa: B008
        session = sessions.get(str(request.session_hash))
        session.job(name).show = lambda fraction, text: progress(fraction, desc=text)
        results, failure = _attempt(work, session, name, values)
        return results if failure is None else (failure, *[gr.DownloadButton(visible=False) for _ in outputs[1:]])

    def cancel(request: gr.Request) -> None:
        sessions.get(str(request.session_hash)).cancel(name)

    def end() -> tuple[Any, Any]:
        return gr.Button(text, interactive=True), gr.Button(interactive=False)

    text = buttons.start.value
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", **_PRIVATE}
    started = gr.on(triggers, begin, None, list(buttons), **quick)
    ran = started.then(
        run,
        inputs,
        outputs,
        show_progress_on=outputs[0],
        concurrency_limit=1,
        concurrency_id="model",
        **_PRIVATE,
    )
    ran.then(end, None, list(buttons), **quick)
    buttons.cancel.click(cancel, **quick)


def _attempt(work: Callable[..., Any], session: Session, name: str, inputs: Any) -> tuple[Any, str | None]:
    """Run a job. Return the values of its outputs, and the page to show instead if it failed or was cancelled."""
    job = session.job(name)
    try:
        with session:
            job.check()
            return work(job, session, *inputs), None
    except Cancelled:
        return None, page.message(_CANCELLED)
    except (ValueError, OSError) as error:
        return None, page.message(sentence(error), "error")
    except Exception:
        _log.exception("job %s failed", name)
        text = "Something went wrong on the server. Try another clip, or see its log for the reason."
        return None, page.message(text, "error")


def sentence(error: Exception) -> str:
    """Describe an error in one sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "." not in text.split()[0]:  # the name of a file is left as it is
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
