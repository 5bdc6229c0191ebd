"""What a page may load and run: a strict Content-Security-Policy, as a meta tag, and a header if hosts can.

Scripts come from the book's own files; the one inline script, which must run before the first paint, is named
by its hash. Only pages with widgets may also import a module from a blob: the widget's own, which they hold.
Style attributes are allowed, because formulas and outputs are laid out by them; style elements are not.
"""

import base64
import hashlib
import re
from pathlib import Path

FIRST_PAINT = (Path(__file__).parent.parent / "_theme" / "first_paint.js").read_text("utf8")
OUTWARD = re.compile(r'<a (?=[^>]*\bhref="https?:)(?![^>]*\brel=)')


def policy(*, widgets: bool) -> str:
    """The policy of a page with or without widgets.

    >>> "blob:" in policy(widgets=False), "unsafe-eval" in policy(widgets=True)
    (False, False)
    """
    digest = base64.b64encode(hashlib.sha256(FIRST_PAINT.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'sha256-{digest}'" + (" blob:" if widgets else ""),
            "style-src 'self'",
            "style-src-attr 'unsafe-inline'",
            "img-src 'self'",
            "font-src 'self'",
            "connect-src 'self'",
            "manifest-src 'self'",
            "worker-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
        )
    )


def headers() -> str:
    """What hosts that read a file ``_headers`` send with the files of the book.

    It knows paths and no queries, so it asks to keep what lasts by its path alone: pictures, named by a
    digest of what they show, for good, and KaTeX's fonts for a month. For all else the host's own rule holds:
    one for "/*" would be sent beside these.
    """
    lines = (
        "/*",
        f"  Content-Security-Policy: {policy(widgets=True)}; frame-ancestors 'none'",
        "  Referrer-Policy: no-referrer",
        "  X-Content-Type-Options: nosniff",
        "/_images/*",
        "  Cache-Control: public, max-age=31536000, immutable",
        "/_static/katex/fonts/*",
        "  Cache-Control: public, max-age=2592000",
    )
    return "\n".join(lines) + "\n"


def outward(html: str) -> str:
    """Links to other hosts say so, and give the other page no hold on this one.

    >>> outward('<a class="x" href="https://a.org">a</a> <a href="b.html">b</a>')
    '<a rel="external noopener" class="x" href="https://a.org">a</a> <a href="b.html">b</a>'
    """
    return OUTWARD.sub('<a rel="external noopener" ', html)


def page_context(app, pagename, templatename, context, doctree):
    context["first_paint"] = FIRST_PAINT
    context["policy"] = policy(widgets='class="widget"' in context.get("body", ""))
    for part in ("body", "toc"):
        if part in context:
            context[part] = outward(context[part])


def write_headers(app, exception):
    if exception is None and app.builder.format == "html":
        Path(app.outdir, "_headers").write_text(headers(), "utf8")


def setup(app):
    app.connect("html-page-context", page_context, priority=900)  # after all who change the body
    app.connect("build-finished", write_headers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
