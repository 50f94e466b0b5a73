"""What is counted, and how: every metric of the program by name, and the cheap cells behind them.

Owns the catalogue, and the joining of what several processes have counted. A cell is an addition to
a number, because some are touched with every decision. Labels come from bounded sets: a label is
never an id, a name that a user chose, or anything else that grows with use. This module must never
do input or output; `exposition` serves what it holds.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

Labels = tuple[str, ...]
# [metric, labels, value] or [metric, labels, bucket counts, sum]; plain enough for JSON.
Sample = list[Any]

CELLS_MAX: Final = 1000
OTHER: Final = "other"

LATENCY_S: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Number:
    """One value of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value


class Distribution:
    """One value of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metric:
    """A named family of cells, one for each combination of labels that has occurred."""

    def __init__(
        self,
        kind: str,
        name: str,
        meaning: str,
        labels: Labels = (),
        *,
        bounds: Sequence[float] = (),
    ) -> None:
        self.kind = kind
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self.bounds = bounds
        self.numbers: dict[Labels, Number] = {}
        self.distributions: dict[Labels, Distribution] = {}
        CATALOGUE[name] = self

    def number(self, *labels: str) -> Number:
        """The cell of these labels; keep it where it is touched often."""
        cell = self.numbers.get(labels)
        if cell is None:
            cell = self.numbers.setdefault(self._bounded(labels, self.numbers), Number())
        return cell

    def distribution(self, *labels: str) -> Distribution:
        """The same, for a histogram."""
        cell = self.distributions.get(labels)
        if cell is None:
            cell = self.distributions.setdefault(
                self._bounded(labels, self.distributions), Distribution(self.bounds)
            )
        return cell

    def _bounded(self, labels: Labels, cells: dict[Labels, Any]) -> Labels:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
        return labels if len(cells) < CELLS_MAX else (OTHER,) * len(labels)

    def samples(self) -> Iterator[Sample]:
        """What the cells hold now."""
        for labels, number in list(self.numbers.items()):
            yield [self.name, list(labels), number.value]
        for labels, cell in list(self.distributions.items()):
            yield [self.name, list(labels), list(cell.counts), cell.total]


CATALOGUE: Final[dict[str, Metric]] = {}


def _counter(name: str, meaning: str, *labels: str, begin_with: Sequence[str] = ()) -> Metric:
    """A counter. Prometheus sees no rise in a series that begins with its first event: what can be
    counted is there from the start, as nothing."""
    metric = Metric("counter", name, meaning, labels)
    if not labels:
        metric.number()
    for value in begin_with:
        metric.number(value)
    return metric


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric("gauge", name, meaning, labels)


def _histogram(name: str, meaning: str, *labels: str, bounds: Sequence[float]) -> Metric:
    return Metric("histogram", name, meaning, labels, bounds=bounds)


# Play.
CALLBACK_SECONDS = _histogram(
    "pokerarena_callback_seconds",
    "Time from a question to an agent until its answer was judged, by the kind of its version",
    "kind",
    bounds=LATENCY_S,
)
FALLBACKS = _counter(
    "pokerarena_fallbacks",
    "Decisions that the arena took for an agent that failed",
    "kind",
    "reason",
)
SUSPENSIONS = _counter(
    "pokerarena_version_suspensions", "Versions that were suspended, by why",
    "cause", begin_with=("only_failed", "operator"),
)  # fmt: skip
REINSTATEMENTS = _counter(
    "pokerarena_version_reinstatements", "Suspensions that were lifted, by what lifted them",
    "by", begin_with=("check", "operator"),
)  # fmt: skip
HANDS_STORED = _counter("pokerarena_hands_stored", "Complete hands that were stored")
DEALS_VOID = _counter("pokerarena_deals_void", "Deals that came to nothing by a fault of ours")
RUNS_CLAIMED = _counter("pokerarena_runs_claimed", "Runs taken up by a player process")
RUNS_LEFT = _counter(
    "pokerarena_runs_left",
    "Claimed runs that a player process has left, by what became",
    "end",
    begin_with=("completed", "stopped", "failed", "handed_back", "fenced", "abandoned"),
)
RUNS_PLAYING = _gauge("pokerarena_runs_playing", "Runs that this worker plays now")
RUNS_RECOVERED = _counter(
    "pokerarena_runs_recovered", "Runs that the reaper found without a worker, by what it did",
    "outcome", begin_with=("queued_again", "given_up"),
)  # fmt: skip
RUNS_WITHOUT_ROOM = _gauge(
    "pokerarena_runs_without_room", "Claimed runs whose hosted agents wait for an agent-host"
)
ROOM_SECONDS = _histogram(
    "pokerarena_agent_host_wait_seconds",
    "How long a run with hosted agents waited for room on an agent-host, if it had to",
    bounds=LATENCY_S,
)
PLAYERS_DIED = _counter("pokerarena_player_processes_died", "Player processes that ended unasked")
PLAYERS = _gauge("pokerarena_player_processes", "Player processes of this worker that live")
PLAYER_CPU_SECONDS = _counter(
    "pokerarena_player_cpu_seconds", "Processor time of the player processes"
)
PLAYER_MEMORY_BYTES = _gauge(
    "pokerarena_player_resident_memory_bytes", "Resident memory of the player processes"
)

# Egress of hosted agents, counted by their proxy.
EGRESS_CONNECTIONS = _counter(
    "pokerarena_egress_connections",
    "Connections of hosted agents to the egress proxy, by what became of them",
    "outcome",
    begin_with=("passed", "refused", "limited"),
)
EGRESS_BYTES = _counter(
    "pokerarena_egress_bytes",
    "Bytes that hosted agents have sent (up) and received (down) through the egress proxy",
    "direction",
    begin_with=("up", "down"),
)
EGRESS_SANDBOXES = _gauge(
    "pokerarena_egress_sandboxes", "Sandboxes that have a way out through this egress proxy"
)

# Sandboxes.
SANDBOXES_STARTED = _counter("pokerarena_sandboxes_started", "Sandboxes started for hosted agents")
SANDBOXES_ENDED = _counter(
    "pokerarena_sandboxes_ended", "Sandboxes that ended or were killed before they were asked to",
    "reason", begin_with=("sandbox_cpu", "sandbox_memory", "sandbox_exit"),
)  # fmt: skip

# Storage.
COMMIT_SECONDS = _histogram(
    "pokerarena_commit_seconds", "Time of one group commit, retries included", bounds=LATENCY_S
)
COMMIT_HANDS = _histogram("pokerarena_commit_hands", "Hands in one group commit", bounds=SIZES)
COMMIT_FAILURES = _counter("pokerarena_commit_failures", "Attempts to commit that failed")
POOL_CONNECTIONS = _gauge(
    "pokerarena_database_pool_connections", "Connections of the pool: in use, and allowed", "state"
)

# What the database says of the whole arena; every worker asks, and all say the same.
QUEUE_JOBS = _gauge("pokerarena_queue_jobs", "Jobs, by queue and status", "queue", "status")
QUEUE_OLDEST_SECONDS = _gauge(
    "pokerarena_queue_oldest_job_seconds",
    "How long the oldest job that waits in a queue has waited",
    "queue",
)
DEAD_LETTERS = _gauge("pokerarena_dead_letters_open", "Dead letters that wait for a person")
RUNS_ACTIVE = _gauge("pokerarena_runs_active", "Runs that are queued or running", "status")
RUNS_OLDEST_SECONDS = _gauge(
    "pokerarena_runs_oldest_seconds", "Age of the oldest active run since it began", "status"
)
RUNS_UNATTENDED = _gauge(
    "pokerarena_runs_unattended", "Running runs whose lease is over: no living worker holds them"
)
HISTORY_COVERED_UNTIL = _gauge(
    "pokerarena_history_covered_until_seconds",
    "Until when there are partitions for hands, as a UNIX time",
)
ARENA_LOOKED_AT = _gauge(
    "pokerarena_arena_looked_at_seconds", "When the database was last asked, as a UNIX time"
)

# API.
API_SECONDS = _histogram(
    "pokerarena_api_response_seconds",
    "Time until a response began, by route template",
    "method",
    "route",
    bounds=LATENCY_S,
)
API_RESPONSES = _counter(
    "pokerarena_api_responses",
    "Responses by route template and status",
    "method",
    "route",
    "status",
)
API_IN_PROGRESS = _gauge("pokerarena_api_requests_in_progress", "Requests in progress")
STREAMS_OPEN = _gauge("pokerarena_streams_open", "Live streams that are open")
RATE_LIMITED = _counter(
    "pokerarena_rate_limited", "Requests refused by a rate limit", "endpoint_class", "by"
)

# Backups; the process that makes them.
BACKUP_WAL_REACHED = _gauge(
    "pokerarena_backup_wal_reached_seconds",
    "Until when everything committed is in the backups, as a UNIX time",
)
BACKUP_BASE_FINISHED = _gauge(
    "pokerarena_backup_base_finished_seconds",
    "When the last base backup was complete, as a UNIX time; 0 before the first",
)
BACKUP_BASE_INTERVAL = _gauge(
    "pokerarena_backup_base_interval_seconds", "How often a base backup is due"
)
BACKUP_BASE_FAILING = _gauge(
    "pokerarena_backup_base_failures_in_row",
    "Base backups that failed since the last one that did not",
)
BACKUP_BASE_BYTES = _gauge(
    "pokerarena_backup_base_bytes", "The last base backup: the database's files, and sealed", "form"
)
BACKUP_FAILURES = _counter(
    "pokerarena_backup_failures", "Attempts that failed: to ship WAL, to take a base backup",
    "what", begin_with=("wal", "base"),
)  # fmt: skip

_pools: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_pool(pool: Any) -> None:
    """Count this pool for as long as it exists."""
    _pools.add(pool)


def snapshot() -> list[Sample]:
    """All that this process has counted."""
    in_use = allowed = 0
    for pool in list(_pools):
        in_use += pool.checkedout()
        allowed += pool.size()
    POOL_CONNECTIONS.number("in_use").set(in_use)
    POOL_CONNECTIONS.number("allowed").set(allowed)
    return [sample for metric in CATALOGUE.values() for sample in metric.samples()]


class Aggregate:
    """The sum of this process and of others that send it snapshots.

    What a process that ended had counted stays in the sum, for a counter never falls; its gauges
    go with it.
    """

    def __init__(self) -> None:
        self._sources: dict[str, list[Sample]] = {}
        self._departed: list[Sample] = []

    def take(self, source: str, samples: list[Sample]) -> None:
        """The latest of one process."""
        self._sources[source] = samples

    def gone(self, source: str) -> None:
        """That process has ended."""
        left = [
            sample
            for sample in self._sources.pop(source, [])
            if sample[0] in CATALOGUE and CATALOGUE[sample[0]].kind != "gauge"
        ]
        summed = _sum([self._departed, left])
        self._departed = [
            [name, list(labels), *values] for (name, labels), values in summed.items()
        ]

    def collect(self) -> Iterator[Any]:
        """Prometheus families, for its own text format."""
        summed = _sum([snapshot(), self._departed, *self._sources.values()])
        families: dict[str, Any] = {}
        for (name, labels), values in summed.items():
            metric = CATALOGUE[name]
            family = families.get(name)
            if family is None:
                family = families[name] = _FAMILIES[metric.kind](
                    name, metric.meaning, labels=metric.labels
                )
            if metric.kind == "histogram":
                family.add_metric(list(labels), _buckets(metric.bounds, values[0]), values[1])
            else:
                family.add_metric(list(labels), values[0])
        yield from families.values()


_FAMILIES: Final[dict[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _sum(parts: Sequence[list[Sample]]) -> dict[tuple[str, Labels], list[Any]]:
    summed: dict[tuple[str, Labels], list[Any]] = {}
    for samples in parts:
        for name, labels, *values in samples:
            key = (name, tuple(labels))
            present = summed.get(key)
            if present is None:
                summed[key] = list(values)
            elif len(values) == 1:
                present[0] += values[0]
            else:
                present[0] = [a + b for a, b in zip(present[0], values[0], strict=True)]
                present[1] += values[1]
    return summed


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    running = 0
    buckets = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        running += count
        buckets.append((bound, float(running)))
    return buckets
