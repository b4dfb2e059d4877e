"""How far all copies of a destination have what one of them was sent."""

from raftnode.documents.replication import settled as module
from raftnode.documents.replication.sender import ReceiverState
from raftnode.documents.replication.settled import SettledPlaces


def says(last_etag: int, settled_etag: int) -> ReceiverState:
    return ReceiverState("d", 0, "", last_etag, settled_etag, f"D:{settled_etag}")


def test_a_place_is_settled_once_all_have_what_the_one_had_then() -> None:
    places = SettledPlaces()
    places.told(10, says(100, 90))
    assert (places.etag, places.pending) == (0, True)
    places.told(20, says(110, 100))
    assert (places.etag, places.change_vector, places.pending) == (10, "D:100", True)
    places.asked(says(115, 115))
    assert (places.etag, places.change_vector, places.pending) == (20, "D:115", False)


def test_a_copy_that_is_down_for_long_costs_little_memory() -> None:
    places = SettledPlaces()
    for n in range(1, 3 * module.PLACES_MAX):
        places.told(n, says(n, 0))
        assert len(places._pending) <= module.PLACES_MAX
    places.asked(says(5000, 5000))
    assert (places.etag, places.pending) == (3 * module.PLACES_MAX - 1, False)
