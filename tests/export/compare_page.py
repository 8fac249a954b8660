"""What the tests of `python -m export compare` ask of its page."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what is not closed and what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "data", "srcset", "action"):
                self.references.append(value or "")
        self.images += tag == "img"
        assert tag not in ("script", "link", "iframe", "object")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert self.open[-1:] != ["style"] or ("url(" not in data and "@import" not in data)


def check_page(text: str, images: int = 3) -> None:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [] and page.images == images
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in page.references)
