"""A guess at the language of every text, by its common words or its script; needs no model.

In languages of Latin or Cyrillic script h_l counts the words of a text that are among the most common ones of
language l. The language is the one with the largest h_l if that is at least `min_share` of the words (`und`, not
determined, otherwise), and `language_score` is h_1 / (h_1 + h_2) for the best and the second best. A text whose
characters are, by a fifth or more, of a script that one language owns is in that language; the score is then their
share. Source code comes out as the language of its words and comments, often `und`. One-letter words are left out:
code is full of them. The lists are ours.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.ngrams import HashSet
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import hash_words

CARD = {
    "name": "signals.language",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Guesses the language of every text from its common words or its script.",
    "reads": ["text"],
    "writes": ["language", "language_score"],
    "cost": "one pass over the words",
    "baseline": "signals.length",
    "headline": "enough to set texts of another language aside; too coarse for short or mixed texts",
    "version": 1,
}
UNDETERMINED = "und"
COMMON = {
    "en": "the of and to in is that it for was on are as with be this have from or by not but at an you we",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus",
    "fr": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont avec cette",
    "es": "de la que el en los del se las por un para con no una su al lo como más pero sus le ya este entre",
    "it": "di il la che in per un è non una del si le con da dei della sono al come più nel alla ma gli anche",
    "pt": "de que do da em um para com não uma os no se na por mais as dos como mas ao ele das seu foi são",
    "nl": "de het een en van in is dat op te voor met zijn niet aan er om ook als maar door bij naar uit worden",
    "sv": "och att det som en på är av för med till den har de inte om ett han men var jag från vi så kan",
    "da": "og at det er en til på som af for med den der ikke de et har fra var men han jeg vi kan sig",
    "pl": "na się nie do to że jest jak po co ale od za przez dla są czy tym tego być było ich jego który",
    "cs": "se na je že do to ve pro za by ale si po jako jsou tak nebo není byl který jeho podle může před",
    "fi": "ja on ei että se oli hän mutta joka kun myös kuin niin sen ovat tai jos voi ole mitä sitä",
    "hu": "az és hogy nem is egy ez meg de volt csak van mint vagy el még már ha azt ki lehet szerint",
    "tr": "ve bir bu da de için ile çok olarak daha gibi sonra kadar ne ama olan var her ya değil",
    "ro": "și de la în nu că cu pe un din este să mai sau care pentru prin sunt ca fi au fost",
    "ru": "не на что как это по но из за от так для же все бы был если или только мы вы они его при",
    "uk": "не на що як це до та за від для або але так він вона вони його при між після був які",
}
# Script -> the language that owns it; Han with enough kana is Japanese.
SCRIPTS = {
    "zh": r"\p{Han}",
    "ja": r"[\p{Hiragana}\p{Katakana}]",
    "ko": r"\p{Hangul}",
    "ar": r"\p{Arabic}",
    "he": r"\p{Hebrew}",
    "hi": r"\p{Devanagari}",
    "th": r"\p{Thai}",
    "el": r"\p{Greek}",
}
LEAST_OF_SCRIPT = 0.2
LEAST_KANA = 0.1
# Texts at a time: the arrays of their words are many times as large as they are.
BATCH = 256


def common_words(array: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """(hits [D, L], words [D]): how many words of each text are common ones of each language of `COMMON`."""
    words = hash_words(array)
    owner = words.documents
    hits = np.zeros((len(array), len(COMMON)), dtype=np.int64)
    for number, common in enumerate(COMMON.values()):
        found, _ = HashSet(hash_words(common.split()).hashes).find(words.hashes)
        hits[:, number] = np.bincount(owner[found], minlength=len(array))
    return hits, np.diff(words.bounds)


def script_shares(array: pa.LargeStringArray) -> np.ndarray:
    """Share of the characters of each text that are of each script of `SCRIPTS`, [D, S]."""
    characters = np.maximum(pc.utf8_length(array).to_numpy(zero_copy_only=False), 1)
    found = [
        pc.count_substring_regex(array, pattern).to_numpy(zero_copy_only=False) for pattern in SCRIPTS.values()
    ]
    shares = np.stack(found, axis=1) / characters[:, None]
    han, kana = list(SCRIPTS).index("zh"), list(SCRIPTS).index("ja")
    both = shares[:, han] + shares[:, kana]
    japanese = shares[:, kana] >= LEAST_KANA * np.maximum(both, 1e-12)
    shares[:, han] = np.where(japanese, 0, shares[:, han])
    shares[:, kana] = np.where(japanese, both, 0)
    return shares


class Language(Scorer):
    """`min_share` of the words must be common ones of the language."""

    min_share: float = Field(default=0.05, gt=0, le=1)

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, object]:
        array = text_array(shard)
        parts = [self._guess(array[at : at + BATCH]) for at in range(0, len(array), BATCH)]
        language = pa.array([name for names, _ in parts for name in names.tolist()], pa.string())
        return {"language": language, "language_score": np.concatenate([np.zeros(0), *(s for _, s in parts)])}

    def _guess(self, array: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
        """(language, score) of every text, [D] each."""
        names = np.array(list(COMMON), dtype=object)
        hits, words = common_words(array)
        ranked = np.sort(hits, axis=1)
        best, second = ranked[:, -1], ranked[:, -2]
        sure = (best > 0) & (best >= self.min_share * words)
        language = np.where(sure, names[hits.argmax(axis=1)], UNDETERMINED)
        score = np.where(sure, best / np.maximum(best + second, 1), 0.0)
        other = np.flatnonzero(~pc.string_is_ascii(array).to_numpy(zero_copy_only=False))
        if len(other):
            shares = script_shares(array.take(pa.array(other)))
            largest = shares.max(axis=1)
            mark = largest >= LEAST_OF_SCRIPT
            language[other[mark]] = np.array(list(SCRIPTS), dtype=object)[shares.argmax(axis=1)[mark]]
            score[other[mark]] = largest[mark]
        return language, score
