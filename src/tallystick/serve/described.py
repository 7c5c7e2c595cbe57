"""`GET /docs`: the OpenAPI document as a page for people. It needs no script, and nothing from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final

POLICY: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

_REFERENCE: Final = "#/components/schemas/"
_DEPTH_MAX: Final = 6


def page(document: dict[str, Any]) -> str:
    """The page."""
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(_group(path), []).append((method.upper(), path, operation))
    schemas = document["components"]["schemas"]
    parts = [_HEAD, f"<h1>{escape(document['info']['title'])}</h1><p>{escape(document['info']['summary'])}.</p>"]
    parts.append('<p>For machines: <a href="/openapi.json">openapi.json</a>. Send a key as ')
    parts.append("<code>Authorization: Bearer ts_…</code>; every refusal is a problem (RFC 9457).</p><nav>")
    parts += [f'<a href="#{escape(name)}">{escape(name)}</a> ' for name in groups]
    parts.append("</nav>")
    for name, routes in groups.items():
        parts.append(f'<h2 id="{escape(name)}">{escape(name)}</h2>')
        parts += [_route(*route, schemas) for route in routes]
    return "".join([*parts, "</main></body></html>\n"])


def _group(path: str) -> str:
    return path.removeprefix("/api/v1").strip("/").split("/")[0]


def _route(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    said = " ".join((operation.get("description") or operation["summary"]).split())
    first, _, rest = said.partition(". ")
    needs = operation.get("x-permission")
    badge = "" if needs is None else f'<span class="needs">{escape(needs)}</span>'
    parts = [f'<details><summary><b class="{method.lower()}">{method}</b> <code>{escape(path)}</code>']
    parts.append(f" {badge}<span>{_text(first)}</span></summary>{f'<p>{_text(rest)}</p>' if rest else ''}")
    if operation.get("x-whole-scope"):
        parts.append("<p>Not for a key that is for some event types or entities only.</p>")
    parts.append(_parameters(operation.get("parameters", ())))
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        shape = json.dumps(_example(body.get("schema", {}), schemas, 0), indent=2, ensure_ascii=False)
        parts.append(f"<h4>Body, {escape(kind)}</h4><pre>{escape(shape)}</pre>")
    answers = ", ".join(_answers(operation["responses"]))
    return "".join([*parts, f"<h4>Answers</h4><p>{answers}</p></details>"])


def _parameters(parameters: Iterable[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{escape(_kind(one['schema']))}{', needed' if one.get('required') else ''}</td>"
        f"<td>{_text(one.get('description', ''))}</td></tr>"
        for one in parameters
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _answers(responses: dict[str, Any]) -> Iterator[str]:
    for status, answer in responses.items():
        if status < "400":
            kinds = ", ".join(answer.get("content", ())) or "nothing"
            yield f"<b>{escape(status)}</b> {escape(answer['description'])} ({escape(kinds)})"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    return str(schema.get("type", "any"))


def _example(schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> Any:
    """What a body looks like: its members, each with its type or default."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix(_REFERENCE)]
    if depth < _DEPTH_MAX and schema.get("type") == "object" and "properties" in schema:
        return {name: _example(one, schemas, depth + 1) for name, one in schema["properties"].items()}
    if depth < _DEPTH_MAX and schema.get("type") == "array":
        return [_example(schema.get("items", {}), schemas, depth + 1)]
    return schema["default"] if "default" in schema else _kind(schema)


def _text(text: str) -> str:
    """Prose, in which what stands between back quotes is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


_HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tallystick: the API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --line: #8884; --dim: #888 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 }
main { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin: 0 } h2 { margin: 2rem 0 .4rem; font-size: 1.15rem } h4 { margin: .8rem 0 .2rem }
nav { position: sticky; top: 0; padding: .5rem 0; background: Canvas; border-bottom: 1px solid var(--line) }
nav a { margin-right: .6rem; white-space: nowrap }
code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { background: #8881; padding: .7rem; border-radius: .4rem; overflow: auto }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .35rem 0; padding: .35rem .7rem }
summary { cursor: pointer } summary span { color: var(--dim); margin-left: .5rem }
summary .needs { border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem; font-size: 12px }
b.get { color: #2a7de1 } b.post { color: #1c9c5b } b.put { color: #b7791f } b.delete { color: #d64545 }
b.get, b.post, b.put, b.delete { display: inline-block; min-width: 3.6rem; font-size: 13px }
table { border-collapse: collapse } td { padding: .15rem .8rem .15rem 0; vertical-align: top }
</style></head><body><main>
"""
