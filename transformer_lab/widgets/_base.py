"""What all widgets of the book share."""

import anywidget


class BookWidget(anywidget.AnyWidget):
    """A widget that refuses names which it does not know.

    Raises:
        TypeError: a misspelt trait, which traitlets alone would only warn about.
    """

    def __init__(self, **traits) -> None:
        if unknown := sorted(traits.keys() - set(self.class_trait_names())):
            raise TypeError(f"{type(self).__name__} has no trait {unknown[0]!r}")
        super().__init__(**traits)
