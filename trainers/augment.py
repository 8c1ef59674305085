"""How an image is resized and cut, as a recipe says it: values alone, without images.

Lengths are pixels. What is drawn at random is drawn for each image and epoch.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, GetPydanticSchema, Tag, model_validator

from trainers.call import Count, Fraction, Spec


def _each_once(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("write at least one length, each once, as in [480, 640, 800]")
    return values


def _rising(values: tuple[int, int]) -> tuple[int, int]:
    if values[0] >= values[1]:
        raise ValueError("write the smaller length first, as in [480, 800]; one that is not drawn is a number alone")
    return values


class OneOf(Spec):
    """Lengths of which each is as likely as the others."""

    one_of: Annotated[tuple[Count, ...], AfterValidator(_each_once)]


def _form(value: Any) -> str | None:
    if isinstance(value, dict | OneOf):
        return "choice"
    return {int: "number", float: "number", list: "range", tuple: "range"}.get(type(value))


# A length; one drawn from a range, both ends included; or one of several.
Length = Annotated[
    Annotated[Count, Tag("number")]
    | Annotated[tuple[Count, Count], AfterValidator(_rising), Tag("range")]
    | Annotated[OneOf, Tag("choice")],
    Discriminator(
        _form,
        custom_error_type="length",
        custom_error_message="write a number of pixels, a range as in [480, 800], or {one_of: [480, 640, 800]}",
    ),
]


def lengths(length: Length) -> tuple[int, int]:
    """The smallest and the largest that can be drawn."""
    if isinstance(length, OneOf):
        return min(length.one_of), max(length.one_of)
    return length if isinstance(length, tuple) else (length, length)


def drawn(length: Length, chance: float) -> int:
    """The length that a random number of [0, 1) stands for, each as likely as the others."""
    if isinstance(length, OneOf):
        return length.one_of[drawn_between(0, len(length.one_of) - 1, chance)]
    return drawn_between(*lengths(length), chance)


def drawn_between(low: int, high: int, chance: float) -> int:
    """The whole number that a random number of [0, 1) stands for, both ends included."""
    return low + int(chance * (high - low + 1))


class Resize(Spec):
    """Until the short side is right, or the long side as long as it may be; the ratio of the sides is kept."""

    short: Length
    long: Count  # the most that the long side may have

    @model_validator(mode="after")
    def _short_is_shorter(self) -> Resize:
        largest = lengths(self.short)[1]
        if largest > self.long:
            raise ValueError(
                f"the short side, {largest}, would be longer than the long side may be, {self.long}; "
                "write the short side first, as in [800, 1333]"
            )
        return self

    @property
    def largest(self) -> Resize:
        """The same without chance: the short side as long as it may be drawn. So images are measured."""
        return Resize(short=lengths(self.short)[1], long=self.long)


def _pair(value: tuple[Length, int]) -> Resize:
    return Resize(short=value[0], long=value[1])


_EITHER = Annotated[
    Annotated[tuple[Length, Count], AfterValidator(_pair), Tag("pair")] | Annotated[Resize, Tag("mapping")],
    Discriminator(
        lambda value: {list: "pair", tuple: "pair", dict: "mapping", Resize: "mapping"}.get(type(value)),
        custom_error_type="resize",
        custom_error_message="write [short, long] as in [800, 1333], or {short: [480, 800], long: 1333}",
    ),
]
# `[short, long]` or `{short: , long: }`: the same value however it is written.
Resizing = Annotated[Resize, GetPydanticSchema(lambda _, handler: handler.generate_schema(_EITHER))]


class Crop(Spec):
    """Before it is resized, some images are: resized by their short side, then cut to a random window.

    What the recipes of DETR and Swin do for every second image. Carion et al., "End-to-End Object Detection with
    Transformers", ECCV 2020, https://arxiv.org/abs/2005.12872; Liu et al., "Swin Transformer", ICCV 2021,
    https://arxiv.org/abs/2103.14030. The long side is held to what `Resize` allows, as Swin's recipe has it.
    """

    short: Length  # of the image before it is cut
    size: Annotated[tuple[Count, Count], AfterValidator(_rising)]  # of the window's sides, each drawn for itself
    chance: Annotated[Fraction, Field(gt=0)] = 0.5

    @model_validator(mode="after")
    def _window_lies_in_the_image(self) -> Crop:
        shortest = lengths(self.short)[0]
        if self.size[0] > shortest:
            raise ValueError(
                f"the smallest window, {self.size[0]}, is larger than the short side of an image before it is cut, "
                f"{shortest}: nothing would be cut from it; write a smaller first number of `size`"
            )
        return self


def misfit(resize: Resize | None, crop: Crop | None) -> str:
    """Why both cannot be in one recipe; empty if they can."""
    if crop is None:
        return ""
    if resize is None:
        return "what is cut has no size of its own; write resize: too, as in [800, 1333]"
    short = lengths(crop.short)[1]
    if short > resize.long:
        return (
            f"the short side before an image is cut, {short}, is longer than resize lets the long one be, {resize.long}"
        )
    return ""
