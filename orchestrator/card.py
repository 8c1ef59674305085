"""The card of a student: what it is, how good, what it takes, what it came from and how to use it, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator import licences
from orchestrator.board import Row
from orchestrator.facts import entity
from orchestrator.masking import LONGEST, without_secrets
from orchestrator.prepared import Prepared
from orchestrator.verdict import yardsticks
from orchestrator.words import arrow, between, plain

REGISTERED = "models:/"  # how the addresses of registered models begin
NARROW = 120  # characters to which no line is cut: the commands stay whole
CUT = "Lines that end with ... were too long for MLflow; what they say is in the study's report."


def card(
    prepared: Prepared,
    summary: Mapping[str, Any],
    answer: Mapping[str, Any],
    row: Row,
    *,
    name: str,
    address: str | None = None,
) -> str:
    """Of the student of this name: the end of the best path of an answer, one of its seeds.

    `address`: where it lies, if it is not registered.
    """
    sections = {
        f"{name}": [sentence(answer)],
        "How good": scores(summary, answer, row),
        "What it takes": takes(prepared, answer, row),
        "What it came from": origin(prepared, row),
        "Licences": terms(prepared, answer),
        "How to use it": usage(address or f"{REGISTERED}{entity(name)}@best"),
    }
    return fitting(
        "\n\n".join(_section(title, lines, level=2 if n else 1) for n, (title, lines) in enumerate(sections.items()))
    )


def fitting(text: str) -> str:
    """The text as far as MLflow takes it: if it is too long, its longest lines are cut, and the end says so."""
    text = without_secrets(text)
    if len(text) <= LONGEST:
        return text
    lines = [*text.split("\n"), "", CUT]
    for width in range(max(map(len, lines)), NARROW - 1, -1):
        cut = [_cut(line, width) for line in lines]
        if sum(map(len, cut)) + len(cut) - 1 <= LONGEST:
            break
    return "\n".join(cut)


def _cut(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    short = line[: width - 4]
    return f"{short}{'`' * (short.count('`') % 2)}..."


def _section(title: str, lines: Sequence[str], *, level: int) -> str:
    return "\n".join([f"{'#' * level} {plain(title)}", "", *lines])


def sentence(answer: Mapping[str, Any]) -> str:
    path = answer["best"]["path"]
    how = f"by the path {plain(arrow(path))}" if len(path) > 1 else "alone"
    return f"An object detector, {plain(path[-1])}, that learnt {how}."


def scores(summary: Mapping[str, Any], answer: Mapping[str, Any], row: Row) -> list[str]:
    """Score and gains; intervals where several seeds allow them."""
    best, metric, seeds = answer["best"], summary["metric"], len(summary["seeds"])
    lines = [f"- {metric} on the validation images: {row.score or 0:.4f} (this one, seed {row.seed})"]
    if seeds > 1:
        lines.append(f"- mean over {seeds} seeds: {best['score']:.4f} +- {best['spread'] or 0:.4f}")
    if row.choice:
        lines.append(f"- {row.choice}: the score is of the epoch that scored best, and a little flattered by that")
    if best["test"] is not None:
        lines.append(f"- {metric} on the test images, on which nothing was selected: {best['test']:.4f}")
    for rival in yardsticks(summary, answer, best):
        unsure = "" if seeds > 1 else "; one seed, so it may be noise"
        noise = f", 95% {between(rival['interval'])}" if rival["interval"] else unsure
        lines.append(f"- gain over {plain(rival['name'])}: {rival['gain']:+.4f}{noise}")
    return lines


def takes(prepared: Prepared, answer: Mapping[str, Any], row: Row) -> list[str]:
    size = prepared.sizes[row.path.models[-1]]
    latency = answer["best"]["latency_ms"]
    measured = "not measured" if latency is None else f"{latency:.3g} ms an image, one at a time, where it was trained"
    return [
        f"- parameters: {size.parameters:,}",
        f"- FLOPs of an image: {size.flops:,}",
        f"- latency: {measured}{f' ({plain(row.device)})' if row.device and latency is not None else ''}",
    ]


def origin(prepared: Prepared, row: Row) -> list[str]:
    """The stages of its path as they were trained."""
    stage, study = row.stage, prepared.study
    losses = ", ".join(str(term) for term in stage.distill) or "none: it learnt alone"
    recipe = json.dumps(json.loads(stage.recipe.model_dump_json(exclude_defaults=True)), ensure_ascii=False)
    return [
        f"- path: {plain(arrow(row.path.models))}, seed {row.seed}; the stage is `{row.key}`",
        f"- model: {plain(str(stage.model.detector))} on {plain(str(stage.model.backbone))}",
        f"- data: `{plain(without_secrets(str(study.data)))}`, fingerprint `{stage.data.fingerprint}`",
        f"- classes: {plain(', '.join(stage.data.classes[:20]))}{', ...' if len(stage.data.classes) > 20 else ''}",
        f"- losses: {plain(losses)}",
        f"- recipe, where it differs from the defaults: `{plain(recipe)}`",
        f"- SHA-256 of the weights: `{row.sha256}`",
    ]


def terms(prepared: Prepared, answer: Mapping[str, Any]) -> list[str]:
    """Of all weights that models of the path began from, and of the data."""
    study = prepared.study
    lines = list(_begun(prepared, answer["best"]["path"]))
    began = lines or ["- weights: all of this path began at random, none are anybody else's"]
    return [*began, f"- data, {study.data.name}: {licences.of_data(study.data.name)}"]


def _begun(prepared: Prepared, path: Sequence[str]) -> Iterator[str]:
    for name in path:
        source = prepared.study.models[name].weights
        if source is not None:
            yield f"- weights that {plain(name)} began from, {plain(str(source))}: {licences.of_weights(source.file)}"


def usage(address: str) -> list[str]:
    registered = address.startswith(REGISTERED)
    python = f'`mlflow.pyfunc.load_model("{address}").predict(["image.jpg"])` gives boxes, scores and classes.'
    return [
        "```",
        f"tapath predict {address} IMAGES --out found   # boxes drawn, and COCO's results",
        f"tapath export {address} --format onnx         # runs without tapath and torch",
        *([f"mlflow models serve -m {address} --env-manager local"] if registered else []),
        "```",
        *(["", f"In Python, {python}"] if registered else []),
    ]
