"""What decode remembers of revocations: enough, and no more, whoever says hello how often."""

from __future__ import annotations

from rdma_kv._revocation import Revocations


def test_the_latest_lives_of_a_name_are_known():
    revocations = Revocations()
    revocations.on_hello("other", 1)

    for epoch in range(1000, 2000):
        revocations.on_hello("one", epoch)

    assert revocations.epochs_of("one") == set(range(1936, 2000))
    assert revocations.epochs_of("other") == {1}
    assert revocations.epochs_of("nobody") == set()


def test_a_life_that_says_hello_again_is_not_forgotten_before_others():
    revocations = Revocations()

    for epoch in range(200):
        revocations.on_hello("one", 7777)
        revocations.on_hello("one", epoch)

    assert 7777 in revocations.epochs_of("one")


def test_names_without_end_are_forgotten_oldest_first():
    revocations = Revocations()

    for number in range(5000):
        revocations.on_hello(f"name {number}", number)

    assert revocations.epochs_of("name 903") == set()
    assert revocations.epochs_of("name 904") == {904}


def test_who_is_sent_away_is_so_until_it_is_back():
    revocations = Revocations()
    for epoch in range(5000):
        revocations.send_away(epoch)

    revocations.on_hello("one", 4999)
    assert revocations.is_sent_away(4999)
    revocations.on_back(4999)

    assert not revocations.is_sent_away(4999)
    assert revocations.is_sent_away(904)
    assert not revocations.is_sent_away(903)
