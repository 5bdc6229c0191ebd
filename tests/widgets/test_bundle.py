import pytest

from transformer_lab.widgets import NumberReaderHeads, QueryKeyValue
from transformer_lab.widgets._bundle import bundle


@pytest.fixture
def modules(tmp_path):
    """Write ES modules, and bundle the one called main.js."""

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.js").write_text(source, "utf8")
        return bundle(tmp_path / "main.js")

    return write


def test_imports_are_put_in_front_once_and_only_the_widget_exports(modules):
    text = modules(
        low="export const one = 1;\n",
        left='import { one } from "./low.js";\nexport function two() { return one + one; }\n',
        right='import {\n  one,\n} from "./low.js";\nexport class Three {}\n',
        main='import { two } from "./left.js";\nimport { Three } from "./right.js";\n'
        "export default { two, Three };\n",
    )
    lines = [line for line in text.splitlines() if line]
    assert lines == [
        "const one = 1;",
        "function two() { return one + one; }",
        "class Three {}",
        "export default { two, Three };",
    ]


@pytest.mark.parametrize("widget", [QueryKeyValue, NumberReaderHeads])
def test_what_a_notebook_stores_needs_no_other_file(widget):
    text = widget()._esm
    assert "import" not in [line.split(" ")[0] for line in text.splitlines()]
    assert text.count("export default { render };") == 1
    assert "function softmax" in text


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "line",
    [
        'import * as low from "./low.js";',
        'import low from "./low.js";',
        'import { one } from "package";',
        "export { one };",
    ],
)
def test_another_form_of_import_is_refused(modules, line):
    with pytest.raises(ValueError, match=r"main\.js: write import .* got ") as error:
        modules(low="export const one = 1;\n", main=f"{line}\n")
    assert line in str(error.value)


@pytest.mark.bad_input
def test_a_name_taken_twice_is_refused(modules):
    with pytest.raises(ValueError, match=r"must be unique across modules; got one twice"):
        modules(low="export const one = 1;\n", main='import { one } from "./low.js";\nfunction one() {}\n')
