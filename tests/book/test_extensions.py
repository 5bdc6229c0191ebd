"""book/_ext, without a browser: formulas, links to Colab, boxes, widgets on Markdown pages."""

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
import yaml

from book._ext import maths, notation, theme, widget
from transformer_lab import notation as alphabet
from transformer_lab import widgets

from .conftest import KATEX, ROOT, build_small

EXTENSIONS = sorted(path.stem for path in (ROOT / "book" / "_ext").glob("*.py"))


@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_examples_in_docstrings_hold(name):
    assert doctest.testmod(importlib.import_module(f"book._ext.{name}")).failed == 0


def test_every_extension_is_loaded():
    loaded = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["extensions"]
    assert {f"book._ext.{name}" for name in EXTENSIONS} - {"book._ext.npm"} <= set(loaded)


def test_links_to_notebook_hosts_follow_the_repository():
    links = theme.launch_links("https://github.com/a/b.git", "next/try", "book/x y.ipynb")
    assert links == {
        "Colab": "https://colab.research.google.com/github/a/b/blob/next/try/book/x%20y.ipynb",
        "Kaggle": "https://kaggle.com/kernels/welcome?src=https://github.com/a/b/blob/next/try/book/x%20y.ipynb",
        "Binder": "https://mybinder.org/v2/gh/a/b/next%2Ftry?labpath=book%2Fx%20y.ipynb",
    }
    for elsewhere in ("https://example.org/transformer-lab", "https://codeberg.org/a/b", ""):
        assert theme.launch_links(elsewhere, "main", "book/x.ipynb") == {}


def test_every_colour_has_a_use():
    assert notation.COLOUR_USES.keys() == alphabet.COLOURS.keys()


def test_an_edited_script_or_style_is_a_reason_to_build_again(monkeypatch, tmp_path):
    (tmp_path / "_ext").mkdir()
    (tmp_path / "_assets").mkdir()
    monkeypatch.setattr(theme, "__file__", str(tmp_path / "_ext" / "theme.py"))
    env = SimpleNamespace(found_docs={"a", "b"})
    for name in ("_ext/theme.py", "_ext/maths.mjs", "_assets/book.css", "_assets/book.js"):
        (tmp_path / name).write_text(name)
        assert theme.sources_changed(None, env, set(), set(), set()) == {"a", "b"}
        assert theme.sources_changed(None, env, set(), set(), set()) == []


# Formulas


@pytest.fixture(scope="module")
def katex(book):
    katex = maths.Katex(KATEX / "node_modules" / "katex" / "dist" / "katex.mjs")
    yield katex
    katex.close()


def test_a_formula_is_html_for_the_eye_and_mathml_for_the_ear(katex):
    html = katex.render(r"\sqrt{d_k}", display=False)
    assert "<math" in html and 'aria-hidden="true"' in html


def test_display_changes_the_formula(katex):
    assert "katex-display" in katex.render("x", display=True)
    assert "katex-display" not in katex.render("x", display=False)


@pytest.mark.parametrize(("name", "colour"), alphabet.COLOURS.items())
def test_the_colours_of_the_book_follow_the_theme(name, colour, katex):
    html = katex.render(rf"\textcolor{{{colour}}}{{q}}", display=False)
    assert f"color:var(--tl-{name}-text)" in html and f"color:{colour}" not in html


@pytest.mark.parametrize("tex", [r"\frac{1", r"\nosuchword", "a é b"])
def test_a_wrong_formula_is_an_error_and_the_next_is_not(tex, katex):
    with pytest.raises(ValueError, match="KaTeX parse error"):
        katex.render(tex, display=False)
    assert katex.render("x", display=False)


def test_without_a_network_the_first_build_says_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "empty"))
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=tmp_path / "html")
    sentence = r"katex [\d.]+ could not be installed: the first time needs a network, later ones do not"
    with pytest.raises(maths.MathsError, match=sentence):
        maths.prepare(app)


# Small books


@pytest.fixture
def small_book(book, tmp_path):
    """``small_book(text)`` builds a book of one page; returns what the build printed, and the page's file."""

    def build(text, repository=None):
        if text:
            (tmp_path / "page.md").write_text(text)
        done = build_small(tmp_path, "page", repository=repository)
        return done.stdout, tmp_path / "_build" / "html" / "page.html"

    return build


def test_a_wrong_formula_stops_the_build_and_names_the_page(small_book):
    for _ in range(2):  # also the second time, when the page has been read already
        said, page = small_book("# A page\n\nSo $\\frac{1$ it is.")
        assert "page.md: KaTeX parse error" in said and r"in the formula \frac{1" in said
        assert not page.exists()


KERNEL_ONLY = """import ipywidgets, nbformat, sys
from transformer_lab.widgets import QueryKeyValue
cell = nbformat.v4.new_code_cell("show()", execution_count=1)
kind = "application/vnd.jupyter.widget-view+json"
views = [ipywidgets.IntSlider()] + [QueryKeyValue()] * (sys.argv[1] == "both")
for widget in views:
    view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
    cell.outputs.append(nbformat.v4.new_output("display_data", data={kind: view, "text/plain": "a widget"}))
state = ipywidgets.Widget.get_manager_state(widgets=views)
lost = {"model_id": "lost", "version_major": 2, "version_minor": 0}
cell.outputs.append(nbformat.v4.new_output("display_data", data={kind: lost}))
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A page"), cell])
notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": state}
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.parametrize("which", ["one", "both"])
def test_a_control_that_needs_a_kernel_says_so_and_is_not_started(which, small_book, tmp_path):
    make = [sys.executable, "-c", KERNEL_ONLY, which, tmp_path / "page.ipynb"]
    subprocess.run(make, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    said, page = small_book(None)
    html = page.read_text("utf8")
    assert "build succeeded" in said
    assert html.count('<p class="needs-kernel">The control that stands here needs a running kernel: ') == 2
    assert html.count('<a href="_sources/page.ipynb" download>download it as a notebook</a>') == 2
    assert html.count("widget-view+json") == html.count('class="widget"') == (which == "both")
    assert ("widget-host.js" in html) == ("widget-state+json" in html) == (which == "both")


def test_colab_is_offered_where_it_can_open_the_chapter():
    ways = {"launch": {"Colab": "https://colab.test/a&b"}, "download": "_sources/x.ipynb"}
    context = {**ways, "pathto": lambda link, _: link}

    assert widget.needs_kernel(context) == (
        '<p class="needs-kernel">The control that stands here needs a running kernel: '
        '<a href="https://colab.test/a&amp;b">open this chapter in Colab</a> or '
        '<a href="_sources/x.ipynb" download>download it as a notebook</a> and run this cell.</p>'
    )


def test_an_unknown_widget_is_named(small_book):
    said, _ = small_book("# A page\n\n```{widget} Nothing\n```\n")
    assert f"There is no widget Nothing; there are {', '.join(widgets.__all__)}." in said


def test_boxes_widgets_and_punctuation(small_book):
    said, page = small_book(
        "# A page\n\n> **Watch out.** A box.\n\n> Said *by someone*.\n\n"
        "```{widget} QueryKeyValue\n```\n\nAs $x$, not $y$ or $\\sqrt z$.\n"
    )
    html = page.read_text("utf8")
    assert "build succeeded" in said
    assert html.count('class="box box-watch"') == html.count("<blockquote>") == 1
    assert re.search(
        r'unbroken">(?:(?!class="math).)*</span>,</span> not', html
    )  # the comma stays with its x
    assert html.count("unbroken") == 2
    (state,) = re.findall(r'widget-state\+json">(.*?)</script>', html)
    ((name, record),) = json.loads(state)["state"].items()
    assert name == "QueryKeyValue-0" and "_esm" in record["state"]
    assert "IPY_MODEL" not in state  # random names would change the page in every build


def test_the_placeholder_repository_is_never_linked_and_a_public_one_is(book):
    assert theme.repository_link("https://example.org/transformer-lab") is None
    assert theme.repository_link("https://github.com/a/b/") == "https://github.com/a/b"


def test_one_setting_puts_the_links_to_notebook_hosts_into_every_chapter(small_book, tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# A page")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "page.ipynb")
    url = "https://github.com/someone/a-book"
    said, page = small_book(None, repository=url)
    assert "build succeeded" in said, said
    for name, address in theme.launch_links(url, "main", "page.ipynb").items():
        link = f'<a class="badge" href="{address}" rel="external noopener">Open in {name}</a>'
        assert page.read_text("utf8").count(link) == 1
    _, page = small_book(None)
    assert 'class="badge"' not in page.read_text("utf8")  # the placeholder leads nowhere
