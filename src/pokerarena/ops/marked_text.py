"""Text between two marks of a document, made from the program and compared with it by a test."""

from __future__ import annotations


def replaced(document: str, begin: str, end: str, text: str) -> str:
    """The document with `text` between the marks."""
    before, found_begin, rest = document.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the document lacks the marks {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
