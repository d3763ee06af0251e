"""What annotators see: one form a kind, answered under `answer`, the model's view only when it was sent."""

from __future__ import annotations

import json
import re
from html import escape
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.fakes import make_ports
from tests.template.stack import ROOT
from winnow.aws.groundtruth import FIELD
from winnow.errors import BadInput
from winnow.labels.numbers import number
from winnow.steps.prepare_task import prepare_task

KINDS = {"text": "crowd-classifier", "image": "crowd-image-classifier", "table": "crowd-classifier"}
FORMS = (*KINDS, "number")
SHOWN = {"text": "text", "image": "image", "table": "row", "number": "row"}
"""What of the record each form shows."""


def form(kind: str) -> str:
    return (ROOT / f"layers/core/winnow/aws/templates/{kind}.liquid.html").read_text()


class Tags(HTMLParser):
    """Start tags with attributes, and whether every tag that opens closes in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def render(text: str, task: dict[str, Any]) -> str:
    """What Liquid makes of our forms, which use loops, conditions and escaped values only."""
    scopes: list[dict[str, Any]] = [{"task": {"input": task}}]

    def value(path: str) -> Any:
        names = path.split("|")[0].strip().split(".")
        found: Any = next(scope for scope in reversed(scopes) if names[0] in scope)
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def block(parts: list[str], shown: bool) -> str:
        out = ""
        while parts:
            part = parts.pop(0)
            if part.startswith("{%"):
                word, *rest = part.strip("{% }").split()
                if word in ("endif", "endfor"):
                    return out
                if word == "if":
                    out += block(parts, shown and value(rest[0]) is not None and value(rest[0]) != "")
                else:
                    items, body = list(value(rest[2])) if shown else [], list(parts)
                    for item in items:
                        scopes.append({rest[0]: item})
                        out += block(list(body), shown)
                        scopes.pop()
                    block(parts, False)
            elif part.startswith("{{"):
                found = value(part.strip("{} ")) if shown else None
                out += "" if found is None else escape(json.dumps(found) if "to_json" in part else str(found))
            elif shown:
                out += part
        return out

    return block(re.split(r"({{.*?}}|{%.*?%})", text), True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_is_well_formed_and_answers_under_our_field(kind: str) -> None:
    tags = Tags(form(kind))

    (classifier,) = [attributes for tag, attributes in tags.found if tag == KINDS[kind]]
    assert tags.open == []
    assert tags.found[0] == ("script", {"src": "https://assets.crowd.aws/crowd-html-elements.js"})
    assert [tag for tag, _ in tags.found].count("crowd-form") == 1
    assert classifier["name"] == FIELD
    assert classifier["categories"] == "{{ task.input.classes | to_json | escape }}"
    assert classifier["header"] == "{{ task.input.title }}"


@pytest.mark.parametrize("kind", FORMS)
def test_the_guideline_is_the_instruction(kind: str) -> None:
    text = form(kind)

    for part in ("short-instructions", "full-instructions"):
        inside = re.findall(rf"<{part}[^>]*>(.*?)</{part}>", text, re.DOTALL)
        assert len(inside) == 1
        assert "{{ task.input.guideline }}" in inside[0]


@pytest.mark.parametrize("kind", FORMS)
def test_the_models_view_is_shown_only_when_it_was_sent(kind: str) -> None:
    guarded = re.sub(r"{% if task.input.prediction %}.*?{% endif %}", "", form(kind), flags=re.DOTALL)

    assert "prediction" in form(kind)
    assert "prediction" not in guarded


@pytest.mark.parametrize("kind", FORMS)
def test_nothing_that_would_bias_the_answer_is_asked_for(kind: str) -> None:
    used = set(re.findall(r"task\.input\.(\w+)", form(kind)))

    answers = {"unit", "minimum", "maximum"} if kind == "number" else {"classes"}
    assert used == {"title", "guideline", "prediction", SHOWN[kind], *answers}


def test_an_image_is_read_through_a_signed_url() -> None:
    assert 'src="{{ task.input.image | grant_read_access }}"' in form("image")


@pytest.mark.parametrize("kind", FORMS)
def test_nothing_escapes_the_escaping(kind: str) -> None:
    assert "skip_autoescape" not in form(kind)
    assert "javascript:" not in form(kind)


ROW = {"city": "Ulm & <b>Neu-Ulm</b>", "rooms": 3.0, "heating": None, "m2": 81.5}


def seen(form_name: str, loop: str, **line: Any) -> Tags:
    ports = make_ports(loop=loop)
    view = prepare_task({"source": json.dumps(ROW), "candidate_id": "c", **line}, ports).body["taskInput"]
    tags = Tags(render(form(form_name), view))
    assert tags.open == []
    return tags


NUMBERS = "task: {kind: table, type: regression, unit: EUR, minimum: 0, maximum: 5000.5, show_prediction: true}"


@pytest.mark.parametrize(
    ("form_name", "loop"), [("table", "task: {kind: table, classes: [cheap, dear]}"), ("number", NUMBERS)]
)
def test_a_row_is_a_table_that_can_be_read_aloud(form_name: str, loop: str) -> None:
    tags = seen(form_name, loop)

    (region,) = [attributes for tag, attributes in tags.found if tag == "div" and attributes.get("role") == "region"]
    assert region["tabindex"] == "0"
    assert region["aria-label"]
    assert [tag for tag, _ in tags.found].count("caption") == 1
    assert [attributes["scope"] for tag, attributes in tags.found if tag == "th"] == ["col", "col", *["row"] * 4]
    cells = [text for tag, text in tags.texts if tag in ("th", "td")]
    assert cells == [
        "Field", "Value", "city", "Ulm & <b>Neu-Ulm</b>", "rooms", "3", "heating", "\N{EM DASH}", "m2", "81.5",
    ]  # fmt: skip


def test_a_number_is_typed_into_a_field_with_the_tasks_limits_and_unit() -> None:
    tags = seen("number", NUMBERS, prediction=1200.0)

    (field,) = [attributes for tag, attributes in tags.found if tag == "crowd-input"]
    assert field == {
        "name": FIELD, "type": "number", "label": "Your number in EUR", "min": "0", "max": "5000.5", "step": "any",
        "required": None,
    }  # fmt: skip
    assert ("strong", "1200 EUR") in tags.texts
    assert [tag for tag, _ in tags.found].count("crowd-form") == 1
    assert ("p", "Not below 0 EUR.") in tags.texts
    assert [attributes for tag, attributes in tags.found if attributes.get("role") == "alert"] == [
        {"class": "refusal", "role": "alert"}
    ]


def test_a_number_without_limits_has_none_in_the_form() -> None:
    tags = seen("number", "task: {kind: table, type: regression}")

    (field,) = [attributes for tag, attributes in tags.found if tag == "crowd-input"]
    assert field["label"] == "Your number"
    assert not {"min", "max"} & field.keys()


@pytest.mark.parametrize("answer", ["12", "-1.5e3", ".5", "+3.", "1,234.5", "12,5", "abc", "1 234", "", "nan", "0x1"])
def test_the_form_refuses_what_will_not_be_counted(answer: str) -> None:
    (pattern,) = re.findall(r"/\^(.+)\$/\.test", form("number"))

    try:
        number(answer)
        counted = True
    except BadInput:
        counted = False
    assert bool(re.fullmatch(pattern, answer)) == counted


def test_a_crowd_input_is_closed_by_a_tag_of_its_own() -> None:
    assert "></crowd-input>" in form("number")  # a slash before the bracket would swallow what follows
