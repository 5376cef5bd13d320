"""Which candidates the pool has already, in other words or the same, or of whose template it has enough.

    >>> pool = Entry.of("Ann has 3 apples and buys 4. How many?", "7", known=True)
    >>> new = Entry.of("ann has 3 apples and buys 4; how many", "7", order="r-1")
    >>> find_duplicates([new, pool], DuplicateSettings())
    {'r-1': Finding(reason='duplicate', evidence='p-...', similarity=1.0)}

There are two passes, and each falls apart into groups that do not know of each other, so each can be
shared out over any number of workers: `check_texts` needs all entries of one template together,
`check_similar` all survivors with the same quantities and answer. What is found depends on the entries
alone, never on their number of groups or the order in which they were read: known problems come first, then
candidates by their ``order``. A candidate is only compared with problems that are kept. Chains, in which each
text is like the next and the last is like nothing, therefore do not grow into one heap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple, Self

from fdd_ray.curation.folding import Folded, fold
from fdd_ray.curation.quantities import read_quantities
from fdd_ray.curation.similarity import SimilarTexts
from fdd_ray.records import problem_id
from fdd_ray.settings import setting

DuplicateReason = Literal["exact_duplicate", "duplicate", "template_cap", "near_duplicate"]


@dataclass(frozen=True)
class DuplicateSettings:
    """What counts as too much alike."""

    per_template: int = setting(8, "Problems that may share one text with different numbers, in the whole pool.", ge=1)
    similarity: float | None = setting(
        0.8,
        "Smallest similarity (Jaccard, of word triples without the numbers) at which a text with the same numbers"
        " and answer is a near duplicate; null turns near duplicates off.",
        ge=0.5,
        le=1,
    )
    max_drop_share: float = setting(
        0.5, "Largest share of a round's good new problems that may be duplicates before the run stops.", ge=0, le=1
    )
    min_candidates: int = setting(50, "Good new problems below which max_drop_share is not looked at.", ge=1)


class Finding(NamedTuple):
    """Why a candidate is dropped.

    Attributes:
        reason: ``exact_duplicate`` (the same problem id), ``duplicate`` (the same number-masked text and
            numbers), ``template_cap`` (new numbers in a text of which there are enough) or ``near_duplicate`` (a
            similar text with the same quantities and answer).
        evidence: The id of the kept problem it collided with; of a full template, the first.
        similarity: Jaccard similarity of the number-masked texts, 0 to 1.
    """

    reason: DuplicateReason
    evidence: str
    similarity: float = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A problem as the passes see it.

    Attributes:
        known: In the pool already; it is never dropped, whatever it is like.
        order: Where it stands among the candidates; no two of them share one.
        id: The problem id.
        template: The number-masked text.
        numbers: The numbers, with a space between them.
        quantities: What near duplicates must have in common: the quantities in order, and the answer.
        part: Where the finding about it is wanted; of no meaning here.
    """

    known: bool
    order: str
    id: str
    template: str
    numbers: str
    quantities: str
    part: int = 0

    @classmethod
    def of(cls, question: str, answer: str, *, order: str = "", known: bool = False, part: int = 0) -> Self:
        """The entry of a problem; the order is its problem id unless another one is given."""
        # What has one problem id has one template: both are made of the same canonical text.
        folded = fold(" ".join(question.casefold().split()))
        result = fold(answer)
        wanted = f"{' '.join(read_quantities(folded).values)} = {result.template} {' '.join(result.numbers)}"
        id = problem_id(question)
        return cls(known, order or id, id, folded.template, " ".join(folded.numbers), wanted, part)

    @property
    def folded(self) -> Folded:
        """The question in two parts."""
        return Folded(self.template, tuple(self.numbers.split()))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Known problems first, each kind by its order: the order in which the passes want them."""
    return sorted(entries, key=lambda entry: (not entry.known, entry.order))


def check_texts(entries: Iterable[Entry], settings: DuplicateSettings) -> Iterator[tuple[Entry, Finding | None]]:
    """First pass: each entry with what is wrong with it, in the order given.

    Args:
        entries: All entries of some templates, as `in_order` has them.
        settings: How many of a template are enough.
    """
    ids: set[str] = set()
    first_of_text: dict[tuple[str, str], str] = {}
    templates: dict[str, tuple[str, int]] = {}
    for entry in entries:
        text = (entry.template, entry.numbers)
        first, count = templates.get(entry.template, (entry.id, 0))
        finding: Finding | None = None
        if not entry.known:
            if entry.id in ids:
                finding = Finding("exact_duplicate", entry.id)
            elif text in first_of_text:
                finding = Finding("duplicate", first_of_text[text])
            elif count >= settings.per_template:
                finding = Finding("template_cap", first)
        if finding is None and entry.id not in ids:
            ids.add(entry.id)
            first_of_text.setdefault(text, entry.id)
            templates[entry.template] = (first, count + 1)
        yield entry, finding


def check_similar(entries: Iterable[Entry], similarity: float) -> Iterator[tuple[Entry, Finding | None]]:
    """Second pass: each survivor of the first with what is wrong with it; groups come one after the other.

    Args:
        entries: All survivors with some quantities, as `in_order` has them; known problems among them.
        similarity: Smallest Jaccard similarity of a near duplicate.
    """
    by_quantities = attrgetter("quantities")
    for _, group in groupby(sorted(entries, key=by_quantities), by_quantities):  # sorting keeps the order within
        members = list(group)
        if members[-1].known or len(members) == 1:  # nobody to judge, or nothing to compare with
            yield from ((entry, None) for entry in members)
            continue
        kept = SimilarTexts(similarity, len(members))
        for entry in members:
            like = kept.add(entry.id, read_quantities(entry.folded).text, always=entry.known)
            yield entry, None if like is None else Finding("near_duplicate", *like)


def find_duplicates(entries: Iterable[Entry], settings: DuplicateSettings) -> dict[str, Finding]:
    """Both passes over entries that fit into memory: what is found about candidates, by their order."""
    found: dict[str, Finding] = {}
    survivors: list[Entry] = []
    for entry, finding in check_texts(in_order(entries), settings):
        if finding is None:
            survivors.append(entry)
        else:
            found[entry.order] = finding
    if settings.similarity is not None:
        similar = check_similar(survivors, settings.similarity)
        found |= {entry.order: finding for entry, finding in similar if finding is not None}
    return found
