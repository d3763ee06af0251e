"""What annotators see: one form a kind, answered under `answer`, the model's view only when it was sent."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.template.stack import ROOT
from winnow.aws.groundtruth import FIELD

KINDS = {"text": "crowd-classifier", "image": "crowd-image-classifier"}


def form(kind: str) -> str:
    return (ROOT / f"layers/core/winnow/aws/templates/{kind}.liquid.html").read_text()


class Tags(HTMLParser):
    """Start tags with attributes, and whether every tag that opens closes in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


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


@pytest.mark.parametrize("kind", KINDS)
def test_the_guideline_is_the_instruction(kind: str) -> None:
    text = form(kind)

    for part in ("short-instructions", "full-instructions"):
        inside = re.findall(rf"<{part}[^>]*>(.*?)</{part}>", text, re.DOTALL)
        assert len(inside) == 1
        assert "{{ task.input.guideline }}" in inside[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_view_is_shown_only_when_it_was_sent(kind: str) -> None:
    guarded = re.sub(r"{% if task.input.prediction %}.*?{% endif %}", "", form(kind), flags=re.DOTALL)

    assert "prediction" in form(kind)
    assert "prediction" not in guarded


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_would_bias_the_answer_is_asked_for(kind: str) -> None:
    used = set(re.findall(r"task\.input\.(\w+)", form(kind)))

    assert used == {"classes", "title", "guideline", "prediction", kind}


def test_an_image_is_read_through_a_signed_url() -> None:
    assert 'src="{{ task.input.image | grant_read_access }}"' in form("image")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_escapes_the_escaping(kind: str) -> None:
    assert "skip_autoescape" not in form(kind)
    assert "javascript:" not in form(kind)
