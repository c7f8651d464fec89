"""What is left, reason by reason."""

from finetune.corpus.entries import Skip
from finetune.corpus.funnel import REASONS, make_funnel


def skip(reason: str, num_bytes: int) -> Skip:
    return Skip(repo="r", path="p", reason=reason, num_bytes=num_bytes)


def test_rows_come_in_the_order_of_the_steps_and_add_up():
    skipped = [
        skip("near-duplicate", 7), skip("symlink", 0), skip("too-large", 90), skip("too-large", 10),
        skip("binary", 5),
    ]  # fmt: skip

    rows = [tuple(row.values()) for row in make_funnel([20, 30], skipped)]

    assert rows == [
        ("", 7, 162, 7, 162),
        ("symlink", 1, 0, 6, 162),
        ("binary", 1, 5, 5, 157),
        ("too-large", 2, 100, 3, 57),
        ("near-duplicate", 1, 7, 2, 50),
    ]


def test_no_reason_has_two_places():
    assert len(set(REASONS)) == len(REASONS)
    assert REASONS.index("syntax-errors") < REASONS.index("secret") < REASONS.index("duplicate")
