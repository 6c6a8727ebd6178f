"""The page in a real browser: what is asked, what comes, and what it leaves alone."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("gradio")
api = pytest.importorskip("playwright.sync_api")

import httpx  # noqa: E402  (Gradio brings it)

from diffusion_lm.app import offers as offers_of  # noqa: E402
from diffusion_lm.app import serve as serving  # noqa: E402
from diffusion_lm.app.offers import Offer  # noqa: E402
from diffusion_lm.app.serve import DemoConfig, serve  # noqa: E402
from diffusion_lm.cli import main  # noqa: E402
from diffusion_lm.control import Keyword, Length, Said  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SOON = 30_000
"""Milliseconds within which anything that is asked for has to come."""


@pytest.fixture(scope="module")
def address(offered: Mapping[str, Offer], request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offers_of, "offers", lambda: offered)
        blocks = serve(DemoConfig(port=port))
    yield f"http://127.0.0.1:{port}"
    blocks.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    folder = tempfile.mkdtemp(prefix="diffusion-lm-chromium-")
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, headless=True, args=FLAGS, viewport={"width": 390, "height": 844}
        )
        yield context
        context.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(SOON)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
    page.goto(address)
    page.wait_for_selector("#write")
    yield page
    assert wrong == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


ENDS = ("#board caption:has-text('seed')", "#board .problem")
"""What stands on the page when a request is answered."""


def write(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('#board *').forEach(each => each.dataset.before = 'yes')")
    page.locator("#write").click()
    page.wait_for_selector(", ".join(f"{end}:not([data-before])" for end in ENDS))


def sentences(page: Page) -> list[str]:
    return page.locator("#board .said").all_inner_texts()


def fill(page: Page, name: str, text: str) -> None:
    page.locator(f"#line-{name} textarea, #line-{name} input").first.fill(text)


def test_what_is_asked_comes_and_is_the_same_again(
    page: Page, offered: Mapping[str, Offer], capsys: pytest.CaptureFixture[str]
) -> None:
    page.get_by_label("food", exact=True).fill("Japanese")
    page.keyboard.press("Enter")
    fill(page, "keyword", "riverside")
    page.get_by_role("button", name="Shape").press("Enter")
    fill(page, "length", "12")
    page.locator("#write").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#board caption:has-text('Step')", state="attached")  # words come before the sentences
    page.wait_for_selector("#board caption:has-text('seed 1')")
    control = Keyword("riverside") & Length(12) & Said("food", "Japanese")
    found = sentences(page)
    assert found == list(offered["e2e-small"].lm.generate(4, control, seed=1))
    assert page.locator("#board .mark.held").count() == 12 and page.locator("#board .mark.missed").count() == 0

    assert main(page.locator("#command textarea").input_value().split()[1:]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")] == found
    exec(page.locator("#python textarea").input_value(), {})
    assert capsys.readouterr().out.splitlines() == found

    slider = page.locator("#step input[type=range]")
    steps = slider.get_attribute("max")
    slider.fill("2")
    page.wait_for_selector(f"#board caption:has-text('Step 2 of {steps}')")
    assert sentences(page) != found and page.locator("#board .said i").count() > 0
    slider.press("End")
    page.wait_for_selector("#board caption:has-text('seed 1')")
    assert sentences(page) == found

    page.locator("#chosen").get_by_label("3").check()
    drawn = page.locator("#tree svg")
    page.wait_for_function("() => document.querySelectorAll('#tree .word').length == 12")
    assert "".join(drawn.locator(".word").all_text_contents()) == found[2].replace(" ", "")


def test_a_tree_is_drawn_as_it_is_typed_and_a_bad_one_is_answered_in_a_sentence(page: Page) -> None:
    page.get_by_role("button", name="Syntax").press("Enter")
    fill(page, "tree", "(S (NP (DT The) (NN pub)))")
    page.wait_for_selector("#sketch svg")
    assert page.locator("#sketch .word").all_text_contents() == ["The", "pub"]
    fill(page, "tree", "(S (NP (DT The")
    page.wait_for_selector("#sketch:has-text('breaks at character')")
    write(page)
    problem = page.locator("#board .problem").inner_text()
    assert problem.startswith("The tree '(S (NP (DT The' breaks at character") and "Traceback" not in problem


def test_what_a_visitor_writes_is_text(page: Page) -> None:
    fill(page, "keyword", "<script>alert(1)</script>")
    write(page)
    problem = page.locator("#board .problem")
    assert "The keyword '<script>alert(1)</script>'" in problem.inner_text()
    assert page.locator("#board script").count() == 0
    fill(page, "keyword", "")
    fill(page, "avoid", "pub")
    page.get_by_label("near", exact=True).fill("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    write(page)
    assert "has no value '<img src=x onerror=alert(1)>'" in page.locator("#board .problem").inner_text()
    assert page.locator("#board img").count() == 0


def test_another_model_is_asked_for_what_it_can_do(page: Page) -> None:
    page.get_by_label("e2e-given").check()
    page.get_by_label("Promise to say every value").check()
    page.get_by_label("name", exact=True).fill("The Punter")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="How it is drawn").press("Enter")
    page.locator("#steps-asked input[type=number]").fill("6")
    write(page)
    assert "name = The Punter" in page.locator("#command textarea").input_value()
    assert all("The Punter" in text for text in sentences(page)) and len(sentences(page)) == 4


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("GET", "/gradio_api/info"),
        ("POST", "/gradio_api/call/start"),
        ("GET", "/docs"),
        ("GET", "/static/../../page.py"),
        ("GET", "/monitoring"),
    ],
)
def test_nothing_but_the_page_is_reached(address: str, method: str, path: str) -> None:
    assert httpx.request(method, address + path).status_code in (403, 404)


def test_requests_are_small_and_browsers_are_told_to_ask_nobody_else(address: str) -> None:
    long = {"data": ["a" * serving.MOST_BYTES], "fn_index": 0, "session_hash": "x"}
    assert httpx.post(f"{address}/gradio_api/queue/join", json=long).status_code == 413
    found = httpx.get(address)
    assert "default-src 'self'" in found.headers["content-security-policy"]
