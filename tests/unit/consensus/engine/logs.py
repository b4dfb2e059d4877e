"""Logs of which only the terms matter."""

from raftnode.consensus.engine.messages import WireEntry


class TermsLog:
    """A log given as the terms of its entries from `first_index` on."""

    def __init__(self, terms: list[int], first_index: int = 1) -> None:
        self.terms = terms
        self.first_index = first_index
        self.last_index = first_index + len(terms) - 1
        self.last_term = terms[-1]

    def term_at(self, index: int) -> int | None:
        return self.terms[index - self.first_index] if self.first_index <= index <= self.last_index else None


def entries(terms: list[int], after: int) -> tuple[WireEntry, ...]:
    """Entries of these terms behind the index `after`."""
    return tuple((b"\x00%d/%d" % (index, term), index, term) for index, term in enumerate(terms, start=after + 1))
