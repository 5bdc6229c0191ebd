"""Where the pages live: it follows from ``repository.url`` in _config.yml, the one place that is set."""

from pathlib import Path
from urllib.parse import urlparse

import yaml

CONFIG = Path(__file__).resolve().parent.parent / "_config.yml"


def is_placeholder(url: str) -> bool:
    """Whether ``url`` only keeps the place until the repository has a public home.

    >>> is_placeholder("https://example.org/transformer-lab"), is_placeholder("https://github.com/a/b")
    (True, False)
    """
    return urlparse(url).hostname in (None, "example.org")


def pages(repository: str, baseurl: str = "") -> str:
    """The address of the pages, with a slash at its end: ``baseurl`` if given, else what GitHub makes of it.

    >>> pages("https://github.com/Someone/transformer-lab"), pages("https://github.com/a/a.github.io.git")
    ('https://someone.github.io/transformer-lab/', 'https://a.github.io/')
    >>> pages("https://codeberg.org/a/b", "https://lab.school.test")
    'https://lab.school.test/'
    """
    if baseurl or is_placeholder(repository):
        return f"{(baseurl or repository).rstrip('/')}/"
    parts = urlparse(repository)
    owner, _, name = parts.path.strip("/").removesuffix(".git").partition("/")
    if parts.hostname not in ("github.com", "www.github.com") or not name:
        raise ValueError(
            "html.baseurl in _config.yml must say where the pages live: it follows from repository.url "
            f"only for a repository on GitHub, got {repository}"
        )
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def of_book(config: Path = CONFIG) -> str:
    """The address that a book's settings give its pages."""
    settings = yaml.safe_load(config.read_text("utf8"))
    return pages(settings["repository"]["url"], settings.get("html", {}).get("baseurl", ""))
