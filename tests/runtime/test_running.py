"""The memory of calls, which come and go while some of it is let go of."""

from dataclasses import dataclass

from lucid.codegen.target import Target
from lucid.runtime.running import Runner


@dataclass
class Room:
    """A workspace with so many bytes of arena; when it is looked at, a call takes another."""

    arena: int
    runner: Runner | None = None
    taken: "Room | None" = None

    @property
    def capacity(self) -> tuple[int, int]:
        if self.runner is not None:
            self.taken = self.runner.free.pop()
        return self.arena, 0


def test_what_is_larger_is_let_go() -> None:
    runner = Runner(Target.host(), 1)
    small, large = Room(5), Room(6)
    runner.free = [small, large, small]
    runner.trim(5)
    assert runner.free == [small, small]


def test_nobody_else_gets_what_a_call_has_taken_meanwhile() -> None:
    runner = Runner(Target.host(), 1)
    first, second = Room(5), Room(5, runner)
    runner.free = [first, second]
    runner.trim(5)
    assert second.taken is first
    assert runner.free == [second]
