"""How long records have been held back by a transaction that somebody left open."""

from consumer.broker.open_transactions import WithheldRecords


def test_nothing_is_held_back_while_everything_can_be_read() -> None:
    """A log that grows and is stable to its end."""
    withheld = WithheldRecords()
    assert {withheld.seconds(end=n, stable=n, now=n) for n in range(100)} == {0.0}


def test_transaction_that_stays_open_ages() -> None:
    """From the first look at which a record was behind the stable offset."""
    withheld = WithheldRecords()
    ages = [withheld.seconds(end=10 + n, stable=10, now=float(n)) for n in range(1, 100)]
    assert ages == [float(n) for n in range(99)]


def test_transactions_that_end_are_no_fault() -> None:
    """A producer whose transactions take two seconds each, for ever."""
    withheld = WithheldRecords()
    ages = [withheld.seconds(end=n + 1, stable=n - n % 2, now=float(n)) for n in range(100)]
    assert max(ages) < 3


def test_overlapping_transactions_are_as_old_as_the_records_behind_them() -> None:
    """Each ends, and one that was begun meanwhile holds back what has long been there."""
    withheld = WithheldRecords()
    # Every 800 s the stable offset moves by 800 records, to the next transaction.
    ages = [
        withheld.seconds(end=t + 1, stable=max(0, (t // 800 - 1) * 800), now=float(t))
        for t in range(8000)
    ]
    assert min(ages[801:]) > 700


def test_memory_is_bounded() -> None:
    """A transaction that is open for a day, on a topic that grows."""
    withheld = WithheldRecords()
    for second in range(86_400):
        age = withheld.seconds(end=second + 1, stable=0, now=float(second))
    assert age == 86_399
    assert len(withheld._ends) <= 1001
