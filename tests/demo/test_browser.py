"""The demo in a real browser: upload, slider, comparison, generation, errors and cancellation, without a network."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from adaptok.codec.token_file import VideoTokens
from adaptok.demo.server import Address, serve
from adaptok.demo.uploads import UploadLimits
from adaptok.video.reading import probe

pytest.importorskip("gradio", reason="needs gradio (extra demo)")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome; on Debian: apt-get install chromium"),
]


@pytest.fixture
def short_path():
    """A temporary folder with a short name: paths of Chromium's sockets have at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="adaptok-") as folder:
        yield Path(folder)


@pytest.fixture
def demo(models, short_path, monkeypatch):
    """A page of a running demo, and everything that its browser requested."""
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # reads TMPDIR again
    address = Address(port=0)
    with (
        serve(models, UploadLimits(seconds=5, megabytes=1), address) as url,
        sync_api.sync_playwright() as playwright,
    ):
        arguments = ["--no-sandbox", "--disable-background-networking", "--use-fake-device-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#reconstruct-example")
        yield SimpleNamespace(page=page, requests=requests, errors=errors, folder=short_path, models=models)
        browser.close()
    assert not list(short_path.glob("adaptok-demo-*"))


def upload(page, path, tab="reconstruct"):
    page.set_input_files(f"#{tab}-clip input[type=file]", path)


def tokens_shown(page):
    return page.inner_text("#reconstruct-result [data-measure=tokens]").split()[0]


def assert_fits_a_phone(page):
    """Check that nothing is wider than the screen of a phone."""
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})


def test_reconstruct_compare_and_generate(demo, clip):
    page = demo.page
    upload(page, clip)
    page.wait_for_selector("#reconstruct-result canvas")
    tokens = int(tokens_shown(page))
    assert 40 <= tokens <= 80  # the default is at most half of 10 blocks of 8 tokens in each of 2 tiles
    sizes = "all => all.map(canvas => [canvas.width, canvas.height, canvas.clientWidth / canvas.clientHeight])"
    for width, height, ratio in page.eval_on_selector_all("#reconstruct-result canvas", sizes):
        assert (width, height) == (256, 192)
        assert ratio == pytest.approx(4 / 3, abs=0.02)
    page.wait_for_function("document.querySelector('#reconstruct-result video').readyState >= 2")
    page.wait_for_function(
        """() => [...document.querySelectorAll('#reconstruct-result canvas')].every((canvas) => {
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return data.some((value, index) => index % 4 < 3 && value > 40);
        })"""
    )
    with page.expect_download() as download:
        page.click("#download-tokens")
    saved = demo.folder / "tokens.adaptok"
    download.value.save_as(saved)
    assert VideoTokens.load(saved).tokens == tokens
    assert download.value.suggested_filename == "my clip.adaptok"

    page.fill("#budget input[type=number]", "32")
    page.press("#budget input[type=number]", "Enter")
    page.focus("#budget input[type=range]")
    page.press("#budget input[type=range]", "End")
    page.wait_for_function(
        "document.querySelector('#reconstruct-result [data-measure=tokens]')?.innerText.startsWith('160')"
    )

    assert_fits_a_phone(page)
    page.click("role=tab[name=Compare]")
    page.click("#compare-start")
    page.wait_for_selector("#compare-result canvas")
    assert page.locator("#compare-result canvas").count() == 3
    assert_fits_a_phone(page)
    with page.expect_download() as download:
        page.click("#download-video-b")
    download.value.save_as(demo.folder / "b.mp4")
    assert probe(demo.folder / "b.mp4").frames == 20

    page.click("role=tab[name=Generate]")
    page.click("#generate-start")
    page.wait_for_selector("#generate-result canvas")
    assert page.locator("#generate-result canvas").count() == 2
    assert demo.errors == []
    assert {urlsplit(url).hostname for url in demo.requests if url.startswith(("http", "ws"))} == {"127.0.0.1"}


def test_files_that_are_no_videos_are_refused_by_a_sentence(demo, clip, tmp_path):
    page, message = demo.page, "#reconstruct-refusal p"
    text, large = tmp_path / "notes.txt", tmp_path / "large.mp4"
    text.write_text("This is no video.")
    large.write_bytes(bytes(1_100_000))
    expected = "not recognized as a video, expected a format such as MP4, MOV, MKV, WebM or AVI."
    upload(page, text)
    page.wait_for_selector(message)
    assert page.inner_text(message) == f"notes.txt: {expected}"
    upload(page, large)
    page.wait_for_selector(f"{message} >> text=large.mp4: larger than 1 MB; cut or compress it.")
    dropped = page.evaluate_handle(
        """() => {
            const dropped = new DataTransfer();
            dropped.items.add(new File(["a,b"], "table.csv", { type: "text/csv" }));
            return dropped;
        }"""
    )
    page.dispatch_event("#reconstruct-clip button >> nth=0", "drop", {"dataTransfer": dropped})
    page.wait_for_selector(f"{message} >> text=table.csv: {expected}")
    assert page.locator(".toast-body").count() == 0
    upload(page, clip)
    page.wait_for_selector(message, state="hidden")
    page.wait_for_selector("#reconstruct-result canvas")
    assert demo.errors == []


def test_errors_are_sentences_and_jobs_can_be_cancelled(demo, clip, tmp_path, monkeypatch):
    page = demo.page
    text = tmp_path / "notes.mp4"
    text.write_text("This is no video.")
    upload(page, text)
    page.wait_for_selector("[role=alert] >> text=notes.mp4: a text file")
    message = page.inner_text("#reconstruct-result [role=alert]")
    assert message.endswith(".")
    assert str(os.sep) not in message
    page.click("#reconstruct-clip [aria-label=Clear]")
    page.wait_for_selector("#reconstruct-result >> text=Drop a clip")
    page.wait_for_selector("#reconstruct-cancel:disabled")

    slow = demo.models.codec.encode_clips

    def encode_slowly(clips):
        time.sleep(2)
        return slow(clips)

    monkeypatch.setattr(demo.models.codec, "encode_clips", encode_slowly)
    monkeypatch.setattr("adaptok.demo.reconstruction.BATCH_SIZE", 1)
    upload(page, clip)
    page.wait_for_selector("#reconstruct-cancel:enabled")
    page.click("#reconstruct-cancel")
    page.wait_for_selector("#reconstruct-result >> text=Cancelled.")
    page.wait_for_selector("#reconstruct-start:enabled")
    assert demo.errors == []
