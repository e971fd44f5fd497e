import pytest

from django_taskkit.doctor.redis import RedisFacts, eviction, memory, persistence, redis, stranded


@pytest.mark.parametrize(
    ("policy", "maxmemory", "level"),
    [
        ("noeviction", 0, "ok"),
        ("noeviction", 100, "ok"),
        ("allkeys-lru", 0, "warning"),
        ("allkeys-lru", 100, "error"),
        ("allkeys-random", 100, "error"),
        ("volatile-ttl", 100, "warning"),
    ],
)
def test_a_policy_that_deletes_messages_is_an_error_once_memory_has_a_limit(policy, maxmemory, level):
    assert eviction({"maxmemory_policy": policy, "maxmemory": maxmemory}).level.value == level


def test_a_policy_that_is_not_told_is_unknown():
    assert eviction({}).level.value == persistence(RedisFacts()).level.value == "unknown"


@pytest.mark.parametrize(
    ("aof", "save", "level"),
    [(1, "", "ok"), (1, None, "ok"), (0, "3600 1", "warning"), (0, None, "warning"), (0, "", "error")],
)
def test_what_is_not_written_to_disk_is_told(aof, save, level):
    assert persistence(RedisFacts(info={"aof_enabled": aof}, save=save)).level.value == level


@pytest.mark.parametrize("failed", ["aof_last_write_status", "rdb_last_bgsave_status"])
def test_a_disk_that_takes_nothing_is_an_error(failed):
    found = persistence(RedisFacts(info={"aof_enabled": 1, failed: "err"}, save=""))

    assert found.level.value == "error"
    assert failed in found.text


@pytest.mark.parametrize(("used", "limit", "level"), [(100, 0, "ok"), (89, 100, "ok"), (90, 100, "error")])
def test_memory_that_is_nearly_used_up_is_an_error(used, limit, level):
    assert memory({"used_memory": used, "maxmemory": limit}).level.value == level


def test_stranded_lists_are_named_by_number_and_key():
    assert stranded({}).level.value == "ok"
    assert "5 messages" in stranded({"q\x06\x165": 2, "q\x06\x164": 3}).text


def test_on_another_broker_there_is_nothing_to_say_of_redis(site):
    assert list(redis(site)) == []
