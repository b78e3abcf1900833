"""`make bench`: figures as ratios to a named peer or limit, measured in one run.

Nothing here is a test: a busy machine shows in the figures, not in a failure. One thread for the
matcher; peers are measured in turns with it, medians of the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge.clock import SystemClock
from edge.gallery import Gallery
from edge.models import FacePack, load_pack, model_id
from edge.terms import PersonId, Vector, ZoneId
from edge.wire import Consent, EnrolRequest
from enroll.desk import Desk
from enroll.desk_session import session
from enroll.home import Home
from enroll.roster.authority import Authority
from hil.demo import DOOR, PACK, Demo
from hil.rig import ZONE, Models, Rig, unit_of

ROUNDS = 40
SIZE = 512  # what real packs have; the sim pack's is smaller
PASSAGES = 20
REVOCATIONS = 100
FRAME_LIMIT_MS = 150.0  # targets.md: p95 on two cores
RECEIPT_LIMIT_MS = (10.0, 50.0)  # targets.md: p50, p99 on loopback with TLS


@dataclass(frozen=True, slots=True)
class Figure:
    what: str
    measured: float
    unit: str
    peer: str
    peer_measured: float
    target_ratio: float

    @property
    def ratio(self) -> float:
        return self.measured / self.peer_measured


def interleaved_ms(parts: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Median milliseconds of each part, measured in turns."""
    times: list[list[float]] = [[] for _ in parts]
    for _ in range(rounds):
        for part, taken in zip(parts, times, strict=True):
            began = time.perf_counter()
            part()
            taken.append((time.perf_counter() - began) * 1000)
    return [float(np.median(taken)) for taken in times]


def unit_vectors(count: int, size: int, seed: int) -> list[Vector]:
    rows = np.random.default_rng(seed).standard_normal((count, size), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return list(rows)


def matching(people: int) -> Figure:
    """Exact best person and margin among `people`, against one pass over the same matrix."""
    gallery, zone = Gallery(SIZE), ZoneId(ZONE)
    vectors = unit_vectors(people, SIZE, 1)
    for number, vector in enumerate(vectors):
        gallery.put(zone, PersonId(number.to_bytes(16, "big")), [vector])
    flat = np.stack(vectors).ravel()
    probe = vectors[people // 2]
    match_ms, read_ms = interleaved_ms([lambda: gallery.best(probe), flat.max])
    return Figure(f"match among {people}, {SIZE}-d", match_ms, "ms", "reading the matrix once",
                  read_ms, 1.75)  # fmt: skip


def passages(demo: Demo) -> list[Figure]:
    """Camera frame taken -> last unlock byte handed to the port, as the daemon reports it."""
    took: list[float] = []
    for number in range(PASSAGES):
        row, _ = demo.appear(demo.bo, 10_000 + 40 * number, "granted")
        done = demo.rig.wait_event(
            "the lock confirms", lambda r: r["kind"] == "unlocked", row["event_no"]
        )
        took.append(float(done["facts"]["frame_to_unlock_ms"]))
    return [
        Figure(f"frame -> unlock bytes, p{p}", float(np.percentile(took, p)), "ms",
               "target for p95", FRAME_LIMIT_MS, 1.0)
        for p in (50, 95)
    ]  # fmt: skip


def revocations(rig: Rig) -> list[Figure]:
    """The change at the office -> the receipt stored, one gate on loopback."""
    took: list[float] = []
    with Authority.open(Home(rig.home), SystemClock()) as office:
        _fill(office, rig)
        for number in range(REVOCATIONS):
            began_ms = time.time() * 1000
            change = office.revoke(f"B-{number}", authority_ref="bench", by="bench")
            # The office stamps the receipt itself; asking it all the time would be what we measure.
            while not (done := office.enforced(change)).complete:
                time.sleep(0.02)
            took.append(done.enforced[0][1] - began_ms)
            time.sleep(0.05)
    over = rig.broker.name + ("" if rig.broker.plain else " with TLS")
    return [
        Figure(f"revoke -> receipt over {over}, p{p}", float(np.percentile(took, p)), "ms",
               f"target for p{p}", limit, 1.0)
        for p, limit in zip((50, 99), RECEIPT_LIMIT_MS, strict=True)
    ]  # fmt: skip


def _fill(office: Authority, rig: Rig) -> None:
    """One person under each of REVOCATIONS tenancies, enrolled by the desk over the broker."""
    pack = load_pack(rig.models.face)
    assert isinstance(pack, FacePack)
    vectors = unit_vectors(REVOCATIONS, pack.embedding_size, 2)
    consent = Consent(basis="separate_written", text_version="1", at=0, by="bench", transfer=True)
    health = rig.health()
    before = int(health["people"]) if health else 0
    with session(Desk(rig.desk), SystemClock()) as desk:
        desk.sync()
        for number, vector in enumerate(vectors):
            office.add_tenancy(f"B-{number}", ZONE, unit_of(DOOR), None, None, 1)
            asked = EnrolRequest(internal_id=f"b{number}", tenancy=f"B-{number}", consent=consent)
            desk.enrol(ZONE, asked, [vector], model_id(pack))

    def there() -> bool:
        now = rig.health()
        return now is not None and int(now["people"]) >= before + REVOCATIONS

    rig.wait("the gate has all templates", there)


def measure(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    figures = []
    for people in (10_000, 50_000):
        say(f"matching among {people} ...")
        figures.append(matching(people))
    say("building a gate with everything around it ...")
    with Rig(folder, Models(PACK, PACK / "pad"), [DOOR]) as rig:
        demo = Demo(rig, say)
        demo.cast()
        demo.enrolled("bo", demo.bo, 300)
        say(f"{PASSAGES} passages ...")
        figures += passages(demo)
        say(f"{REVOCATIONS} revocations ...")
        figures += revocations(rig)
    return figures


def table(figures: Sequence[Figure]) -> str:
    head = f"{'':<52}{'measured':>12}  {'beside':<26}{'':>10}{'ratio':>8}{'target':>8}"
    rows = [
        f"{f.what:<52}{f.measured:>9.2f} {f.unit}  {f.peer:<26}{f.peer_measured:>7.2f} "
        f"{f.unit}{f.ratio:>8.2f}{f.target_ratio:>8.2f}"
        for f in figures
    ]
    return "\n".join([head, *rows])


def rows(figures: Sequence[Figure]) -> list[dict[str, object]]:
    return [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
