"""signals.language."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals.language import COMMON, Language

PROOF = {"signals.language": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/signals/language.py", "hits.argmax(axis=1)", "hits.argmin(axis=1)"),
    ("src/tutelage/signals/language.py", "best + second, 1)", "best + second + 1, 1)"),
    ("src/tutelage/signals/language.py", "np.where(japanese, both, 0)", "shares[:, kana] * 0"),
    ("src/tutelage/signals/language.py", "best >= self.min_share * words", "best >= 0 * words"),
]
TEXTS = {
    "en": "The house by the river was sold to a family that had lived in the town for many years.",
    "de": "Das Haus am Fluss wurde an eine Familie verkauft, die sich für den Garten entschied.",
    "fr": "La maison qui est sur le bord de la rivière ne sera pas vendue, et les gens sont contents.",
    "es": "La casa que está en el camino no se vende, pero los vecinos del pueblo dicen que es una de las más.",
    "it": "La casa che si trova nel bosco non è una delle più grandi, ma gli abitanti del paese sono contenti.",
    "pt": "A casa que fica no fim da estrada não foi vendida, mas os vizinhos dizem que é uma das mais antigas.",
    "nl": "Het huis aan de rivier is niet verkocht, maar de mensen van het dorp zijn er blij mee.",
    "sv": "Huset som ligger vid ån är inte sålt, men de som bor i byn har det bra och vi kan gå dit från skolan.",
    "da": "Huset ved åen er ikke solgt, men de der bor i byen har det godt, og vi kan gå dertil fra skolen.",
    "pl": "Dom nad rzeką nie jest na sprzedaż, ale ludzie mówią, że to jest tylko plotka i że się nie zmieni.",
    "cs": "Dům u řeky není na prodej, ale lidé říkají, že to je jen řeč a že se nic nestane, jako tak často.",
    "fi": "Talo on joen rannalla ja se ei ole myynnissä, mutta kylän väki sanoo että hän voi muuttaa kun haluaa.",
    "hu": "Az a ház nem eladó, és az emberek azt mondják, hogy ez csak mese, de már volt ilyen is, mint ez.",
    "tr": "Bu ev çok eski ama satılık değil ve köydeki herkes için bir anı gibi olan bahçe daha güzel.",
    "ro": "Casa de pe deal nu este de vânzare, dar oamenii care sunt în sat spun că va fi vândută și mai târziu.",
    "ru": "Дом у реки не продаётся, но все говорят, что это так, если он не был продан, как только мы уехали.",
    "uk": "Будинок не продається, але всі кажуть, що це так, як він був після війни, та вони за це не платили.",
    "zh": "河边的房子没有出售，但是村里的人都很高兴。",
    "ja": "川のそばの家は売られていませんが、村の人々は喜んでいます。",
    "ko": "강가의 집은 팔리지 않았지만 마을 사람들은 기뻐합니다.",
    "ar": "البيت الذي على النهر لم يبع ولكن أهل القرية سعداء.",
    "he": "הבית שליד הנהר לא נמכר אבל אנשי הכפר שמחים.",
    "hi": "नदी के किनारे का घर नहीं बिका लेकिन गाँव के लोग खुश हैं।",
    "th": "บ้านริมแม่น้ำไม่ได้ขาย แต่ชาวบ้านมีความสุข",
    "el": "Το σπίτι δίπλα στο ποτάμι δεν πουλήθηκε.",
    "und": "x = foo(bar)[12] + qux * 0x7f ; zz <<= 3",
}


def scored(texts, **fields):
    data = Dataset.from_rows({"id": f"t{i}", "text": text} for i, text in enumerate(texts))
    return score_dataset(Language(**fields), data, {})


def test_one_text_per_language():
    got = scored(TEXTS.values())
    assert got.column("language").to_pylist() == list(TEXTS)
    scores = got.numpy("language_score")
    assert (scores[:-1] > 0.5).all() and scores[-1] == 0


def test_the_score_is_the_best_against_the_second_best():
    text = "the house is in the garden of die der"
    words = text.split()
    hits = sorted(sum(word in common.split() for word in words) for common in COMMON.values())
    got = scored([text]).numpy("language_score")[0]
    assert got == pytest.approx(hits[-1] / (hits[-1] + hits[-2])) and got < 0.9


def test_few_common_words_are_not_enough():
    text = "The " + "zork " * 30
    assert scored([text]).column("language").to_pylist() == ["und"]
    assert scored([text], min_share=0.03).column("language").to_pylist() == ["en"]


def test_upper_case_composed_letters_and_empty_texts():
    decomposed = "La maison de l'e\u0301te\u0301 est a\u0300 vendre pour les gens"
    got = scored([TEXTS["en"].upper(), decomposed, "", "\n"])
    assert got.column("language").to_pylist() == ["en", "fr", "und", "und"]
    assert np.isfinite(got.numpy("language_score")).all()


def test_bad_input():
    with pytest.raises(ConfigError, match="min_share"):
        Language(min_share=0)
    with pytest.raises(InputError, match="no text"):
        score_dataset(Language(), Dataset.from_rows([{"id": "a", "n": 1}]), {})
