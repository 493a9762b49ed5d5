"""Group membership as a state machine: no sockets, no clock."""

from kio.schema.errors import ErrorCode

from millstream.log.group import Group

RANGE = [("range", b"subscription")]


def joined(group, member="a", now=0.0):
    return group.join(member, RANGE, "consumer", 10.0, now)


def test_one_member_joins_leads_and_gets_its_own_assignment():
    group = Group()
    answer = joined(group)
    assert (answer.error, answer.generation, answer.protocol) == (ErrorCode.none, 1, "range")
    assert group.sync("a", 1, b"all of it", 1.0) == (ErrorCode.none, b"all of it")
    assert group.check("a", 1, 2.0) is ErrorCode.none


def test_a_second_member_stands_by_until_the_first_leaves():
    group = Group()
    joined(group)
    assert joined(group, "b", 1.0).error is ErrorCode.coordinator_load_in_progress
    assert group.leave("a") is ErrorCode.none
    assert joined(group, "b", 2.0).generation == 2


def test_a_silent_member_is_dropped_after_its_session():
    group = Group()
    joined(group)
    group.check("a", 1, 9.0)
    assert joined(group, "b", 18.0).error is ErrorCode.coordinator_load_in_progress
    assert joined(group, "b", 19.0).error is ErrorCode.none
    assert group.check("a", 1, 19.5) is ErrorCode.unknown_member_id


def test_a_rejoin_makes_the_old_generation_illegal():
    group = Group()
    joined(group)
    joined(group)
    assert group.check("a", 1, 1.0) is ErrorCode.illegal_generation


def test_who_is_no_member_may_commit_only_to_an_empty_group():
    group = Group()
    assert group.empty(0.0)
    joined(group)
    assert not group.empty(5.0)
    assert group.empty(10.0)


def test_a_join_without_protocols_and_a_strangers_leave_are_refused():
    group = Group()
    assert group.join("a", [], "consumer", 10.0, 0.0).error is ErrorCode.inconsistent_group_protocol
    assert group.leave("stranger") is ErrorCode.unknown_member_id
