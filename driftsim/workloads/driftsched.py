"""DriftSched's workload (arXiv 2606.02982): two phases, three tenants that are the three tiers.

And our variant of it, over two more categories, at a load and under caps of one's choice, so that drift can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.request import TIERS
from driftsim.scheduling.classify import label
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.workloads.workload import Workload, described, stream


@dataclass(frozen=True, kw_only=True)
class PhaseTemplate:
    """A phase to draw: how many requests, the gaps between them (uniform, s) and the mix of categories (weights)."""

    phase: Phase
    gap_low: float
    gap_high: float
    mix: Mapping[str, float]

    def __post_init__(self) -> None:
        if not 0 <= self.gap_low <= self.gap_high:
            raise InputError(f"gaps need 0 <= low <= high, got {self.gap_low} and {self.gap_high}")
        unknown = set(self.mix) - set(TEMPLATES)
        if unknown:
            raise InputError(f"unknown category {sorted(unknown)[0]!r}; choose among {', '.join(TEMPLATES)}")


# In the spirit of DriftSched's prompts, five a category; {} is a topic. Some lack their category's keywords or hold
# another's, so that it matters whether the classifier sees the label. The last two categories are ours: their answers
# are short in the middle and long in the tail, so that estimates by category drift.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "short_qa": (
        "What is {} and why is it important?",
        "Why do people use {}?",
        "What problem does {} solve?",
        "When would you choose {}?",
        "Who benefits most from {}?",
    ),
    "summary": (
        "Summarize {} architecture and its key components.",
        "Give a summary of how {} works.",
        "Outline {} in a few short paragraphs.",
        "Write a summary of {} for a new colleague.",
        "What changed in {} over the years? Keep it short.",
    ),
    "technical": (
        "Explain the internal architecture of {}.",
        "Explain with code how a program uses {}.",
        "Describe the design choices behind {} and their trade-offs.",
        "Explain step by step how {} handles failures.",
        "Walk through the technical steps of setting up {}.",
    ),
    "report": (
        "Write a detailed report on {}, including architecture, performance, scalability and security.",
        "Prepare a comprehensive report about running {} in production.",
        "Compare {} with its alternatives at length, with sections and a conclusion.",
        "Write a long review of {}: history, design, operations and risks.",
        "Produce a detailed report on the costs and benefits of {}.",
    ),
    "definition": (
        "Define {} briefly.",
        "Give a brief definition of {}.",
        "Define {} for a beginner, briefly.",
        "What does the term {} mean? Be brief.",
        "Briefly, how would you define {}?",
    ),
    "one_sentence": (
        "In one sentence, what is {}?",
        "Describe {} in one sentence.",
        "In a single sentence, why does {} matter?",
        "Name one use of {} in one sentence.",
        "Explain {} in one sentence.",
    ),
}
DRIFTSCHED_CAPS: Mapping[str, int] = {"short_qa": 64, "summary": 256, "technical": 384, "report": 512}
# Caps at which most outputs end by themselves, so that drift can be seen. DriftSched's hide the drift: see 3 in
# docs/explanation/traps.md.
NATURAL_CAPS: Mapping[str, int] = {
    "short_qa": 384, "summary": 768, "technical": 1024, "report": 1024, "definition": 384, "one_sentence": 768,
}  # fmt: skip


def driftsched_phases(
    learning: int = 1000,
    stress: int = 2000,
    learning_gap: tuple[float, float] = (0.050, 0.150),
    stress_gap: tuple[float, float] = (0.005, 0.030),
) -> tuple[PhaseTemplate, PhaseTemplate]:
    """DriftSched's two phases with its drain between them (arXiv 2606.02982): learning, then stress.

    Gaps are the low and high end of a uniform distribution, in seconds.
    """
    return (
        PhaseTemplate(
            phase=Phase(name="learning", requests=learning),
            gap_low=learning_gap[0],
            gap_high=learning_gap[1],
            mix={"short_qa": 40, "summary": 25, "technical": 25, "report": 10},
        ),
        PhaseTemplate(
            phase=Phase(name="stress", kind="after-drain", requests=stress, pause_s=15.0),
            gap_low=stress_gap[0],
            gap_high=stress_gap[1],
            mix={"short_qa": 10, "summary": 20, "technical": 40, "report": 30},
        ),
    )


def drift_phases(
    learning: int = 150,
    stress: int = 350,
    learning_gap: tuple[float, float] = (0.5, 1.0),
    stress_gap: tuple[float, float] = (0.2, 1.0),
) -> tuple[PhaseTemplate, PhaseTemplate]:
    """The same over all six categories, at a load that a small model on a CPU carries."""
    return (
        PhaseTemplate(
            phase=Phase(name="learning", requests=learning),
            gap_low=learning_gap[0],
            gap_high=learning_gap[1],
            mix={"short_qa": 30, "summary": 15, "technical": 15, "report": 10, "definition": 15, "one_sentence": 15},
        ),
        PhaseTemplate(
            phase=Phase(name="stress", kind="after-drain", requests=stress, pause_s=5.0),
            gap_low=stress_gap[0],
            gap_high=stress_gap[1],
            mix={"short_qa": 10, "summary": 20, "technical": 25, "report": 15, "definition": 15, "one_sentence": 15},
        ),
    )


DRIFTSCHED_PHASES = driftsched_phases()


def driftsched_workload(
    count_tokens: Callable[[str], int],
    seed: int,
    phases: tuple[PhaseTemplate, ...] = DRIFTSCHED_PHASES,
    caps: Mapping[str, int] = DRIFTSCHED_CAPS,
    name: str = "reference",
) -> Workload:
    """DriftSched's workload (arXiv 2606.02982): templates over topics, three tenants that are the three tiers.

    ``count_tokens`` counts a prompt as the engine will see it. Output lengths are unknown until an engine served it.
    """
    random = stream(seed, "workload")
    table = pd.DataFrame([row for drawn in phases for row in _draw(drawn, random)])
    columns = zip(table["tenant"], table["category"], table.pop("prompt"), strict=True)
    prompts = [label(number, tenant, category) + text for number, (tenant, category, text) in enumerate(columns)]
    table["request_id"] = [f"r{number:05d}" for number in range(len(table))]
    table["max_tokens"] = [caps[category] for category in table["category"]]
    info = WorkloadInfo(name=name, phases=tuple(drawn.phase for drawn in phases))
    return Workload(info=info, table=described(table, prompts, count_tokens), prompts=tuple(prompts))


def _draw(drawn: PhaseTemplate, random: np.random.Generator) -> Iterator[dict[str, object]]:
    categories = list(drawn.mix)
    weights = np.array([drawn.mix[category] for category in categories], dtype=float)
    offset = 0.0
    for _ in range(drawn.phase.requests):
        offset += random.uniform(drawn.gap_low, drawn.gap_high)
        category = str(random.choice(categories, p=weights / weights.sum()))
        tier = TIERS[random.integers(3)].value
        template = TEMPLATES[category][random.integers(len(TEMPLATES[category]))]
        yield {
            "tenant": tier,
            "tier": tier,
            "phase": drawn.phase.name,
            "category": category,
            "offset_s": offset,
            "prompt": template.format(TOPICS[random.integers(len(TOPICS))]),
        }


TOPICS: tuple[str, ...] = (
    "DNS", "Kafka", "Redis", "CUDA", "OAuth", "Kubernetes", "PostgreSQL", "TCP congestion control", "TLS", "gRPC",
    "Docker", "Raft consensus", "Elasticsearch", "MapReduce", "GraphQL", "BGP routing", "NVMe storage", "LSM trees",
    "Bloom filters", "WebAssembly", "HTTP/3", "RabbitMQ", "MongoDB", "Apache Spark", "ZooKeeper", "LLVM", "eBPF",
    "IPv6", "Git", "RAID", "Terraform", "Prometheus", "Grafana", "Ansible", "Nginx", "Envoy", "Istio", "Consul",
    "etcd", "Ceph", "object storage", "content delivery networks", "load balancing", "service meshes",
    "message queues", "event sourcing", "database sharding", "database replication", "write-ahead logging",
    "vector databases", "consistent hashing", "circuit breakers", "rate limiting", "blue-green deployment",
    "continuous integration", "feature flags", "distributed tracing", "log aggregation", "serverless functions",
    "virtual machines", "hypervisors", "Linux namespaces", "control groups", "memory paging", "CPU caches",
    "RDMA networking", "GPU virtualization", "zero-trust networking", "certificate authorities", "single sign-on",
)  # fmt: skip
