"""book/_ext, without a browser: formulas, Colab's links, footers, boxes, widgets on Markdown pages."""

import doctest
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from book._ext import maths, theme, widget
from transformer_lab import widgets

from .conftest import ROOT

MODULES = [f"book._ext.{path.stem}" for path in (ROOT / "book" / "_ext").glob("*.py")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.fixture(scope="module")
def katex(book):
    katex = maths.Katex(ROOT / "_build" / "katex" / "node_modules" / "katex" / "dist" / "katex.mjs")
    yield katex
    katex.close()


def test_a_formula_is_html_and_mathml(katex):
    html = katex.render(r"\sqrt{d_k}", display=False)
    assert "<math" in html and 'aria-hidden="true"' in html


def test_display_changes_the_formula(katex):
    assert "katex-display" in katex.render("x", display=True)
    assert "katex-display" not in katex.render("x", display=False)


def test_the_book_s_colours_follow_the_theme(katex):
    assert "color:var(--tl-key-text)" in katex.render(r"\textcolor{#D55E00}{k}", display=False)


@pytest.mark.parametrize("tex", [r"\frac{1", r"\nosuchword", "a é b"])
def test_a_wrong_formula_is_an_error(tex, katex):
    with pytest.raises(ValueError, match="KaTeX parse error|LaTeX-incompatible"):
        katex.render(tex, display=False)
    assert katex.render("x", display=False)  # the process goes on


@pytest.fixture
def small_book(book, tmp_path):
    """``small_book(text)`` builds a book of one page with our extensions; returns (build's result, page)."""

    def build(text):
        config = yaml.safe_load((ROOT / "_config.yml").read_text())
        config["sphinx"]["local_extensions"] = {"book._ext.theme": str(ROOT)}
        config["sphinx"]["config"]["html_static_path"] = []
        config["html"].pop("favicon")
        del config["bibtex_bibfiles"]
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
        (tmp_path / "_toc.yml").write_text("{format: jb-book, root: page}")
        (tmp_path / "page.md").write_text(text)
        shutil.copytree(ROOT / "_build" / "katex", tmp_path / "_build" / "katex", dirs_exist_ok=True)
        command = (sys.executable, "-m", "jupyter_book", "build", str(tmp_path), "-n")
        done = subprocess.run(command, capture_output=True, text=True)
        return done, tmp_path / "_build" / "html" / "page.html"

    (tmp_path / "x").mkdir()
    return build
