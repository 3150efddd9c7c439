"""Which notices decode must and may have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

Key = tuple[int, int]  # tag, and epoch of the prefill side


class Notices:
    """Of one life of decode. Counts, as the order between writes is not promised."""

    def __init__(self) -> None:
        self._due: Counter[Key] = Counter()  # of writes that succeeded
        self._possible: Counter[Key] = Counter()  # of writes that may have been too late to stop
        self._seen: Counter[Key] = Counter()

    def succeeded(self, key: Key) -> None:
        self._due[key] += 1

    def may_have_come(self, key: Key) -> None:
        self._possible[key] += 1

    def take(self, found: Iterable[Key], under_way: Counter[Key]) -> None:
        """Notices that decode has polled, while these writes were under way."""
        self._seen.update(found)
        for key, count in self._seen.items():
            most = self._due[key] + self._possible[key] + under_way[key]
            assert count <= most, (
                f"{count} notices with tag {key[0]} of epoch {key[1]:#x}, of at most {most}"
            )

    def missing(self) -> dict[Key, int]:
        """What has to come yet."""
        return {
            key: count - self._seen[key]
            for key, count in self._due.items()
            if count > self._seen[key]
        }

    def forget(self, *, tag: int | None = None, epoch: int | None = None) -> None:
        """Those of this tag, or of this epoch, that decode has not seen will never be seen."""
        for key in {*self._due, *self._possible, *self._seen}:
            if tag in (None, key[0]) and epoch in (None, key[1]):
                self._due[key] = self._seen[key]
                self._possible[key] = 0
