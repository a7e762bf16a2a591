"""`ToyModel`: a model that is one number, its skill; saved as JSON, metered like a real one."""

import hashlib
import json
from pathlib import Path

from tutelage.models.seam import Model


class ToyModel(Model):
    kind = "toy"

    def __init__(self, skill: float, name: str = "toy") -> None:
        super().__init__(name)
        self.skill = skill

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(repr(self.skill).encode(), digest_size=8).hexdigest()

    def save(self, path):
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "toy.json").write_text(json.dumps({"skill": self.skill}), encoding="utf-8")
        return folder

    @classmethod
    def open(cls, path) -> "ToyModel":
        return cls(json.loads((Path(path) / "toy.json").read_text(encoding="utf-8"))["skill"])
