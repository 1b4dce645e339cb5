"""Leases: one owner at a time, fenced by an epoch that never restarts."""

from __future__ import annotations

import dataclasses
import threading

from nanotasks import faults
from nanotasks.central import Database, leases
from nanotasks.owners import Owner, this_owner
from nanotasks.settings import Settings

ME = this_owner("h1")
DEAD = dataclasses.replace(ME, pid=2**22 - 3, start_time=1)
FOREIGN = Owner("h2", "other-boot", 1, 1)


def test_a_free_lease_is_claimed_once(central: Database) -> None:
    """The second claimer of a held lease gets nothing."""
    held = leases.claim(central, "a", ME, 30)
    assert held is not None and held.epoch == 1
    assert leases.claim(central, "a", FOREIGN, 30) is None


def test_the_epoch_survives_a_release(central: Database) -> None:
    """A released and claimed lease goes on counting, so that stale owners are told apart."""
    held = leases.claim(central, "a", ME, 30)
    assert held and leases.release(central, held)
    again = leases.claim(central, "a", ME, 30)
    assert again and again.epoch == 2


def test_an_expired_lease_is_taken_over(central: Database) -> None:
    """After its time a lease is anybody's, and its old owner can neither renew nor release."""
    stale = leases.claim(central, "a", FOREIGN, 0)
    assert stale
    taken = leases.claim(central, "a", ME, 30)
    assert taken and taken.epoch == 2
    assert not leases.renew(central, stale, 30)
    assert not leases.release(central, stale)
    assert leases.renew(central, taken, 30)


def test_an_owner_that_took_its_lease_anew_holds_the_new_one_only(central: Database) -> None:
    """One process, stopped in one step and active in another: the epoch tells its two ownerships apart."""
    before = leases.claim(central, "a", ME, 0)
    now = leases.claim(central, "a", ME, 30)
    assert before and now
    assert not leases.renew(central, before, 30)
    assert not leases.release(central, before)
    assert leases.renew(central, now, 30)


def test_the_leases_of_a_host_that_is_gone_are_freed(central: Database) -> None:
    """Its own release, when it comes back, changes nothing; and the defaults keep the time that is promised."""
    held = leases.claim(central, "a", FOREIGN, 3600)
    assert held and leases.claim(central, "b", ME, 3600)
    assert leases.free_of_hosts(central, [FOREIGN.host]) == ["a"]
    assert leases.free_of_hosts(central, []) == []
    mine = leases.claim(central, "a", ME, 30)
    assert mine and mine.epoch == held.epoch + 1
    assert not leases.renew(central, held, 30)
    assert not leases.release(central, held)
    assert Settings().host_timeout_s + Settings().sweep_hosts_period_s <= 35


def test_a_release_that_the_database_refuses_is_tried_again(central: Database) -> None:
    """Its owner lives, so nobody else would take the lease before it runs out."""
    with leases.holding(central, "a", ME, 3600) as held:
        assert held
        switch = faults.armed("central.begin:1:busy")
        switch.__enter__()
    switch.__exit__(None, None, None)
    assert leases.claim(central, "a", FOREIGN, 30)


def test_what_nobody_takes_over_is_freed(central: Database) -> None:
    """Leases of dead processes of this host and those that ran out; not those of others, and the epochs stay."""
    for name, owner, ttl_s in (("dead", DEAD, 3600), ("late", FOREIGN, 0), ("far", FOREIGN, 3600), ("mine", ME, 30)):
        assert leases.claim(central, name, owner, ttl_s)
    assert sorted(leases.free_abandoned(central, ME)) == ["dead", "late"]
    assert leases.free_abandoned(central, ME) == []
    again = leases.claim(central, "late", ME, 30)
    assert again and again.epoch == 2


def test_a_dead_owner_on_this_host_is_replaced_at_once(central: Database) -> None:
    """A process that runs no more voids its lease without waiting for the expiry."""
    assert leases.claim(central, "a", DEAD, 3600)
    assert leases.claim(central, "a", ME, 30)


def test_a_foreign_owner_is_never_called_dead(central: Database) -> None:
    """Nothing is known about processes of another host: only time voids their leases."""
    assert leases.claim(central, "a", FOREIGN, 3600)
    assert leases.claim(central, "a", ME, 30) is None


def test_holding_releases_when_the_block_raises(central: Database) -> None:
    """A failure inside the block does not keep the lease."""
    try:
        with leases.holding(central, "a", ME, 30) as held:
            assert held
            raise ValueError
    except ValueError:
        pass
    assert leases.claim(central, "a", FOREIGN, 30)


def test_of_many_claimers_one_wins(central: Database) -> None:
    """Concurrent claims of a new name end with exactly one owner."""
    barrier = threading.Barrier(8)
    won: list[int] = []

    def race(number: int) -> None:
        barrier.wait()
        if leases.claim(central, "race", Owner(f"h{number}", "b", number, 1), 30):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
