"""Faults of SLOs, goodput and fairness."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

SLO = "test_slo"
file = "whose.py"
plant("a tier's SLO goes before a tenant's", file, '((("tier", ""), tiers), (("tenant", ""), tenants))',
      '((("tenant", ""), tenants), (("tier", ""), tiers))', SLO)  # fmt: skip
plant("everybody's SLO goes before all others", file, "found[found < 0] = place", "found[:] = place", SLO)
plant("ms are s", file, '"ms": 1000}', '"ms": 1}', SLO)
plant("a limit of 0 is one", file, "if not 0 < value <= longest", "if not 0 <= value <= longest", SLO)
plant("one may have two SLOs", file, "who.kind == other.kind or not who.kind or not other.kind", "False", SLO)
plant("a name that is nobody's is none to complain of", file, 'if kind or not (own["tenant"] or own["tier"])',
      'if kind and not (own["tenant"] or own["tier"])', SLO)  # fmt: skip
file = "goodput.py"
plant(
    "who did not finish has no SLO",
    file,
    "missed[UNFINISHED] = (rule >= 0) & ~done",
    "missed[UNFINISHED] = done & ~done",
    SLO,
)
plant("who did not finish is not offered", file, "offered, good = int(has.sum()), int(met.sum())",
      "offered, good = int((has & ~self.missed[UNFINISHED]).sum()), int(met.sum())", SLO)  # fmt: skip
plant("requests without an SLO met it", file, "met: np.ndarray = self.has & ~np", "met: np.ndarray = ~np", SLO)
plant("a limit is missed by who just keeps it", file, "dtype=float) <= limits)", "dtype=float) < limits)", SLO)
plant(
    "a single token misses its time per token",
    file,
    "(kept | (tokens <= 1) if name in PER_TOKEN else kept)",
    "kept",
    SLO,
)
plant("tokens of all are good", file, "self.output_tokens[met].sum()", "self.output_tokens[has].sum()", SLO)
plant("what a preempted request computed is not computed again", file, "            computed[victim] = lost\n",
      "            computed[victim] += 0\n", SLO)  # fmt: skip
plant("no good request has no rate", file, "            return 0.0\n", "            return np.nan\n", SLO)
file = "tenancy.py"
FAIR = "test_fairness"
plant("an output token weighs as a prompt token", file, "OUTPUT_WEIGHT = 1.0, 2.0", "OUTPUT_WEIGHT = 1.0, 1.0", FAIR)
plant(
    "a prompt counts as it arrives",
    file,
    "_sums(moments, start, PROMPT_WEIGHT",
    "_sums(moments, arrival, PROMPT_WEIGHT",
    FAIR,
)
plant("who never fits waits", file, 'rejected = rows["finish_reason"] == "rejected"',
      'rejected = rows["finish_reason"] == ""', FAIR)  # fmt: skip
plant("a gap is over all time", file, "both = one.waiting & other.waiting", "both = one.waiting | other.waiting", FAIR)
plant("the share is of all service", file, "total = everybody.while_waiting(service.waiting)",
      "total = everybody.jumps.sum() + everybody.flows.sum()", FAIR)  # fmt: skip
plant("who got nothing is left out", file, "np.where(done, speeds, 0.0)", "np.where(done, speeds, np.nan)", FAIR)
plant("Jain's index without the number of tenants", file, "(len(known) * (known**2).sum())", "((known**2).sum())", FAIR)
plant("the worst tenant is the first", file, '"slowdown_worst": max(means', '"slowdown_worst": min(means', FAIR)
plant("slowdown is a difference", file, "dtype=float) / np.array(own", "dtype=float) - np.array(own", FAIR)
file = "simulation/alone.py"
plant("alone in a crowd", file, 'Process(kind="closed", users=1, think_s=PAUSE_S)', 'Process(kind="backlog")', FAIR)
file = "comparison/comparison.py"
plant("the interval of a tenant is that of all", file, "self.estimate(self.values(setting, metric, tenant)).interval",
      "self.estimate(self.values(setting, metric)).interval", FAIR)  # fmt: skip
plant("an index may be above 1", "glossary.py", '("attainment", "jain_slowdown", "backlogged_share")',
      '("attainment", "backlogged_share")', FAIR)  # fmt: skip
plant("fairness has no interval", file, " *FAIR_METRICS, *SESSION_METRICS}", " *SESSION_METRICS}", FAIR)
file = "by_replica.py"
REPLICAS = "test_by_replica"
plant("every replica is as busy as all", file, "served(trace, number)", "served(trace)", REPLICAS)
plant("a replica has the requests of all phases", file, "(where == number) & mine", "(where == number)", REPLICAS)
plant("the rows forget the replicas", "comparison/report.py", 'row.get("per_replica", {})', "{}", REPLICAS)
