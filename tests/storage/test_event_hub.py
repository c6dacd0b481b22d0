import asyncio

import pytest

from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.errors import ResyncError
from caterva2_jupyter.storage.event_hub import EventHub


def batch(seq, nevents=1):
    return EventBatch("foo", "e", seq, seq, (Event("delete", "a"),) * nevents)


def test_every_listener_gets_every_batch_in_order():
    async def scenario():
        hub = EventHub()
        with hub.listen() as one, hub.listen() as other:
            for seq in range(3):
                hub.publish(batch(seq))
            for listener in (one, other):
                assert [(await listener.get()).seq for _ in range(3)] == [0, 1, 2]

    asyncio.run(scenario())


def test_a_listener_waits_for_what_comes():
    async def scenario():
        hub = EventHub()
        with hub.listen() as listener:
            waiting = asyncio.create_task(listener.get())
            await asyncio.sleep(0)
            hub.publish(batch(1))
            assert (await waiting).seq == 1

    asyncio.run(scenario())


def test_a_listener_that_waits_in_vain_gets_nothing():
    async def scenario():
        with EventHub().listen() as listener:
            assert await listener.get(timeout_s=0.01) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("nevents", [1, 10])
def test_a_slow_listener_loses_its_queue_and_the_others_nothing(nevents):
    async def scenario():
        hub = EventHub(max_batches=5, max_events=50)
        with hub.listen() as slow, hub.listen() as quick:
            for seq in range(8):
                hub.publish(batch(seq, nevents))
                assert (await quick.get()).seq == seq
            with pytest.raises(ResyncError):
                await slow.get()
            assert await slow.get(timeout_s=0.01) is None
            hub.publish(batch(9))
            assert (await slow.get()).seq == 9

    asyncio.run(scenario())


def test_all_listeners_can_be_told_to_list_again():
    async def scenario():
        hub = EventHub()
        with hub.listen() as listener:
            hub.publish(batch(1))
            hub.resync()
            with pytest.raises(ResyncError):
                await listener.get()

    asyncio.run(scenario())


def test_a_closed_listener_is_forgotten():
    async def scenario():
        hub = EventHub()
        with hub.listen():
            assert hub.nlisteners == 1
        assert hub.nlisteners == 0
        hub.publish(batch(1))

    asyncio.run(scenario())
