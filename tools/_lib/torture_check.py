"""What must hold after a campaign of tools/torture, as a pure function of what was seen.

acknowledged   keys ("writer/thread/number") whose logging call returned
batches        what the receiver was offered, in order: {"who": process, "batch": n, "entries": [[id, message], ...]},
               with the entries that it accepted, if any
pending        [[id, message], ...] in the journal after the last kill
killed         names of the processes that got SIGKILL

1. Lost: everything acknowledged is at the receiver or pending.
2. Ids: one id for one record, one record under one id, whichever way it came.
3. Order: what arrives for the first time arrives in the order of its seqs, across all processes, and so of each
   thread's calls. (Failures are connection errors and "later" only: nothing may overtake.)
4. Duplicates: of the arrivals of a record all but one were in the last batch that a killed process offered.
5. Content: no message is altered.
"""

from collections import Counter, defaultdict


class Verdict:
    """``findings``: what is wrong, in words; empty if nothing is."""

    def __init__(self):
        self.findings = []
        self.received = self.lost = self.duplicates = self.worst = 0

    def find(self, what, examples):
        examples = list(examples)
        if examples:
            shown = ", ".join(str(example) for example in examples[:3])
            self.findings.append("%d %s: %s%s" % (len(examples), what, shown, " ..." if len(examples) > 3 else ""))


def key_of(message):
    return message.partition(" ")[0]


def seq_of(id_):
    return int(id_.rpartition("-")[2])


def judge(acknowledged, batches, pending, killed):
    verdict = Verdict()
    arrivals = [(e[0], e[1], batch["who"], batch["batch"]) for batch in batches for e in batch["entries"]]
    ids, keys = defaultdict(set), defaultdict(set)
    for id_, message in [a[:2] for a in arrivals] + [tuple(p) for p in pending]:
        ids[key_of(message)].add(id_)
        keys[id_].add(key_of(message))
    verdict.received = len({key_of(a[1]) for a in arrivals})

    lost = [key for key in acknowledged if key not in ids]
    verdict.lost = len(lost)
    verdict.find("acknowledged records are neither at the receiver nor pending", lost)
    verdict.find("records came under more than one id", [key for key, found in ids.items() if len(found) > 1])
    verdict.find("ids name more than one record", [id_ for id_, found in keys.items() if len(found) > 1])
    _check_order(verdict, arrivals)
    _check_duplicates(verdict, arrivals, {b["who"]: b["batch"] for b in batches}, killed)
    whole = "x" * 2000
    messages = {m for _, m, *_ in arrivals} | {m for _, m in pending}
    verdict.find("messages were altered", [m for m in messages if m.partition(" ")[2] not in whole or " " not in m])
    return verdict


def _check_order(verdict, arrivals):
    seen, highest, threads = set(), 0, {}
    overtaken, disordered = [], []
    for id_, message, *_ in arrivals:
        if id_ in seen:
            continue
        seen.add(id_)
        if seq_of(id_) < highest:
            overtaken.append(id_)
        highest = max(highest, seq_of(id_))
        thread, _, number = key_of(message).rpartition("/")
        if int(number) < threads.get(thread, -1):
            disordered.append(key_of(message))
        threads[thread] = max(int(number), threads.get(thread, -1))
    verdict.find("entries arrived after their successors", overtaken)
    verdict.find("records of one thread arrived in another order than it logged them", disordered)


def _check_duplicates(verdict, arrivals, last_batch, killed):
    arrived = defaultdict(list)
    for id_, _, who, batch in arrivals:
        arrived[id_].append((who, batch))
    per_kill = Counter()
    unexplained = []
    for id_, times in arrived.items():
        in_flight = [who for who, batch in times if who in killed and batch == last_batch[who]]
        verdict.duplicates += len(times) - 1
        if len(in_flight) < len(times) - 1:
            unexplained.append(id_)
        per_kill.update(in_flight if len(times) > 1 else [])
    verdict.worst = max(per_kill.values(), default=0)
    verdict.find("entries came twice without having been in flight at a kill", unexplained)
