"""Faults of the policies beyond the published ones, and of how policies and estimators are spelled."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

FAIR, AGED, SIZED, LAWS = "test_fair_policies", "test_aged_policies", "test_sized_policies", "test_policy_laws"
plant(
    "vtc lifts nobody",
    "scheduling/fair.py",
    "max(self.counter.get(flow, lift), lift)",
    "self.counter.get(flow, 0.0)",
    FAIR,
)
plant("vtc lifts to nothing where nobody waits", "scheduling/fair.py", "self._left = self.counter[flow]", "pass", FAIR)
plant(
    "drr keeps credit when idle",
    "scheduling/fair.py",
    "            self._round.popleft()\n            self.credit[flow] = min(self.credit[flow], 0.0)\n",
    "            self._round.popleft()\n",
    FAIR,
)
plant(
    "drr gives a quantum to who has credit",
    "scheduling/fair.py",
    "if self.credit[flow] <= 0:\n                self.credit",
    "if True:\n                self.credit",
    FAIR,
)
plant(
    "drr never ends a turn",
    "scheduling/fair.py",
    "        elif self.credit[flow] <= 0:\n            self._round.rotate(-1)\n",
    "",
    FAIR,
)
plant(
    "sfq forgets the finish tag",
    "scheduling/fair.py",
    "start = max(self._virtual, self._finish.get(flow, 0.0))",
    "start = self._virtual",
    FAIR,
)
plant(
    "sfq forgets virtual time",
    "scheduling/fair.py",
    "start = max(self._virtual, self._finish.get(flow, 0.0))",
    "start = self._finish.get(flow, 0.0)",
    FAIR,
)
plant("sfq sets nothing right", "scheduling/fair.py", "self._finish[flow] += true - charge", "pass", FAIR)
plant(
    "nothing is set right at the end",
    "scheduling/flows.py",
    "self.counter[flow] += true - self._cost(job, job.estimate, now)",
    "pass",
    FAIR,
)
plant(
    "an old offer counts",
    "scheduling/flows.py",
    "if self._offers.get(flow) is offer:",
    "if flow in self._offers:",
    f"{FAIR} {LAWS}",
)
plant(
    "a passed flow is lost",
    "scheduling/flows.py",
    "        for offer in passed:\n            heapq.heappush(self._heap, offer)\n",
    "",
    f"{LAWS} test_plugins",
)
plant(
    "the newest of a flow first",
    "scheduling/flows.py",
    "return min(heads, key=lambda head: head[0])[1] if heads else None",
    "return max(heads, key=lambda head: head[0])[1] if heads else None",
    FAIR,
)
plant(
    "las forgets twice as fast",
    "scheduling/attained.py",
    "self._growth[id(job)] = 2.0 **",
    "self._growth[id(job)] = 4.0 **",
    AGED,
)
plant(
    "las never begins anew", "scheduling/attained.py", "            self._begin_anew(now)\n", "            pass\n", AGED
)
plant("levels of mlfq do not double", "scheduling/attained.py", "int(math.log2(had + 1))", "int(had)", AGED)
plant("nobody is promoted", "scheduling/attained.py", "self.counter = dict.fromkeys(self.counter, 0.0)", "pass", AGED)
plant(
    "the response ratio of a size squared",
    "scheduling/aged.py",
    "return 1 / self._size(job)",
    "return 1 / self._size(job) ** 2",
    AGED,
)
plant("ewsjf without its logarithm", "scheduling/aged.py", "(1 + self._factor * math.log(prompt + 1))", "1.0", AGED)
plant(
    "gittins by the mean alone",
    "scheduling/aged.py",
    "return float(found[ended >= LEAST_SHARE * len(ordered)].max())",
    "return float(found[-1])",
    AGED,
)
plant(
    "a full tier is served by the classes",
    "scheduling/aged.py",
    "if place[1] not in full:",
    "if True:",
    "test_plugins test_tiers",
)
plant(
    "wspt multiplies by the weight",
    "scheduling/sized.py",
    "self.size(job) / self._around.weight",
    "self.size(job) * self._around.weight",
    SIZED,
)
plant(
    "boost by the wrong sign",
    "scheduling/sized.py",
    "job.request.arrival - boost_s",
    "job.request.arrival + boost_s",
    SIZED,
)
plant("a label's mean is a sum", "scheduling/sized.py", "return total - math.log(count)", "return total", SIZED)
plant(
    "slack adds the service",
    "scheduling/deadlines.py",
    "super().key(job) - self._around",
    "super().key(job) + self._around",
    SIZED,
)
plant(
    "a tenant's SLO goes after its tier's",
    "scheduling/around.py",
    "place = int(rule_of(self.slos, np.array([tenant]), np.array([tier]))[0])",
    "place = int(rule_of(self.slos, np.array(['']), np.array([tier]))[0])",
    SIZED,
)
plant("cached tokens cost their prefill", "latency/service.py", "new = prompt - cached", "new = prompt", "test_service")
plant(
    "every request pays for the whole step",
    "latency/service.py",
    "/ (slots or engine.max_num_seqs)",
    "/ 1",
    "test_service",
)
plant(
    "what never ran is told as served",
    "simulation/ends.py",
    "made = None if sequence.scheduled is None or not full else",
    "made = None if not full else",
    FAIR,
)
plant(
    "a withdrawn job stays charged",
    "scheduling/dispatcher.py",
    "            self._withdrawn.remove(id(job))\n            if self._served is not None:\n",
    "            self._withdrawn.remove(id(job))\n            if False:\n",
    FAIR,
)
plant(
    "defaults stay in the name",
    "scheduling/parameters.py",
    "if values[key] != fields[key].default",
    "if True",
    "test_parameters",
)
plant(
    "parameters in the order that they are given",
    "scheduling/parameters.py",
    "for key in sorted(values)",
    "for key in values",
    "test_parameters",
)
plant("the last of two values counts", "scheduling/parameters.py", "if key in given:", "if False:", "test_parameters")
plant(
    "edf runs without SLOs", "scheduling/policies.py", 'if "slos" in needs_of(name) and not slos:', "if False:", SIZED
)
file = "scheduling/tail.py"
TAIL = "test_tail_policies"
plant("the tail is drawn without a seed", file, "below, above, weights = _quantiles(alpha)",
      "below, above, weights = (np.random.default_rng().standard_t(NU, 192) for _ in range(3))", TAIL)  # fmt: skip
plant("the mean has no cap", file, "math.log(cap))), cap)", "700.0)), np.inf)", TAIL)
plant(
    "the tail is not divided by its share", file, "(1 - alpha + beta) * tail", "(1 - alpha) * (1 + beta) * tail", TAIL
)
plant("the weight of the tail stays", file, "0.1 * len(self) / self._batch", "self._least", TAIL)
plant("scores do not fall", file, " + job.request.arrival * self._aging", "", TAIL)
plant("errors are of the latest estimate", file, "max(1, job.first_estimate)", "max(1, job.estimate)", TAIL)
plant("a spread of two errors", file, "if len(own) >= FEWEST:", "if True:", TAIL)
plant("the median error is forgotten", file, "+ error.mu, error.sigma", ", error.sigma", TAIL)
file = "scheduling/blackbox.py"
plant("a class keeps credit when idle", file, "if not self._count[name]:", "if False:", TAIL)
plant("the short get no more in a crowd", file, "min(1.0, len(self) / self._crowd)", "0.0", TAIL)
plant("the hopeless go first", file, "if self._in_time and self._in_time[0].latest_s < now:", "if False:", TAIL)
plant("sizes in a class weigh nothing", file, "request.arrival + self._size * seconds", "request.arrival", TAIL)
plant("lengths are set right for nobody", file,
      "(0 if tokens is None else job.request.prompt_tokens + tokens) - charged", "0", TAIL)  # fmt: skip
plant(
    "sessions count for their tenants",
    "scheduling/flows.py",
    'if by == "session" and job.request.session:',
    "if False:",
    AGED,
)
