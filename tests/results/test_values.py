"""How a value lies in a cache."""

from __future__ import annotations

from django_taskkit.results.values import Kept, pack, unpack


def test_a_value_of_a_cache_that_writes_json_or_msgpack_is_one():
    """django-redis with its JSONSerializer or MSGPackSerializer gives a list for a tuple."""
    kept = Kept({"rows": 3}, 1.0, "id", 300, {})

    assert unpack(list(pack(kept))) == kept
