"""Exercises in the page, which has no kernel: a folded solution, a tick, predictions answered in place.

The chapter's notebook holds statement, hints and stub; what is added here comes from the package.
"""

import html
import importlib
import inspect
import json
import posixpath
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from transformer_lab import exercises as package
from transformer_lab.exercises.check import source
from transformer_lab.exercises.check.show import marked

from .theme import launch_links

FOLDER = Path(package.__file__).parent


def chapter(stem):
    """The exercises that belong to a page; most pages have none."""
    if not (FOLDER / f"{stem}.py").exists():
        return None
    return importlib.import_module(f"{package.__name__}.{stem}").chapter


def key(exercise):
    """What the browser keeps a tick under; it survives a new order."""
    return f"{exercise.chapter}.{exercise.name}"


def raw(text):
    return nodes.raw("", text, format="html")


def python(code):
    return nodes.literal_block(code, code, language="python")


def note_dependencies(env, stem):
    for path in [FOLDER / f"{stem}.py", *sorted((FOLDER / "check").glob("*.py"))]:
        env.note_dependency(str(path))


def check(app):
    """A chapter whose exercises are not those of the package stops the build at once, in one sentence."""
    for path in sorted(Path(app.srcdir).glob("book/*.ipynb")):
        cells = json.loads(path.read_text("utf8"))["cells"]
        answers = [i for i, cell in enumerate(cells) if "exercise" in cell["metadata"].get("tags", [])]
        held = ["".join(cells[i + before]["source"]) for i in answers for before in (-1, 0)]
        own = chapter(path.stem)
        wanted = enumerate(own.exercises.values(), 1) if own else ()
        if held != [text for n, exercise in wanted for text in (exercise.markdown(n), exercise.cell())]:
            # not an ExtensionError, which Jupyter Book would bury under a traceback
            raise SystemExit(
                f"book/{path.name} does not hold the exercises of the package: run "
                f"python tools/exercises.py book/{path.name}, then tools/execute.py on it."
            )


class Boxes(SphinxTransform):
    """Each section with a cell of the tag ``exercise`` becomes a box; what they stand in counts ticks."""

    default_priority = 700

    def apply(self):
        stem = Path(self.env.docname).name
        cells = [c for c in self.document.findall(nodes.container) if "tag_exercise" in c["classes"]]
        if not cells:
            return
        exercises = list(chapter(stem).exercises.values())
        for cell, exercise in zip(cells, exercises, strict=True):
            box(cell, exercise)
        cells[0].parent.parent.insert(1, raw(count(exercises) + NOTICE + self.where_to_solve_them()))
        note_dependencies(self.env, stem)

    def where_to_solve_them(self):
        name, options = self.env.docname, self.config.html_theme_options
        notebook = posixpath.relpath(f"_sources/{name}.ipynb", posixpath.dirname(name))
        ways = [f'<a href="{html.escape(notebook)}" download>download this chapter as a notebook</a>']
        links = launch_links(options["repository_url"], options["repository_branch"], f"{name}.ipynb")
        if colab := links.get("Colab"):
            ways.append(f'<a href="{html.escape(colab)}">open it in Colab</a>')
        return (
            f"<p>Your code is checked in a notebook: {' or '.join(ways)}. Predictions are answered here, in "
            "the page. Tick what you have solved; the ticks stay in this browser, and "
            '<a href="exercises.html">How to use the exercises</a> counts them for the whole book. '
            "<noscript>Answers and ticks need JavaScript.</noscript></p>"
        )


def box(cell, exercise):
    section = cell.parent
    section["classes"] += ["exercise", f"exercise-{exercise.kind}"]
    section.insert(1, raw(tick(exercise)))
    for output in [node for node in cell if "cell_output" in node["classes"]]:
        cell.remove(output)  # "not attempted" is for somebody who can attempt it
    if exercise.kind == "predict":
        section.insert(section.index(cell), raw(prediction(exercise)))
    section += [raw("<details><summary>Solution</summary>"), *solution(exercise), raw("</details>")]


def tick(exercise):
    title = html.escape(exercise.title)
    return (
        f'<label class="tick"><input type="checkbox" data-exercise="{key(exercise)}" '
        f'aria-label="Solved: {title}"> Solved</label>'
    )


def count(exercises):
    """How many of them are ticked; the script fills it in."""
    keys = " ".join(map(key, exercises))
    return (
        f'<div class="ticks" data-exercises="{keys}"><progress value="0" max="{len(exercises)}" '
        'aria-label="Solved exercises"></progress> <span></span></div>'
    )


def solution(exercise):
    if exercise.kind in ("predict", "measure"):
        yield raw(f"<p>{marked(inspect.cleandoc(exercise.solve.__doc__))}</p>")
    yield python(source(exercise.solve))


def prediction(exercise):
    """A form, and what each answer is told."""
    about = {
        "expected": exercise.expected,
        "right": marked(inspect.cleandoc(exercise.solve.__doc__)),
        "wrong": [[value, marked(sentence)] for value, sentence in exercise.wrong.items()],
        "otherwise": marked(exercise.otherwise),
        "form": marked(f"Your prediction should be {exercise.form}."),
    }
    data = json.dumps(about)  # sentences are escaped already, so nothing in it ends the script
    name = html.escape(exercise.name)
    if exercise.choices:
        radios = "".join(
            f'<label><input type="radio" name="{name}" value="{letter}"> {letter}</label>'
            for letter in exercise.choices
        )
        field = f'<fieldset><legend>Your prediction</legend><div class="radios">{radios}</div></fieldset>'
    else:
        field = (
            f"<label>Your prediction: {html.escape(exercise.form)} "
            f'<input type="text" name="{name}" autocomplete="off" spellcheck="false"></label>'
        )
    return (
        f'<form class="prediction" data-exercise="{key(exercise)}">{field} <button>Check</button>'
        f'<script type="application/json">{data}</script><p role="status"></p></form>'
    )


class Said(SphinxDirective):
    """What ``check`` says to an answer, from a real run: ``CHAPTER EXERCISE``, and the code of the answer."""

    required_arguments = 2
    has_content = True

    def run(self):
        stem, name = self.arguments
        note_dependencies(self.env, stem)
        code = "\n".join(self.content)
        names = {}
        exec(f"import torch\n{code}", names)
        result = chapter(stem).exercises[name].judge(names[name])
        cell = python(f"{code}\n\nex.{name}.check({name})")
        shown = f'<div class="cell_output"><div class="output text_html">{result._repr_html_()}</div></div>'
        return [nodes.container("", cell, raw(shown), classes=["cell"])]


class Overview(SphinxDirective):
    """Every chapter with exercises, in the order of the book, and how many of them are ticked."""

    def run(self):
        stems = re.findall(r"file: book/(\w+)", Path(self.env.srcdir, "_toc.yml").read_text("utf8"))
        self.env.note_dependency(str(Path(self.env.srcdir, "_toc.yml")))
        rows = []
        for stem in filter(chapter, stems):
            note_dependencies(self.env, stem)
            title = html.escape(chapter(stem).title)
            rows.append(
                f'<tr><th scope="row"><a href="{stem}.html#exercises">{title}</a></th>'
                f"<td>{count(chapter(stem).exercises.values())}</td></tr>"
            )
        return [raw(f'<table class="overview"><tbody>{"".join(rows)}</tbody></table>{NOTICE}{FORGET}')]


NOTICE = '<p class="notice" role="status"></p>'  # once a page: that ticks cannot be kept
FORGET = """<div class="forget"><button type="button">Forget my ticks</button>
<span hidden>Really? <button type="button" value="yes">Forget them</button>
<button type="button" value="no">Keep them</button></span></div>
<noscript><p>Ticks need JavaScript.</p></noscript>"""


def page_context(app, pagename, templatename, context, doctree):
    """Only pages that show ticks load the script."""
    if 'class="ticks"' in context.get("body", ""):
        app.add_js_file("exercises.js", loading_method="defer")


def setup(app):
    app.connect("builder-inited", check)
    app.add_transform(Boxes)
    app.add_directive("check-says", Said)
    app.add_directive("exercises-overview", Overview)
    app.connect("html-page-context", page_context)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
