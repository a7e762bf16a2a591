"""A writer that says what a function tells it to, and remembers what it was asked."""

from tutelage.core.meter import Meter
from tutelage.models.seam import Generation


class ScriptedWriter:
    """`answer(prompt, seed)` gives the text; one that ends in "[cut]" ran into the token limit."""

    name = "scripted"
    kind = "causal"
    template = None
    fingerprint = "scripted"

    def __init__(self, answer, max_length=100_000):
        self.answer, self.max_length = answer, max_length
        self.meter = Meter()
        self.asked, self.seeds, self.rooms, self.sizes = [], [], [], []

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.asked += prompts
        self.seeds += seed
        self.rooms += [max_new_tokens] * len(prompts)
        self.sizes.append(len(prompts))
        made = []
        for prompt, own in zip(prompts, seed):
            text = self.answer(prompt, own)
            cut = text.endswith("[cut]")
            text = text.removesuffix("[cut]")
            made.append(Generation(text, tuple(range(len(text.split()))), cut, len(prompt.split())))
        self.meter.add(generated_tokens=sum(len(one.token_ids) for one in made), calls=len(prompts))
        return made
