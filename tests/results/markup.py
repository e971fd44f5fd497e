"""HTML as a tree, for tests that look at elements and not at strings."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "input", "img"}


class Element:
    """An element: its attributes are its items; what is in it, its children."""

    def __init__(self, tag, attributes=(), parent=None):
        self.tag = tag
        self.attributes = dict(attributes)
        self.parent = parent
        self.children = []

    def __getitem__(self, name):
        return self.attributes[name]

    def __contains__(self, name):
        return name in self.attributes

    def __iter__(self):
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    @property
    def classes(self):
        return self.attributes.get("class", "").split()

    @property
    def text(self):
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join("".join(parts).split())

    def all(self, tag=None, *, cls=None, attribute=None):
        return [
            element
            for element in self
            if (tag is None or element.tag == tag)
            and (cls is None or cls in element.classes)
            and (attribute is None or attribute in element)
        ]

    def the(self, tag=None, **wanted):
        """The only one."""
        (element,) = self.all(tag, **wanted)
        return element


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = self.at = Element("")

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, attributes, self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def read(html):
    """Return the tree of `html`; what is not closed, or closed in the wrong place, fails."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.at is reader.root, f"<{reader.at.tag}> is not closed"
    return reader.root
