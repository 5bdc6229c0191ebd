"""What axe finds on a page."""

from axe_playwright_python.sync_playwright import Axe


def violations(page, *, within: str | None = None) -> dict[str, list[str]]:
    """The HTML of what breaks each rule, by rule; ``within`` is a selector that narrows the search."""
    options = {"resultTypes": ["violations"]}  # the others would be worked out in full, and not be read
    if page.evaluate("document.documentElement.dataset.theme") == "dark":
        options["runOnly"] = ["color-contrast"]  # nothing else depends on the theme
    context = {"include": [within]} if within else None
    found = Axe().run(page, context=context, options=options).response["violations"]
    return {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found}
