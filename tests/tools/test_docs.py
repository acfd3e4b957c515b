"""The site of the documentation builds, is complete, and needs no network."""

import html
import importlib
import re

import pytest

from tests.subprocesses import ROOT
from tests.test_package import PUBLIC

pytest.importorskip("mkdocs")
mkdocstrings = pytest.importorskip("mkdocstrings")
nbformat = pytest.importorskip("nbformat")

from docs.site.formulas import to_mathml  # noqa: E402

# The tutorials are trained, unless that was done for the same source.
SECONDS = 900
pytestmark = [pytest.mark.once, pytest.mark.timeout(SECONDS)]


def test_every_public_name_has_an_entry(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = mkdocstrings.Inventory.parse_sphinx(file)
    public = {
        f"{module}.{name}"
        for module in PUBLIC
        for name in dir(importlib.import_module(module))
    }
    assert public - inventory.keys() == set()
    for name in public:
        page, _, anchor = inventory[name].uri.partition("#")
        assert f'id="{anchor}"' in (site / page).read_text()


def test_every_formula_is_mathematics(site):
    pages = [path.read_text() for path in site.glob("reference/*.html")]
    headings = sum(page.count("<strong>Formula:</strong>") for page in pages)
    assert headings == sum(page.count("<math ") for page in pages) > 40


@pytest.mark.parametrize("name", ["theory", "performance"])
def test_every_formula_of_the_guide_is_mathematics(site, name):
    formulas = (ROOT / "docs" / f"{name}.md").read_text().count("```formula\n")
    assert formulas == (site / f"{name}.html").read_text().count("<math ") > 0


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = re.compile(r'(?:\ssrc=|<link[^>]*\shref=|url\()["\']?(?:https?:)?//[^>]*')
    found = {
        path.name: loaded.findall(path.read_text())
        for path in [*site.rglob("*.html"), *site.rglob("*.css")]
    }
    assert {name: urls for name, urls in found.items() if urls} == {}


TUTORIALS = sorted(path.stem for path in ROOT.glob("docs/tutorials/*.py"))


def outputs_of(site, name):
    notebook = nbformat.read(site / "tutorials" / f"{name}.ipynb", as_version=4)
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_shows_what_it_prints_and_draws(site, name):
    page = (site / "tutorials" / f"{name}.html").read_text()
    outputs = outputs_of(site, name)
    kinds = [output.output_type for output in outputs]
    assert page.count(' class="output highlight"') + page.count("<img ") == len(kinds)
    assert (
        kinds.count("display_data") == len([*site.glob(f"tutorials/{name}-*.png")]) > 0
    )
    assert {*kinds} <= {"stream", "display_data", "execute_result"}
    assert f'href="{name}.ipynb"' in page


def figures_of(site, name, pattern):
    """Returns the figures that a tutorial prints, in their order."""
    printed = "".join(output.get("text", "") for output in outputs_of(site, name))
    return [float(figure) for figure in re.findall(pattern, printed, re.M)]


def test_tutorials_print_what_their_text_says(site):
    plain, swapped, clipped = figures_of(
        site, "text_intents", r"^(?:plain|clipped), rate \S+ +([\d.]+) "
    )
    assert swapped < plain < clipped
    plain, plain_pruned, clipped, clipped_pruned = figures_of(
        site, "label_errors", r": ([\d.]+)% of the test labels$"
    )
    assert plain_pruned - plain > clipped_pruned - clipped > 0
    assert clipped_pruned >= plain_pruned
    for name in ("image_features", "label_errors"):
        errors = figures_of(site, name, r": off by ([\d.]+) points$")
        assert min(errors) == errors[-1] < 10


def test_no_results_of_trainings_are_copied(site):
    assert not [*site.rglob("*.csv"), *site.rglob("*.tar.xz")]
    assert sum(path.stat().st_size for path in site.rglob("*")) < 20e6


# The minus sign, the space that does not break, the application of a function.
PLAIN = {0x2212: "-", 0xA0: " ", 0x2061: None}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("loss = -log(p_y) / tau", "loss=-log(py)τ"),
        ("-(a + b) * (c - (d - e))", "-(a+b)⋅(c-(d-e))"),
        ("a - b - c * d", "a-b-c⋅d"),
        ("(a - sum(b, axis)) * 1e-7", "(a-∑axisb)⋅10-7"),
        ("log((p @ t)[:, y])", "log((p⋅t):,y)"),
        ("log_softmax(z) - log_t1(z)", "log_softmax(z)-logt1(z)"),
        ("(a / b) ** -2", "(ab)-2"),
        ("sum(i for i in range(1, n + 1))", "∑i=1ni"),
        ("a <= b\nb >= eta", "a≤bb≥η"),
        ("f(x) = norm(x, axis=1)  # of `x`", "f(x)=norm(x,axis=1)of x"),
        ("normal(size=(n, k))", "normal(size=(n,k))"),
        ("# All\nq = inf", "Allq=∞"),
        ("if a != b:\n    y = 1\nelse:\n    y = 2", "y=1if a≠by=2otherwise"),
    ],
)
def test_formulas(formula, expected):
    text = html.unescape(re.sub("<[^>]*>", "", to_mathml(formula)))
    assert text.translate(PLAIN) == expected


@pytest.mark.parametrize("formula", ["x += 1", "x if y else z", "sum(a for a in b)"])
def test_unknown_formulas_are_refused(formula):
    with pytest.raises(ValueError, match="formula|a sum"):
        to_mathml(formula)
