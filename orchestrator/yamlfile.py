"""YAML as plain data, with the line of every key. No tag is obeyed, no object built, no variable expanded."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator import scalar
from orchestrator.document import Document, Where, located, printable
from trainers.call import Invalid

YAML = (".yaml", ".yml")  # ends of the names of studies, and of no weights
BYTES = 1_000_000  # of a file
EVENTS = 20_000  # values, and ends of lists and mappings, with every alias written out
DEPTH = 32
# What YAML takes for something else, or once did, and what is refused as a number.
WORDS = ("true", "false", "null", "yes", "no", "on", "off", "nan", "inf", "infinity")
TOO_MUCH = f"this is too much: at most {EVENTS // 2:,} values, {DEPTH} deep"


def read(file: Path) -> Document:
    """The document in a file. Raises `Invalid` with file, line and key for whatever is not plain YAML."""

    def refusal(message: str) -> Invalid:
        return Invalid(printable(f"{file}: {message}"))

    try:
        with file.open("rb") as stream:
            raw = stream.read(BYTES + 1)
    except FileNotFoundError:
        raise refusal(f"there is no such file{_near(file)}") from None
    except IsADirectoryError:
        raise refusal("this is a folder; name a YAML file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise refusal(f"cannot be read: {error}") from None
    if len(raw) > BYTES:
        raise refusal(f"this is larger than {BYTES:,} bytes; a study is a few kilobytes of text")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Invalid(printable(f"{file}:{line}: this is not UTF-8; save it as UTF-8 text")) from None
    return parse(text, str(file))


def parse(text: str, source: str, *, numbered: bool = True) -> Document:
    """The document in a text. `source` names it in errors, with the line unless `numbered` is false."""

    def place(line: int) -> str:
        return f"{source}:{line + 1}" if numbered else source

    tree = _Tree(place, source)
    try:
        return Document(source, text, tree.read(text), tree.places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        message = f"{place(mark.line)}: not YAML at column {mark.column + 1}: {_problem(error)}"
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        message = f"{place(line)}: the character U+{ord(text[error.position]):04X} has no place here; remove it"
    except Invalid as mistake:
        message = f"{tree.here}: {located(mistake)}"
    except (
        ValueError,
        OverflowError,
    ) as error:  # PyYAML's own, on "\UFFFFFFFF" and on absurd version numbers
        message = f"{tree.here}: not YAML: {error}"
    raise Invalid(printable(message))


@dataclass
class _Tree:
    """YAML's events -> values. An alias is replaced by the events of what it names, so no value is shared."""

    place: Callable[[int], str]
    here: str  # the place of what is being read
    places: dict[Where, str] = field(default_factory=dict)
    events: list[yaml.Event] = field(default_factory=list)  # those to come, the next one last

    def read(self, text: str) -> Any:
        """The value of the one document in a text; None when there is none."""
        self.events = self.expanded(text)[::-1]
        return self.value((), self.next()) if self.events else None

    def expanded(self, text: str) -> list[yaml.Event]:
        """The events of all values, each alias replaced."""
        found: list[yaml.Event] = []
        opened: list[tuple[str | None, int]] = []  # the collections around: anchor, and where they start
        anchors: dict[str, slice] = {}
        documents = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            self.look(event)
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise Invalid("a second document starts here; a file holds one, so remove the ---")
            if isinstance(event, yaml.AliasEvent):
                name = event.anchor or ""
                if name not in anchors:
                    raise Invalid(f"*{name:.100} names nothing that ends before it; write the value out")
                found += found[anchors[name]]
            elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
                if event.tag is not None:
                    raise Invalid(f"the tag {event.tag:.100} is not obeyed; write plain values")
                opened.append((event.anchor, len(found)))
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent | yaml.CollectionEndEvent):
                found.append(event)
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent):
                anchor, start = opened.pop()
                if anchor is not None:
                    anchors[anchor] = slice(start, len(found))
            if len(found) > EVENTS or len(opened) > DEPTH:
                raise Invalid(f"{TOO_MUCH}, with every alias written out")
        return found

    def next(self) -> yaml.Event:
        event = self.events.pop()
        self.look(event)
        return event

    def look(self, event: yaml.Event) -> None:
        assert event.start_mark is not None
        self.here = self.place(event.start_mark.line)

    def value(self, where: Where, event: yaml.Event) -> Any:
        """The value that starts with this event."""
        if len(where) > DEPTH:
            raise Invalid(f"{TOO_MUCH}, with every alias written out", where)
        self.places[where] = self.places.get(where, self.here)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(where)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(where)
        assert isinstance(event, yaml.ScalarEvent)
        try:
            return scalar.value(event.value, plain=event.style is None)
        except Invalid as mistake:
            raise mistake.under(*where) from None

    def sequence(self, where: Where) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            found.append(self.value((*where, len(found)), event))
        return found

    def mapping(self, where: Where) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise Invalid("a key must be a word, not a list or a mapping", where)
            try:
                key = scalar.key(event.value, plain=event.style is None)
            except Invalid as mistake:
                raise mistake.under(*where) from None
            here = (*where, key)
            if key in found:
                raise Invalid(f"this key is here twice, first at {self.places[here]}; remove one", here)
            self.places[here] = self.here
            found[key] = self.value(here, self.next())
        return found


def written(tree: Any) -> str:
    """Plain data as YAML that `parse` reads as the same: short lists and mappings on one line, in their order."""
    text: str = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    return text


def flow(value: Any) -> str:
    """A value in YAML on one line; words in quotes, so that none is taken for something else."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.items()) + "}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    plain = isinstance(value, str) and value.isidentifier() and value.lower() not in WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = ", ".join(filter(None, (error.context, error.problem)))
    return f"{problem}; indent with spaces, not tabs" if "'\\t'" in problem else problem


def _near(file: Path) -> str:
    names = [path.name for suffix in YAML for path in file.parent.glob(f"*{suffix}")]
    near = difflib.get_close_matches(file.name, names, n=1)
    return f"; did you mean {file.parent / near[0]}?" if near else f" (from {Path.cwd()})"
