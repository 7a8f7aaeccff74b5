"""Faults of the dispatcher, the policies, the estimators, admission and tiers."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

file = "scheduling/dispatcher.py"
ORDER = "test_dispatcher test_policies test_tiers test_laws"
plant(
    "the limit given is ignored",
    file,
    "engine_slots if self.max_in_flight is None else self.max_in_flight",
    "engine_slots",
    ORDER + " test_recorder",
)
STANDS = '        if self.policy == STOCK or self.place != "front":\n'
plant("stock has a limit", file, STANDS + "            return None\n", "", ORDER)
plant("stock holds tiers back", file, STANDS + "            return {}\n", "", ORDER)
plant(
    "learned from in the order of the call",
    file,
    "ordered = sorted(departures, key=lambda gone: in_flight[id(gone.job)])",
    "ordered = departures",
    "test_dispatcher test_admission " + ORDER,
)
plant(
    "learned from in the reverse order of dispatch",
    file,
    "key=lambda gone: in_flight[id(gone.job)])",
    "key=lambda gone: -in_flight[id(gone.job)])",
    "test_dispatcher test_admission " + ORDER,
)
plant("a tier's slot is never freed", file, "self._count(departure.job, -1)", "pass", "test_dispatcher test_tiers")
plant(
    "what a departure does not tell is learned as zero",
    file,
    "            if departure.output_length is not None:\n                self.estimator.observe(departure.job, departure.output_length,",  # noqa: E501
    "            if True:\n                self.estimator.observe(departure.job, departure.output_length or 0,",
    "test_dispatcher test_estimators test_laws test_admission test_recorder test_unfinished",
)
plant(
    "estimates are refreshed, but not the order",
    file,
    "            self.policy.rekey()  # type: ignore[attr-defined]",
    "            pass  #",
    "test_dispatcher test_admission test_tiers",
)
plant(
    "refreshed estimates of those who gave up",
    file,
    "            del self._waiting[id(job)]\n\n    def finished",
    "            pass\n\n    def finished",
    "test_dispatcher test_unfinished test_admission test_tiers",
)
plant(
    "one more in flight than the limit: the question",
    file,
    "len(self.in_flight) >= self.max_in_flight:\n",
    "len(self.in_flight) > self.max_in_flight:\n",
    ORDER + " test_engine",
)
plant(
    "one more in flight than the limit: the release",
    file,
    "            count = self.max_in_flight - len(in_flight)\n",
    "            count = self.max_in_flight - len(in_flight) + 1\n",
    ORDER,
)
plant(
    "the engine's room is ignored",
    file,
    "        if count > room:\n            count = room\n",
    "",
    ORDER + " test_microbatch",
)
plant(
    "those who gave up count as waiting",
    file,
    "(len(self._withdrawn) if self._withdrawn else 0)",
    "0",
    "test_dispatcher test_unfinished test_laws",
)
plant(
    "the number of dispatches is not counted", file, "            self.dispatched += 1\n", "", ORDER + " test_admission"
)
plant(
    "a full tier takes one more",
    file,
    "self._inside[tier] >= self._limits[tier]",
    "self._inside[tier] > self._limits[tier]",
    "test_dispatcher test_tiers",
)
plant(
    "budgets are estimates",
    file,
    "job.budget = budget = prompt + estimate.length",
    "job.budget = budget = estimate.length",
    "test_dispatcher test_admission test_metrics test_policies test_laws test_simulating",
)
plant(
    "the prompt counts in tokens whatever the accounting",
    file,
    "request.prompt_tokens if self._counts_tokens else admission.prompt_length(request)",
    "request.prompt_tokens",
    "test_dispatcher test_admission test_laws test_simulating test_compare test_metrics",
)
plant(
    "the class is that of the estimate",
    file,
    "admission.scheduling_class(budget)",
    "admission.scheduling_class(estimate.length)",
    "test_dispatcher test_admission test_laws test_simulating",
)
plant(
    "an engine's priority is lost",
    file,
    '"", index, request.tier.priority)',
    '"", index, 0)',
    "test_dispatcher test_tiers",
)
plant(
    "a negative estimate is let through",
    file,
    "if estimate.length < 0 or not estimate.bias >= 0:",
    "if not estimate.bias >= 0:",
    "test_dispatcher test_plugins test_errors test_public_api",
)
plant(
    "the bias of an estimate is lost",
    file,
    "job.estimate, job.bias = estimate.length, estimate.bias",
    "job.estimate, job.bias = estimate.length, 1.0",
    "test_dispatcher test_recorder test_admission test_simulating",
)

file = "scheduling/queues.py"
plant(
    "ties by the order of the push",
    file,
    "heapq.heappush(self._heap, (key, job.request.arrival, self._pushed, job))",
    "heapq.heappush(self._heap, (key, 0.0, self._pushed, job))",
    "test_dispatcher test_policies test_tiers test_laws",
)
plant(
    "equals leave last in, first out",
    file,
    "        self._pushed += 1\n",
    "        self._pushed -= 1\n",
    "test_dispatcher test_policies test_tiers test_laws",
)
plant(
    "those aside are not looked at",
    file,
    "if own and tier not in full and not (smallest and smallest[0] < own[0]):",
    "if own and tier not in full and not smallest:",
    "test_dispatcher test_tiers",
)
plant(
    "full tiers are taken from aside",
    file,
    "if own and tier not in full and not",
    "if own and not",
    "test_dispatcher test_tiers",
)
plant(
    "a rekey forgets those aside",
    file,
    "for heap in (self._heap, *self._aside.values()):",
    "for heap in (self._heap,):",
    "test_dispatcher test_tiers",
)
plant(
    "a rekey loses the arrival",
    file,
    "(self.key(job), arrival, pushed, job) for _, arrival",
    "(self.key(job), 0.0, pushed, job) for _, arrival",
    "test_dispatcher test_tiers test_admission test_policies",
)
plant(
    "a rekey leaves the heap out of order",
    file,
    "            heapq.heapify(heap)\n",
    "",
    "test_dispatcher test_tiers test_admission",
)
plant(
    "those aside do not count as waiting",
    file,
    "return len(self._heap) + self._put_aside",
    "return len(self._heap)",
    "test_dispatcher test_tiers",
)
plant(
    "aging ten times as fast",
    "scheduling/policies.py",
    "rate = 0.01  # ranks / s",
    "rate = 0.1  # ranks / s",
    "test_dispatcher test_policies",
)
plant(
    "aging by the wrong sign",
    "scheduling/policies.py",
    "job.request.arrival + job.request.tier.rank / self.rate",
    "job.request.arrival - job.request.tier.rank / self.rate",
    "test_dispatcher test_policies",
)
plant(
    "a cycle of 5, 3 and 1",
    "scheduling/policies.py",
    "+ (Tier.BATCH,) * 2",
    "+ (Tier.BATCH,) * 1",
    "test_dispatcher test_policies",
)
plant(
    "the pointer stays at the slot served",
    "scheduling/policies.py",
    "self._pointer = (slot + 1) % len(cycle)",
    "self._pointer = slot",
    "test_dispatcher test_policies",
)
plant(
    "the newest of a tier first",
    "scheduling/policies.py",
    "return queues[tier].popleft()",
    "return queues[tier].pop()",
    "test_dispatcher test_policies",
)
plant(
    "weighted serves a full tier",
    "scheduling/policies.py",
    "if queues[tier] and tier not in full:",
    "if queues[tier]:",
    "test_dispatcher test_tiers",
)
plant(
    "weights of the rules are ignored",
    "scheduling/policies.py",
    "for rule in rules for _ in range(rule.slots))",
    "for rule in rules for _ in range(1))",
    "test_dispatcher test_tiers",
)
plant(
    "a key that is no number is let in",
    file,
    "if key is None or key != key:",
    "if key is None:",
    "test_dispatcher test_plugins test_errors",
)
plant(
    "an inherited order counts as known",
    "scheduling/policies.py",
    'vars(policy_class(name)).get("heeds", "")',
    'getattr(policy_class(name), "heeds", "")',
    "test_sameness test_plugins",
)
plant(
    "no order is asked for where the engine goes by priority",
    "scheduling/policies.py",
    'if not rules and (engine_policy == "priority" or goes_by_tier(name)):',
    "if not rules and goes_by_tier(name):",
    "test_dispatcher test_tiers",
)
plant(
    "an inherited pop_below counts for another pop",
    file,
    'return _beside_pop(type(policy), "pop_below")',
    'return hasattr(policy, "pop_below")',
    "test_dispatcher test_tiers",
)

file = "scheduling/estimators.py"
LEARN = "test_dispatcher test_admission test_estimators"
plant(
    "static estimates with a bias",
    file,
    "Estimate(self.admission.estimate(request, category, 1.0), 1.0)",
    "Estimate(self.admission.estimate(request, category, 1.1), 1.0)",
    LEARN,
)
plant(
    "one bias for all categories",
    file,
    "category, alpha = job.predicted_category, self.admission.alpha",
    'category, alpha = "", self.admission.alpha',
    LEARN,
)
plant(
    "the author's category is learned from",
    file,
    "category, alpha = job.predicted_category, self.admission.alpha",
    "category, alpha = job.request.category, self.admission.alpha",
    LEARN,
)
plant(
    "alpha and its rest are swapped",
    file,
    "(1 - alpha) * old + alpha * self",
    "alpha * old + (1 - alpha) * self",
    LEARN,
)
plant("the bias begins at 0", file, "bias = self.bias.get(category, 1.0)", "bias = self.bias.get(category, 0.0)", LEARN)
plant(
    "the bias is learned from 0",
    file,
    "old = self.bias.get(category, 1.0)",
    "old = self.bias.get(category, 0.0)",
    LEARN,
)
plant(
    "one observation too many counts",
    file,
    "if len(self._sorted) > self.size:",
    "if len(self._sorted) > self.size + 1:",
    LEARN,
)
plant("medians of before an observation", file, "        self._medians.clear()\n", "", LEARN)
plant("the newest observation is let go of", file, "self._by_age.popleft()", "self._by_age.pop()", LEARN)
plant("cut at the same limit is a bound", file, "if cut >= limit:", "if cut > limit:", LEARN)
plant(
    "the cut do not leave those at risk",
    file,
    "                left -= 1\n            self._medians",
    "                left -= cut >= limit\n            self._medians",
    LEARN,
)
plant("the median is the upper one", file, "if surviving <= 0.5 + 1e-9:", "if surviving < 0.5 - 1e-9:", LEARN)
plant(
    "where the curve stays above a half, the smallest",
    file,
    "value_at_half = self._sorted[-1][0]",
    "value_at_half = self._sorted[0][0]",
    LEARN,
)
plant(
    "strengths of category and tenant are swapped",
    file,
    "((category, request.tenant), self.tenant_strength)",
    "((category, request.tenant), self.category_strength)",
    LEARN,
)
plant(
    "an estimate above max_tokens",
    file,
    "return min(self.unbiased(request, category) * math.exp(ratio), float(request.max_tokens))",
    "return self.unbiased(request, category) * math.exp(ratio)",
    LEARN,
)
plant(
    "whole outputs count as cut",
    file,
    "limit = request.max_tokens if censored else math.inf",
    "limit = request.max_tokens",
    LEARN,
)
plant(
    "cut outputs count as whole",
    file,
    "limit = request.max_tokens if censored else math.inf",
    "limit = math.inf",
    LEARN,
)
plant(
    "a tenant learns nothing",
    file,
    "for key in ((category,), (category, request.tenant)):",
    "for key in ((category,),):",
    LEARN,
)
plant(
    "a ratio holds the safety factor",
    file,
    "* self.admission.input_factor(request)\n\n\nclass",
    "* self.admission.factors(request)\n\n\nclass",
    LEARN,
)
plant(
    "the trust is in the other",
    file,
    "math.log(self.trust / (1 - self.trust))",
    "math.log((1 - self.trust) / self.trust)",
    LEARN,
)
plant(
    "weights go to whoever errs more",
    file,
    "self.rate * (reference - ratios) / request.max_tokens",
    "self.rate * (ratios - reference) / request.max_tokens",
    LEARN,
)
plant(
    "errors weigh in tokens",
    file,
    "self.rate * (reference - ratios) / request.max_tokens",
    "self.rate * (reference - ratios) / 100",
    LEARN,
)
plant(
    "an estimate at a refresh replaces the first",
    file,
    "self._admitted.setdefault(request.id, (ratios, reference))",
    "self._admitted[request.id] = (ratios, reference)",
    LEARN,
)
plant(
    "pooled tells its ratios nothing of a cut",
    file,
    "self.ratios.learn(request, category, output_length, censored)",
    "self.ratios.learn(request, category, output_length, False)",
    LEARN,
)
plant(
    "pooled's reference learns nothing",
    file,
    "        self.reference.observe(job, output_length, censored, now)\n",
    "",
    LEARN,
)
plant("pooled expects nothing at all", file, "length = max(1, round(weight", "length = max(0, round(weight", LEARN)
plant(
    "pooled's bias is that of the budget",
    file,
    "Estimate(length, length / self.ratios.unbiased(request, category))",
    "Estimate(length, length / request.max_tokens)",
    LEARN,
)
plant("pooled's reference is not capped", file, "float(min(reference, request.max_tokens))", "float(reference)", LEARN)
plant(
    "everybody is deployable",
    file,
    'getattr(estimator_class(name), "deployable", True)',
    "True",
    "test_dispatcher test_estimators test_verdict",
)

file = "scheduling/admission.py"
plant(
    "classes of arrays end below their boundary",
    file,
    'side="left")\n        classes',
    'side="right")\n        classes',
    "test_dispatcher test_admission test_metrics",
)
plant(
    "a fraction of a token makes a longer class",
    file,
    "np.floor(totals)",
    "np.ceil(totals)",
    "test_dispatcher test_metrics test_admission",
)
plant(
    "medium ends below its boundary",
    file,
    "if total <= self.medium else",
    "if total < self.medium else",
    "test_dispatcher test_admission",
)
plant(
    "a premium estimate has no margin",
    file,
    "Tier.PREMIUM: 1.2,",
    "Tier.PREMIUM: 1.0,",
    "test_dispatcher test_admission",
)
plant(
    "an unknown tier has the batch's factor",
    file,
    "self.safety.get(request.tier, 1.0)",
    "self.safety.get(request.tier, 0.8)",
    "test_dispatcher test_tiers test_admission",
)
plant(
    "the input factor is the fraction alone",
    file,
    "factor = 1 + (request.prompt_tokens",
    "factor = 0 + (request.prompt_tokens",
    "test_dispatcher test_admission",
)
plant(
    "the input factor has no cap",
    file,
    "return factor if factor < cap else cap",
    "return factor",
    "test_dispatcher test_admission",
)
plant(
    "the input factor counts tokens always",
    file,
    "request.prompt_tokens if tokens else self.prompt_length(request)",
    "request.prompt_tokens",
    "test_dispatcher test_admission",
)
plant(
    "estimates are rounded",
    file,
    "int(self.base_of(request, category) * bias * self.factors(request))",
    "round(self.base_of(request, category) * bias * self.factors(request))",
    "test_dispatcher test_admission",
)
plant(
    "the clamp is always on",
    file,
    "min(length, request.max_tokens) if self.clamp_at_max_tokens else length",
    "min(length, request.max_tokens)",
    "test_dispatcher test_admission",
)
plant(
    "the clamp is ignored",
    file,
    "min(length, request.max_tokens) if self.clamp_at_max_tokens else length",
    "length",
    "test_dispatcher test_admission",
)
plant(
    "the feedback is always by the base",
    file,
    'if self.feedback == "estimate":',
    "if False:",
    "test_dispatcher test_admission",
)
plant(
    "the measured bias has no lower clip",
    file,
    "        if bias < self.clip_low:\n            return self.clip_low\n",
    "",
    "test_dispatcher test_admission",
)
plant(
    "the measured bias has no upper clip",
    file,
    "return bias if bias < self.clip_high else self.clip_high",
    "return bias",
    "test_dispatcher test_admission",
)
plant(
    "a category without a base has the largest",
    file,
    "table[category] if category in table else table[FALLBACK]",
    "table[category] if category in table else max(table.values())",
    "test_dispatcher test_admission test_categories",
)
plant(
    "caps are ignored as a base",
    file,
    "            return float(request.max_tokens)\n",
    "            return self.base_table.get(category, 64.0)\n",
    "test_dispatcher test_admission",
)
plant(
    "the label is seen though it is stripped",
    file,
    '"predicted_category" if self.label == "seen" else "predicted_category_unlabelled"',
    '"predicted_category"',
    "test_dispatcher test_admission test_metrics test_estimators",
)
plant(
    "rules' safety factors do not replace those of admission",
    file,
    "{**self.safety, **given}",
    "{**given, **self.safety}",
    "test_dispatcher test_tiers",
)
file = "scheduling/accounting.py"
plant(
    "words are counted by blanks",
    file,
    "return len(text.split())",
    'return len(text.split(" "))',
    "test_dispatcher test_admission test_answer",
)
plant(
    "words per token divide",
    file,
    "round(tokens * self.words_per_token)",
    "round(tokens / self.words_per_token)",
    "test_dispatcher test_admission test_metrics test_estimators",
)
plant(
    "words per token divide, in arrays",
    file,
    "np.rint(lengths * self.words_per_token)",
    "np.rint(lengths / self.words_per_token)",
    "test_dispatcher test_admission test_metrics test_estimators",
)
plant(
    "words are tokens",
    file,
    'counted = words if self.unit == "whitespace" and',
    'counted = tokens if self.unit == "whitespace" and',
    "test_dispatcher test_metrics",
)
file = "scheduling/classify.py"
plant(
    "ties go to the last category",
    file,
    "best = max(counts, key=counts.__getitem__)",
    "best = max(reversed(counts), key=counts.__getitem__)",
    "test_dispatcher test_admission",
)
plant("capital letters hide keywords", file, "text = prompt.lower()", "text = prompt", "test_dispatcher test_admission")
plant(
    "a keyword counts once",
    file,
    "sum(map(text.count, words))",
    "sum(word in text for word in words)",
    "test_dispatcher test_admission",
)
file = "tiers.py"
plant(
    "ranks count from 0",
    file,
    "enumerate(rules, start=1)}\n    return {name: Tier",
    "enumerate(rules, start=0)}\n    return {name: Tier",
    "test_dispatcher test_tiers",
)
plant(
    "a tier that is not among the rules is let in",
    file,
    "        if missing:\n",
    "        if False:\n",
    "test_dispatcher test_tiers",
)
plant(
    "weights of published tiers are 1",
    file,
    "_PUBLISHED_WEIGHTS.get(self.name, 1)",
    "1",
    "test_dispatcher test_tiers test_policies",
)
file = "request.py"
plant(
    "a rank that is given is ignored for published names",
    file,
    "rank = _PUBLISHED.get(name) if rank is None else rank",
    "rank = _PUBLISHED.get(name, rank)",
    "test_dispatcher test_tiers",
)

file = "workloads/arrivals.py"
CLOSED = "test_arrivals test_delays test_workload test_loops"
plant(
    "arrivals due now come later",
    file,
    "(due := self._due) is not None and due <= now:",
    "(due := self._due) is not None and due < now:",
    CLOSED,
)
plant(
    "a phase begins without its pause",
    file,
    "self._starts.append(now + self._tick(phase.pause_s))",
    "self._starts.append(now)",
    CLOSED,
)
plant(
    "a phase does not wait for the drain", file, 'if phase.kind == "after-drain" and self._inside:', "if False:", CLOSED
)
plant(
    "users do not think",
    file,
    "heapq.heappush(self._users, now + max(think + wait, 0))",
    "heapq.heappush(self._users, now + max(wait, 0))",
    CLOSED,
)
plant("one user too few", file, "self._closed_rows[: phase.users]", "self._closed_rows[: phase.users - 1]", CLOSED)
plant(
    "a cap of one more",
    file,
    "self._out < self._phases[len(self._starts) - 1].users",
    "self._out <= self._phases[len(self._starts) - 1].users",
    CLOSED,
)
plant(
    "a held back request is due in the past",
    file,
    "due = max(now, self._starts[-1] + self._offsets[self._row])",
    "due = self._starts[-1] + self._offsets[self._row]",
    CLOSED,
)
plant("departures of a cap are not counted", file, "            self._out -= 1\n", "", CLOSED)
file = "workloads/resampling.py"
BOOT = "test_delays test_workload test_laws"
plant("the recorded day is resampled", file, "    if replication == 0:\n        return workload\n", "", BOOT)
plant(
    "a resample is the same whatever its number",
    file,
    'stream(seed, f"{name}-{replication}")',
    "stream(seed, name)",
    BOOT,
)
plant(
    "a resample is the same whatever the seed",
    file,
    'stream(seed, f"{name}-{replication}")',
    'stream(0, f"{name}-{replication}")',
    BOOT,
)
plant(
    "blocks of one request",
    file,
    "    length = max(1, round(count**0.5))\n    starts = random.integers(0, count",
    "    length = 1\n    starts = random.integers(0, count",
    BOOT,
)
plant(
    "the last request never begins a block",
    file,
    "random.integers(0, count, size=",
    "random.integers(0, max(1, count - length), size=",
    BOOT,
)
plant(
    "requests keep the recorded gaps", file, "np.diff(begins, prepend=0.0)[picks]", "np.diff(begins, prepend=0.0)", BOOT
)
plant("every phase is drawn from the first", file, "        first += phase.requests\n", "", BOOT)
plant(
    "a local block comes from anywhere",
    file,
    "np.clip(np.ceil(places - count / REACH), 0, count - length)",
    "np.clip(np.ceil(places - count), 0, count - length)",
    BOOT,
)
plant(
    "a local block ends before the last request",
    file,
    "random.integers(low, high + 1)",
    "random.integers(low, np.maximum(high, low + 1))",
    BOOT,
)
file = "workloads/workload.py"
plant(
    "the words of a prompt are lost",
    file,
    "None if words[row] < 0 else words[row], caps[row]",
    "None, caps[row]",
    "test_dispatcher test_simulating test_workload test_admission",
)
plant(
    "max_tokens and prompt are swapped",
    file,
    "prompts[row], None if words[row] < 0 else words[row], caps[row], text,",
    "caps[row], None if words[row] < 0 else words[row], prompts[row], text,",
    "test_workload test_engine",
)
