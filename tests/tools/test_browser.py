"""The documentation, and the page of a study, as people see them: in Chromium."""

import functools
import http.server
import re
import threading
from shutil import which

import numpy as np
import pytest

from keras_logitclip import study
from tests.test_study_report import some_study

playwright = pytest.importorskip("playwright.sync_api")

# The first test waits for the site, whose tutorials are trained.
pytestmark = [pytest.mark.once, pytest.mark.timeout(900)]

PHONE = {"width": 390, "height": 844}
HERE = ("file:", "data:", "blob:", "http://127.0.0.1:")


@pytest.fixture(scope="module")
def chromium():
    path = which("chromium") or which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page with nothing in its console, and without requests to other machines."""
    unwanted = []
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: unwanted.append(message.text))
        page.on("pageerror", lambda error: unwanted.append(str(error)))
        page.on(
            "request",
            lambda sent: sent.url.startswith(HERE) or unwanted.append(sent.url),
        )
        yield page
    assert unwanted == []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served(site):
    """The address of the site on a server that outlives the pages of the browser.

    A page may still load something when its test ends, and would log that as an error.
    """
    handler = functools.partial(QuietHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def check_search(page, start):
    page.goto(start)
    page.get_by_role("textbox", name="Search").click()
    page.keyboard.type("LogitClipLoss")
    page.locator(".md-search-result__link", has_text="LogitClipLoss").first.click()
    entry = page.locator('[id="keras_logitclip.losses.LogitClipLoss"]')
    playwright.expect(entry).to_be_in_viewport()


def test_the_search_of_a_server_finds_a_class(page, served):
    check_search(page, f"{served}/index.html")


def test_the_search_without_a_server_finds_a_class(page, site):
    check_search(page, (site / "index.html").as_uri())


def test_no_page_is_wider_than_a_phone(page, site, served):
    page.set_viewport_size(PHONE)
    widths = {}
    for path in sorted(site.rglob("*.html")):
        page.goto(f"{served}/{path.relative_to(site).as_posix()}")
        widths[path.name] = page.evaluate("document.documentElement.scrollWidth")
    assert len(widths) > 20
    assert {name: width for name, width in widths.items() if width > 390} == {}


def test_formulas_are_rendered(page, site):
    """Numerators are above denominators."""
    page.goto((site / "reference" / "losses.html").as_uri())
    fractions = page.evaluate(
        """[...document.querySelectorAll("mfrac")].map(fraction => [
            fraction.firstChild.getBoundingClientRect().bottom,
            fraction.lastChild.getBoundingClientRect().top,
        ])"""
    )
    bottoms, tops = np.transpose(fractions)
    assert len(tops) > 10
    assert (bottoms <= tops + 1).all()


def brightness(color):
    return np.mean([int(part) for part in re.findall(r"\d+", color)[:3]])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors(page, site, scheme):
    """Pages follow the setting of the system, and their text stands out."""
    page.emulate_media(color_scheme=scheme)
    page.goto((site / "reference" / "losses.html").as_uri())
    of = "getComputedStyle(document.querySelector('{}')).{}"
    ground = brightness(page.evaluate(of.format("body", "backgroundColor")))
    assert (ground > 128) == (scheme == "light")
    for element in ("article p", "article math", "article code", "article td"):
        text = brightness(page.evaluate(of.format(element, "color")))
        assert abs(ground - text) > 100, element


# The page of a study.

CODE = "</script><script>console.log('executed')</script>"


@pytest.fixture
def report(page, tmp_path):
    """The page of a study of three noises and losses, opened."""
    pytest.importorskip("vl_convert")
    records = [record | {"commit": CODE} for record in some_study()]
    study.write_report(records, tmp_path, pictures=False)
    page.goto((tmp_path / "report.html").as_uri())
    return page


def test_a_click_sorts_a_table(report):
    table = report.locator("table").first

    def texts_after_a_click(heading, column):
        table.get_by_role("button", name=heading, exact=True).click()
        return table.locator(f"td:nth-child({column})").all_inner_texts()

    falling = [float(text) for text in texts_after_a_click("accuracy", 5)]
    assert falling == sorted(falling, reverse=True)
    assert len({*falling}) > 5
    rising = [float(text) for text in texts_after_a_click("accuracy", 5)]
    assert rising == falling[::-1]
    methods = texts_after_a_click("method", 2)
    assert methods == sorted(methods, key=str.lower, reverse=True)


def test_charts_are_drawn_and_show_their_numbers(report):
    tooltip = report.locator("#vg-tooltip-element")
    charts = report.locator(".chart").all()
    assert len(charts) == 9 + 6 + 9  # There is nothing to memorize in clean labels.
    for chart in charts:
        chart.scroll_into_view_if_needed()
        playwright.expect(chart.locator("svg")).to_be_visible()
    report.locator('[data-kind="curves"] svg').first.hover()
    playwright.expect(tooltip).to_contain_text("epoch")
    report.locator('[data-kind="map"] .mark-text text').first.hover()
    playwright.expect(tooltip).to_contain_text("learning rate")


def test_the_page_of_a_study_fits_a_phone_in_dark(report):
    report.set_viewport_size(PHONE)
    report.emulate_media(color_scheme="dark")
    report.reload()
    playwright.expect(report.locator(".chart svg").first).to_be_visible()
    assert report.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    color = report.evaluate("getComputedStyle(document.documentElement).color")
    assert brightness(color) > 200
