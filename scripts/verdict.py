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
TOKEN_SECONDS, TOKEN_MOST_SECONDS = 2.0, 0.5
# Which part of the calls by token has to be so quick, from how many of them on: of fewer it would say what a few of them took.
QUICK = ((500, 99), (50, 90))
# More than the service's own limit of a call.
CALL_SECONDS = 12
# Less than one request to Clerk may take: what is late is told before that.
MEMBERSHIP_SECONDS = 2.5
# Until each replica denies what ended at Clerk: half a second for Clerk's webhook to come, a second from then on, and half
# a second more where the connection that hears is cut.
REVOKED_SECONDS, CUT_MORE_SECONDS = 0.5 + 1.0, 0.5
# Until a replica that goes on after it stood still denies what ended meanwhile: the webhook was taken long before.
WOKEN_SECONDS = 1.0
# Messages that a killed replica had taken are free after 20 s, those that a paused one had locked after 30 s.
TAKEN_SECONDS, APPLIED_SECONDS = 25, 60
HOUR = 3600


class Late(str):
    """What is wrong with a row and may be the machine's fault: only time."""


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

    @property
    def is_late(self):
        """Whether its caller waited to the end and got nothing; a status that comes earlier is an answer."""
        return self.said in {"DEADLINE_EXCEEDED", "no answer"} and self.seconds > TOKEN_SECONDS - 0.1


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
    # Who is asked all the while.
    asked: frozenset = frozenset({HERE, THERE})
    heals_seconds: float = 5.0
    at_least_seconds: float = 0.0
    # None where webhooks are not taken meanwhile, or slowly.
    revoked_seconds: float | None = REVOKED_SECONDS
    # Says what else is wrong, of the outcomes and when it was broken and mended.
    also: object = None
    # Not in the short form, and why.
    long_only: str | None = None


def only_late(problems):
    return bool(problems) and all(isinstance(problem, Late) for problem in problems)


def judge(row, outcomes, broken, mended, healed, missing, least=1):
    """What is said of the row, and what is wrong with it; `least` calls of each work by token are wanted."""
    over = mended + (healed if healed is not None else row.heals_seconds)
    # What began before and was under way counts too; what began after it was healed does not.
    seen = [outcome for outcome in outcomes if outcome.ended >= broken and outcome.begun <= over]
    problems = []
    wrong = {}
    for outcome in seen:
        if outcome.said != "ok" and not any(may.excuses(outcome) for may in row.may):
            wrong.setdefault((outcome.work, outcome.replica, outcome.said), []).append(outcome)
    for (work, replica, said), which in wrong.items():
        kind = Late if all(outcome.is_late for outcome in which) else str
        problems.append(kind(f"{work} at {replica}: {said} ({len(which)}, the first {which[0].begun - broken:.1f} s after it began)"))
    for work, said in row.must:
        # What was asked when it was mended again says nothing of what was broken.
        if not any(outcome.work == work and outcome.said == said and broken <= outcome.begun < mended for outcome in seen):
            problems.append(f"{work}: nothing was {said}")
    tokens = [outcome for outcome in seen if outcome.work in BY_TOKEN and outcome.replica not in row.unsound]
    failed = sum(outcome.said != "ok" for outcome in tokens)
    # What nobody asks does not fail. The small disk's service has no Clerk whose sessions end.
    done = Counter((outcome.work, outcome.replica) for outcome in tokens if outcome.begun < mended)
    for replica in sorted(row.asked - row.unsound):
        for work in sorted(BY_TOKEN - ({"a session that ended before"} if replica == SMALL else set())):
            if done[work, replica] < least:
                problems.append(f"{work} at {replica}: asked {done[work, replica]} times, and not {least}")
    times = sorted(outcome.seconds for outcome in tokens) or [float("inf")]
    share = next((share for calls, share in QUICK if len(times) >= calls), 0)
    most = times[len(times) * share // 100]
    if not times[-1] < TOKEN_SECONDS or share and not most < TOKEN_MOST_SECONDS:
        problems.append(Late(f"calls by token were slow: {f'p{share} {most:.2f} s, ' if share else ''}the slowest {times[-1]:.2f} s"))
    if row.revoked_seconds is not None:
        for replica in sorted(row.asked - row.unsound - {SMALL}):
            ended = [outcome for outcome in seen if outcome.work == "a session that ends" and outcome.replica == replica]
            heard = [outcome.seconds for outcome in ended if outcome.said == "ok"]
            if not heard:
                # The only ones there were may have been those that met it while it stood still.
                kind = Late if any(outcome.is_late for outcome in ended) else str
                problems.append(kind(f"{replica} heard of no session that ended"))
            elif max(heard) > row.revoked_seconds:
                problems.append(Late(f"{replica} heard after {max(heard):.2f} s of a session that ended"))
    if row.also:
        problems += row.also(seen, broken, mended)
    if healed is None or healed > row.heals_seconds:
        problems.append(f"not healed within {row.heals_seconds:g} s" + ("" if healed is None else f", but after {healed:.1f} s"))
    if missing:
        problems.append(f"{missing} people are otherwise at Clerk than in the mirror")
    others = Counter(f"{outcome.work}: {outcome.said}" for outcome in seen if outcome.said != "ok")
    said = (f"{len(seen)} calls; {len(tokens)} by token, {failed} failed, "
            + (f"p{share} {most * 1000:.0f} ms, " if share else "") + f"the slowest {times[-1] * 1000:.0f} ms; "
            f"healed after {'-' if healed is None else f'{healed:.1f}'} s" + "".join(f"; {count} {what}" for what, count in others.most_common()))
    return said, problems


def can_tell():
    """A verdict that cannot fail says nothing: what breaks a promise is found in outcomes that are made up."""
    row = Row("made up", None, [May({"GetUser"}, {"UNAVAILABLE STORE_UNAVAILABLE"})], [("GetUser", "UNAVAILABLE STORE_UNAVAILABLE")])
    store, ends = Outcome(101, 101.1, "GetUser", THERE, "UNAVAILABLE STORE_UNAVAILABLE"), "a session that ends"

    def problems(more=(), healed=1.0, missing=0, without=lambda _: False, each=50):
        calm = [Outcome(100 + number * 10 / each, 100.01 + number * 10 / each, work, replica, "ok")
                for number in range(each) for work in BY_TOKEN for replica in (HERE, THERE)]
        calm += [store, *(Outcome(101, 102, ends, replica, "ok") for replica in (HERE, THERE))]
        return judge(row, [outcome for outcome in calm if not without(outcome)] + list(more), 100, 110, healed, missing, 10)[1]

    def good(*some, **more):
        return not problems(*some, **more)

    assert good() and good(each=10)
    assert good([Outcome(120, 120.1, "GetUser", HERE, "UNKNOWN")]), "long after it"
    for bad in [
        Outcome(102, 102.1, "VerifySession, new", HERE, "UNAVAILABLE"), Outcome(102, 102.1, "GetUser", HERE, "UNKNOWN"),
        Outcome(110.5, 110.6, "GetUser", HERE, "UNKNOWN"), Outcome(99, 100.5, "an expired token", HERE, "accepted"),
        Outcome(102, 103, "membership", HERE, "denied"), Outcome(102, 102.1, "GetUser", HERE, "another name"),
        Outcome(102, 162, ends, HERE, "never heard of"), Outcome(102, 103, "VerifySession, new", HERE, "DEADLINE_EXCEEDED"),
    ]:
        assert problems([bad]) and not only_late(problems([bad])), bad
    late = [Outcome(102, 104.5, "forward-auth", HERE, "ok"), Outcome(102, 104, "forward-auth", HERE, "no answer"),
            Outcome(102, 104, "VerifySession, new", HERE, "DEADLINE_EXCEEDED"), Outcome(102, 104, ends, HERE, "ok")]
    for one in late:
        assert only_late(problems([one])), one
        assert not only_late(problems([one, Outcome(102, 102.1, "forward-auth", HERE, "HTTP 401")])), "not time alone"
    assert only_late(problems([Outcome(102, 102.8, "forward-auth", HERE, "ok")] * 10)), "p99"
    assert good([Outcome(102, 102.8, "forward-auth", HERE, "ok")] * 10, each=10), "of fewer p90"
    assert only_late(problems([Outcome(102, 102.8, "forward-auth", HERE, "ok")] * 20, each=10)), "p90"
    assert not good(without=lambda outcome: outcome == store), "nothing was seen of it"
    after = dataclasses.replace(store, begun=110.5, ended=110.6)
    assert not good([after], without=lambda outcome: outcome == store), "it was seen when it was mended again"
    for replica in (HERE, THERE):
        for work in BY_TOKEN | {ends}:
            lacking = problems(without=lambda outcome, at=(work, replica): (outcome.work, outcome.replica) == at)
            assert lacking and not only_late(lacking), f"nobody asked {replica}: {work}"
    stood_still = Outcome(102, 104, ends, HERE, "DEADLINE_EXCEEDED")
    assert only_late(problems([stood_still], without=lambda outcome: (outcome.work, outcome.replica) == (ends, HERE)))
    assert not good(each=9), "asked too rarely"
    assert not good(healed=None) and not good(healed=6.0)
    assert not good(missing=1)
