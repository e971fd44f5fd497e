"""The fixture and its mark; whole projects that use them are in test_projects.py."""

import pytest

from django_taskkit.testing import EndlessError, NestedError, inline_worker


@pytest.fixture
def again(app):
    @app.task(name="shop.again")
    def again(times):
        if times:
            again.delay(times - 1)

    return again


@pytest.mark.taskkit(limit=5, eager=True)
class TestMarked:
    def test_a_mark_gives_the_options(self, again, taskkit):
        again.delay(4)

        assert len(taskkit.ran) == 5
        with pytest.raises(EndlessError):
            again.delay(5)

    @pytest.mark.taskkit(eager=False)
    def test_the_nearest_mark_wins_and_the_others_add_to_it(self, again, taskkit):
        again.delay(5)

        assert taskkit.ran == []
        with pytest.raises(EndlessError):
            taskkit.run()


def test_without_a_mark_messages_wait(again, taskkit):
    again.delay(0)

    assert len(taskkit.waiting) == 1


def test_the_fixture_is_a_block_like_others(app, taskkit):
    with pytest.raises(NestedError, match="plugin.py"), inline_worker():
        pass
