"""One self-contained ES module out of a widget's file and the modules that it shares with others.

A notebook stores each widget as a single text, and neither Colab nor a page opened from a file could fetch
a second one. So shared modules are put in front of the widget's own code. They all land in one scope: two
modules may not use the same top-level name, and imports may not be renamed.
"""

import re
from collections import Counter
from pathlib import Path

IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(async )?function|const|class)", re.MULTILINE)
NAME = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


def bundle(path: Path) -> str:
    """The module at ``path`` with everything that it imports, each shared module once.

    Raises:
        ValueError: an import not written ``import { name } from "./file.js";``, or a name taken twice.
    """
    text = "\n".join(_modules(path, seen=set()))
    twice = [name for name, count in Counter(NAME.findall(text)).items() if count > 1]
    if twice:
        raise ValueError(f"{path.name}: top-level names must be unique across modules; got {twice[0]} twice")
    return text


def _modules(path: Path, seen: set[Path], *, shared: bool = False) -> list[str]:
    if path in seen:
        return []
    seen.add(path)
    source = path.read_text("utf8")
    imported = [path.parent / name for name in IMPORT.findall(source)]
    parts = [text for other in imported for text in _modules(other, seen, shared=True)]
    own = IMPORT.sub("", source)
    if stray := re.search(r"^import\b.*|^export \{.*", own, re.MULTILINE):
        raise ValueError(f'{path.name}: write import {{ name }} from "./file.js"; got {stray[0]}')
    return [*parts, EXPORT.sub("", own) if shared else own]
