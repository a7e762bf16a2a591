"""A model that answers from a table: planted log-likelihoods and completions, for checks by hand."""

import math

from tutelage.core.meter import Meter
from tutelage.models.seam import Generation, LogLikelihood, TextScore


class LookupModel:
    """`lls` maps (context, continuation) to a log-likelihood in nats (`greedy` holds the pairs it would generate);
    pairs not in the table get `bits_per_byte` bits for every byte. `outputs` maps prompts to completions; one that
    ends in "..." ran into the token limit."""

    name = "lookup"
    fingerprint = "lookup"
    max_length = 64
    template = None

    def __init__(self, lls=None, outputs=None, bits_per_byte=2.0, greedy=()):
        self.lls, self.outputs, self.bits, self.greedy = lls or {}, outputs or {}, bits_per_byte, set(greedy)
        self.meter = Meter()
        self.asked = []

    def tokenize(self, texts):
        return [list(text.encode()) for text in texts]

    def loglikelihood(self, pairs, joint=False):
        self.asked += pairs
        return [
            LogLikelihood(
                self.lls.get(pair, -self.bits * math.log(2) * len(pair[1].encode())),
                len(pair[1].encode()),
                pair in self.greedy,
            )
            for pair in pairs
        ]

    def score_texts(self, texts, *, window=1024, stride=None, per_token=False):
        sizes = [len(text.encode()) for text in texts]
        nats = [self.lls.get(text, -self.bits * math.log(2) * size) for text, size in zip(texts, sizes)]
        self.meter.add(scored_tokens=sum(sizes))
        return [TextScore(-ll, size, size, True) for ll, size in zip(nats, sizes)]

    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.asked += prompts
        found = []
        for prompt, own in zip(prompts, seed if isinstance(seed, list) else [seed] * len(prompts)):
            text = self.outputs.get((prompt, own), self.outputs.get(prompt, ""))
            for end in stop:
                text = text.split(end)[0]
            found.append(Generation(text, tuple(text.encode()), text.endswith("..."), len(prompt)))
        return found
