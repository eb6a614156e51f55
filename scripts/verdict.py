"""What came of calls while a part was down, and whether it is what was promised."""

import dataclasses
from collections import Counter

HERE, THERE, SMALL = "replica-1", "replica-2", "small disk"
# What needs nothing but the token and the keys.
BY_TOKEN = {"VerifySession, remembered", "VerifySession, new", "permission by token", "forward-auth", "Check of Envoy",
            "an expired token", "a session that ended before"}
ASKS_STORE = {"GetUser", "SyncUser", "single use"}
ASKS_CLERK = {"membership", "a stranger's membership", "SyncUser"}
# A call by token that takes longer has waited for what is down; and other things run on the machine.
TOKEN_SECONDS, TOKEN_P99_SECONDS = 2.0, 0.5
# Of fewer calls the p99 is that of a few.
P99_CALLS = 500
# More than the service's own limit of a call.
CALL_SECONDS = 12
# Less than one request to Clerk may take: what is late is told before that.
MEMBERSHIP_SECONDS = 2.5
# Until each replica denies what ended at Clerk: half a second for Clerk's webhook to come, a second from then on, and half
# a second more where the connection that hears is cut.
REVOKED_SECONDS, CUT_MORE_SECONDS = 0.5 + 1.0, 0.5
# Messages that a killed replica had taken are free after 20 s, those that a paused one had locked after 30 s.
TAKEN_SECONDS, APPLIED_SECONDS = 25, 60
HOUR = 3600


@dataclasses.dataclass
class Outcome:
    begun: float
    ended: float
    work: str
    replica: str
    said: str

    @property
    def seconds(self):
        return self.ended - self.begun


@dataclasses.dataclass
class May:
    """What may come of these works, at these replicas, while the row lasts."""
    works: set
    said: set
    replicas: frozenset = frozenset({HERE, THERE, SMALL})

    def excuses(self, outcome):
        return outcome.work in self.works and outcome.replica in self.replicas and outcome.said in self.said


@dataclasses.dataclass
class Row:
    name: str
    # A generator: breaks the part, yields for as long as it is held, and mends it; it may yield again, when that was.
    run: object
    may: list = dataclasses.field(default_factory=list)
    # Pairs of a work and what has to be seen of it.
    must: list = dataclasses.field(default_factory=list)
    # Where calls by token are not promised anything.
    unsound: frozenset = frozenset()
    heals_seconds: float = 5.0
    at_least_seconds: float = 0.0
    # None where webhooks are not taken meanwhile, or slowly.
    revoked_seconds: float | None = REVOKED_SECONDS
    # Says what else is wrong, of the outcomes and when it was broken and mended.
    also: object = None
    # Not in the short form, and why.
    long_only: str | None = None


def judge(row, outcomes, broken, mended, healed, missing):
    """Whether the row is held, and what is said of it."""
    over = mended + (healed if healed is not None else row.heals_seconds)
    # What began before and was under way counts too; what began after it was healed does not.
    seen = [outcome for outcome in outcomes if outcome.ended >= broken and outcome.begun <= over]
    problems = []
    wrong = {}
    for outcome in seen:
        if outcome.said != "ok" and not any(may.excuses(outcome) for may in row.may):
            wrong.setdefault((outcome.work, outcome.replica, outcome.said), []).append(outcome.begun - broken)
    for (work, replica, said), at in wrong.items():
        problems.append(f"{work} at {replica}: {said} ({len(at)}, the first {at[0]:.1f} s after it began)")
    for work, said in row.must:
        if not any(outcome.work == work and outcome.said == said and outcome.begun >= broken for outcome in seen):
            problems.append(f"{work}: nothing was {said}")
    tokens = [outcome for outcome in seen if outcome.work in BY_TOKEN and outcome.replica not in row.unsound]
    failed = sum(outcome.said != "ok" for outcome in tokens)
    times = sorted(outcome.seconds for outcome in tokens) or [float("inf")]
    p99 = times[len(times) * 99 // 100]
    if not times[-1] < TOKEN_SECONDS or len(times) >= P99_CALLS and not p99 < TOKEN_P99_SECONDS:
        problems.append(f"calls by token were slow: p99 {p99:.2f} s, the slowest {times[-1]:.2f} s")
    heard = [outcome.seconds for outcome in seen if outcome.work == "a session that ends" and outcome.replica not in row.unsound]
    if row.revoked_seconds is not None and max(heard, default=0) > row.revoked_seconds:
        problems.append(f"a session that ended was heard of after {max(heard):.2f} s")
    if row.also:
        problems += row.also(seen, broken, mended)
    if healed is None or healed > row.heals_seconds:
        problems.append(f"not healed within {row.heals_seconds:g} s" + ("" if healed is None else f", but after {healed:.1f} s"))
    if missing:
        problems.append(f"{missing} people are otherwise at Clerk than in the mirror")
    others = Counter(f"{outcome.work}: {outcome.said}" for outcome in seen if outcome.said != "ok")
    said = (f"{len(seen)} calls; {len(tokens)} by token, {failed} failed, p99 {p99 * 1000:.0f} ms, the slowest {times[-1] * 1000:.0f} ms; "
            f"healed after {'-' if healed is None else f'{healed:.1f}'} s" + "".join(f"; {count} {what}" for what, count in others.most_common()))
    return not problems, said, problems


def can_tell():
    """A verdict that cannot fail says nothing: what breaks a promise is found in outcomes that are made up."""
    row = Row("made up", None, [May({"GetUser"}, {"UNAVAILABLE STORE_UNAVAILABLE"})], [("GetUser", "UNAVAILABLE STORE_UNAVAILABLE")])

    def good(more=(), healed=1.0, missing=0, without=None):
        calm = [Outcome(100 + number / 60, 100.01 + number / 60, "VerifySession, new", HERE, "ok") for number in range(600)]
        calm += [Outcome(101, 101.1, "GetUser", THERE, "UNAVAILABLE STORE_UNAVAILABLE"), Outcome(101, 102, "a session that ends", HERE, "ok")]
        return judge(row, [outcome for outcome in calm if outcome.work != without] + list(more), 100, 110, healed, missing)[0]

    assert good()
    assert good([Outcome(120, 120.1, "GetUser", HERE, "UNKNOWN")]), "long after it"
    for bad in [
        Outcome(102, 102.1, "VerifySession, new", HERE, "UNAVAILABLE"), Outcome(102, 102.1, "GetUser", HERE, "UNKNOWN"),
        Outcome(110.5, 110.6, "GetUser", HERE, "UNKNOWN"), Outcome(99, 100.5, "an expired token", HERE, "accepted"),
        Outcome(102, 104.5, "forward-auth", HERE, "ok"), Outcome(102, 104, "a session that ends", HERE, "ok"),
        Outcome(102, 103, "membership", HERE, "denied"),
    ]:
        assert not good([bad]), bad
    assert not good([Outcome(102, 102.8, "forward-auth", HERE, "ok")] * 10), "p99"
    assert not good(without="GetUser"), "nothing was seen of it"
    assert not good(without="VerifySession, new"), "nobody asked by token"
    assert not good(healed=None) and not good(healed=6.0)
    assert not good(missing=1)
