"""Azure's chat service as laws of arrivals and lengths: fitted figures, and none of its data.

Source: AzurePublicDataset, AzureLLMInferenceTrace_conv, November 2023, the first 30 minutes: 10,108 requests, CC-BY-4.0
(Microsoft; Patel et al. 2024, "Splitwise", from memory). Moments: gaps between arrivals with a coefficient of variation
of 1.07; prompts of 1,243 tokens on average, 0.95; outputs of 217, 0.78, none above 1,000; the logarithms of the two are
correlated by 0.03. What the fit leaves out: the rate's own slow changes (the variance of a minute's count is 12 times
its mean), the two modes of the prompts, and who sent what.
"""

from __future__ import annotations

from typing import Any

from driftsim import Lengths, Tenant, WorkloadSpec

GAPS_CV = 1.07
LONGEST = 3000  # prompt tokens, so that an engine of 4,096 holds one with its output; 12 % of the prompts were longer


def azure(requests: int, **tenant: Any) -> WorkloadSpec:
    """So many ``requests`` of one tenant, by these laws, at one a second."""
    chat = Tenant(
        name="azure", **tenant,
        prompt_tokens=Lengths(kind="lognormal", mean=1243, cv=0.95, low=2, high=LONGEST),
        output_tokens=Lengths(kind="lognormal", mean=217, cv=0.78, low=7, high=1000),
    )  # fmt: skip
    return WorkloadSpec(kind="gamma", rate=1.0, cv=GAPS_CV, requests=requests, tenants=(chat,))
