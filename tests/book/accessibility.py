"""What axe finds on a page."""

from axe_playwright_python.sync_playwright import Axe


def violations(page, *, within: str | None = None, rules: list[str] | None = None) -> dict[str, list[str]]:
    """The HTML of what breaks each rule, by rule.

    within: a selector that narrows the search; rules: those to be asked for, in place of all.
    """
    options = {"resultTypes": ["violations"]}  # the others would be worked out in full, and not be read
    if rules:
        options["runOnly"] = rules
    context = {"include": [within]} if within else None
    found = Axe().run(page, context=context, options=options).response["violations"]
    return {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found}


def rules_of(theme: str) -> list[str] | None:
    """For a page that is looked at in both themes at the same width: only contrast depends on the theme."""
    return ["color-contrast"] if theme == "dark" else None
