"""No password or token of an address survives in any text."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.masking import LONGEST, public


def test_credentials_are_taken_out_of_any_text() -> None:
    assert public("postgresql+psycopg://me:p@ss@db:5432/x") == "postgresql+psycopg://db:5432/x"
    assert public("see http://a:b@one/x and s3://k:v@two/y") == "see http://one/x and s3://two/y"
    assert (
        public("postgresql://db/x?user=me&password=pw&sslmode=on")
        == "postgresql://db/x?user=***&password=***&sslmode=on"
    )
    assert public("https://blob/x?sv=1&X-Amz-Signature=abc") == "https://blob/x?sv=1&X-Amz-Signature=***"
    assert public("me@host, 3 > 2: http://host/a@b") == "me@host, 3 > 2: http://host/a@b"


@given(
    user=st.text("abcXYZ09._%+-:@!", min_size=1),
    password=st.text("abcXYZ09._%+-:@!", min_size=1),
    around=st.text("abc ,.()\n", max_size=10),
)
def test_no_password_survives(user: str, password: str, around: str) -> None:
    assert public(f"{around} https://{user}:{password}@host/path {around}") == f"{around} https://host/path {around}"


@given(
    user=st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"], exclude_characters="/:"), min_size=1),
    password=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1),
)
@example(user="me", password="12/x")
@example(user="me", password='1/"x')
@example(user="me", password="1/x@2/y://z")
def test_no_password_of_a_database_survives_whatever_is_in_it(user: str, password: str) -> None:
    """Also where nobody has written it as a URI wants it."""
    assert public(f"see postgresql://{user}:{password}@db:5432/x, and") == "see postgresql://db:5432/x, and"


def test_long_values_are_cut() -> None:
    assert len(public("x" * 100_000)) == LONGEST
