"""Controls, reports and exports as JSON has them: what the command line prints and the service sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tallystick.evidence.bundle.export import Exported
from tallystick.evidence.controls.assessment import Assessment
from tallystick.evidence.controls.catalogue import Catalogue, Control, Selector
from tallystick.evidence.controls.search import Match
from tallystick.evidence.controls.wording import in_words
from tallystick.evidence.report.documents import Document

_EXPORTED: Final = ("manifest_sha256", "events_sha256", "count", "first", "end", "size", "complete", "position")
_PARAMETER: Final = ("name", "type", "about", "default")


def exported_json(exported: Exported) -> dict[str, Any]:
    """What was handed over, without where it lies."""
    selectors = [{"name": match.name, "count": match.count} for match in exported.matches]
    facts = {name: getattr(exported, name) for name in _EXPORTED}
    return {**facts, "selectors": selectors, "warnings": [*exported.warnings]}


def catalogue_json(known: Catalogue, found: Iterable[Control]) -> dict[str, Any]:
    """Frameworks, and some of their controls."""
    rows = [
        {**_head(control), "window_days": control.window_days, "cadence": dict(control.cadence)} for control in found
    ]
    frameworks = [{"name": framework.name, "title": framework.title} for framework in known.frameworks]
    return {"frameworks": frameworks, "controls": rows}


def control_json(control: Control) -> dict[str, Any]:
    """All of one control."""
    return {
        **_head(control),
        "requirement": control.requirement,
        "selectors": [*map(_selector_json, control.selectors)],
        "related": [*map(_selector_json, control.related)],
        "gap": control.gap,
        "window_days": control.window_days,
        "cadence": dict(control.cadence),
        "asks": [*control.asks],
    }


def matches_json(question: str, found: Iterable[Match]) -> dict[str, Any]:
    """Controls that a question is about."""
    matches = [{**_head(match.control), "score": round(match.score, 4)} for match in found]
    return {"question": question, "controls": matches}


def assessments_json(found: Sequence[Assessment]) -> dict[str, Any]:
    """Assessments, and how many of them have a gap."""
    gaps = sum(each.status == "gap" for each in found)
    return {"evidenced": len(found) - gaps, "gaps": gaps, "controls": [each.to_json() for each in found]}


def document_json(document: Document) -> dict[str, Any]:
    """A report that can be made."""
    return {
        "name": document.name,
        "title": document.title,
        "description": document.description,
        "window_days": document.window_days,
        "parameters": [{name: getattr(parameter, name) for name in _PARAMETER} for parameter in document.parameters],
    }


def _head(control: Control) -> dict[str, Any]:
    return {"control": control.key, "framework": control.framework, "id": control.id, "title": control.title}


def _selector_json(selector: Selector) -> dict[str, Any]:
    return {
        "name": selector.name,
        "shows": selector.shows,
        "terms": selector.terms,
        "in_words": [in_words(query) for query in selector.queries],
    }
