"""The API reference as one page of plain HTML.

Made from the OpenAPI document. No script and nothing from another host: on the origin where tokens
are used, nobody else's code runs, and the page works without a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "summary{cursor:pointer;padding:.3rem 0}code,pre{font-family:ui-monospace,monospace}"
    "pre{background:#f4f4f4;padding:.8rem;overflow:auto;font-size:.85rem}"
    "b{display:inline-block;min-width:4.5rem}small{color:#555}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}pre{background:#222}"
    "small{color:#aaa}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
STYLE_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"


def reference_page(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    return "".join(_parts(document))


def _parts(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = escape(info["title"])
    yield '<!doctype html><html lang="en"><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title><style>{_STYLE}</style><h1>{title} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info.get('description', ''))}</p>"
    yield '<p>For programs: <a href="/openapi.json">/openapi.json</a></p>'
    heading = None
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            if tag != heading:
                heading = tag
                yield f"<h2>{escape(tag)}</h2>"
            yield from _operation(method, path, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<pre>{escape(json.dumps(schema, indent=1, ensure_ascii=False))}</pre></details>"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code> "
    yield f"<small>{escape(operation.get('summary', ''))}</small></summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if permission := operation.get("x-permission"):
        yield f"<p>Permission: {escape(permission)}</p>"
    for part in ("parameters", "requestBody"):
        if part in operation:
            shown = json.dumps(operation[part], indent=1, ensure_ascii=False)
            yield f"<p>{part}</p><pre>{escape(shown)}</pre>"
    yield f"<p>Answers: {escape(', '.join(operation.get('responses', {})))}</p></details>"
