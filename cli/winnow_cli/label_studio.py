"""Label Studio's JSON: tasks with data, annotations and predictions, read and written.

Source: the documented export format "JSON" and the import format of tasks with predictions, Label Studio 1.x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.errors import BadInput
from winnow.records import Kind

JsonDict = dict[str, Any]
FIELDS = ("id", "subject", "slices", "cost", "captured_at")
"""What may be said about a record beside its payload; in `meta` of a task, which Label Studio carries along."""


def is_task(body: Any) -> bool:
    """Whether an element of a JSON array is a task of Label Studio's rather than a plain row."""
    return isinstance(body, dict) and isinstance(body.get("data"), dict)


def row(task: Mapping[str, Any], *, kind: Kind, text: str | None) -> JsonDict:
    """A task as a row as ingest reads it, with who annotated it and when under `winnow`.

    `text` names the field of `data` with the payload, where it is not `kind`. Raises BadInput with the remedy.
    """
    meta = task.get("meta") if isinstance(task.get("meta"), dict) else {}
    assert isinstance(meta, dict)  # by the line above
    body: JsonDict = {name: meta[name] for name in FIELDS if meta.get(name) is not None}
    if "winnow" not in meta:  # else it is our number, and no name the user gave
        body.setdefault("id", task.get("id"))
    body |= _payload(task["data"], kind=kind, text=text)
    past = dict(meta["winnow"]) if isinstance(meta.get("winnow"), dict) else {}
    label, annotation = _label(task)
    if label is not None:
        body["label"] = label
        who = annotation.get("completed_by")
        who = who.get("email") if isinstance(who, dict) else who
        past |= {} if who is None else {"by": f"Label Studio: {who}"}
        past |= {"at": annotation["created_at"]} if isinstance(annotation.get("created_at"), str) else {}
    return {**body, "winnow": past} if past else body


def _payload(data: Mapping[str, Any], *, kind: Kind, text: str | None) -> JsonDict:
    if kind == "table":
        return {"row": data["row"] if isinstance(data.get("row"), dict) else dict(data)}
    name = text or kind
    if name not in data:
        texts = [field for field, value in data.items() if isinstance(value, str)]
        if len(texts) != 1:
            raise BadInput(
                f"data has no field {name!r}; it has {', '.join(data)}: say --text FIELD", code="missing-payload"
            )
        name = texts[0]
    return {kind: data[name] if kind == "text" else _inline(data[name])}


def _inline(value: Any) -> str:
    """The base64 of a data URI: the only form in which an export holds its images itself."""
    head, comma, body = str(value).partition(",")
    if not head.startswith("data:image/") or not comma or not head.endswith(";base64"):
        raise BadInput(
            f"its image lies at {str(value)[:100]!r} and not in the export; download the images and import the folder with "
            "a labels.csv",
            code="missing-payload",
        )
    return body


def _label(task: Mapping[str, Any]) -> tuple[Any, JsonDict]:
    """The one label that the annotations of a task agree on, with the first of them; (None, {}) without an answer."""
    found = []
    for annotation in task.get("annotations") or task.get("completions") or ():
        if not annotation.get("was_cancelled"):
            answers = [answer for result in annotation.get("result", ()) for answer in _answers(result)]
            if len(answers) > 1:
                raise BadInput(
                    f"an annotation gives {len(answers)} answers ({answers[:3]}); one is needed", code="bad-label"
                )
            found += [(answer, annotation) for answer in answers]
    if len({str(answer) for answer, _ in found}) > 1:
        said = ", ".join(sorted({repr(answer) for answer, _ in found})[:5])
        raise BadInput(f"its annotations differ ({said}); settle it in Label Studio and export again", code="bad-label")
    return found[0] if found else (None, {})


def _answers(result: Mapping[str, Any]) -> Sequence[Any]:
    value = result.get("value", {})
    if result.get("type") == "choices":
        return list(value.get("choices", ()))
    if result.get("type") in ("number", "rating"):
        return [value[result["type"]]]
    return ()


def task(number: int, body: Mapping[str, Any], *, kind: Kind) -> JsonDict:
    """A row of an export as a task, with its label as an annotation and the champion's guess as a prediction."""
    data: JsonDict = {"text": body["text"]} if kind == "text" else {"row": body["row"]} if kind == "table" else {}
    if kind == "image":
        data = {"image": f"data:image/png;base64,{body['image']}"}
    meta = {name: body[name] for name in (*FIELDS, "winnow") if body.get(name) is not None}
    made: JsonDict = {"id": number, "data": data, "meta": meta}
    past = body.get("winnow", {})
    if body.get("label") is not None:
        made["annotations"] = [{"result": [_result(body["label"], kind)], "was_cancelled": False}]
    if past.get("prediction") is not None:
        guess = {"model_version": past["champion"], "result": [_result(past["prediction"], kind)]}
        made["predictions"] = [guess if past.get("confidence") is None else {**guess, "score": past["confidence"]}]
    return made


def _result(label: str | float, kind: Kind) -> JsonDict:
    if isinstance(label, str):
        return {"from_name": "label", "to_name": kind, "type": "choices", "value": {"choices": [label]}}
    return {"from_name": "label", "to_name": kind, "type": "number", "value": {"number": label}}
