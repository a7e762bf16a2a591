"""The thresholds of published filters over the columns of `signals.heuristic_rules`: column -> (min, max)."""

Bound = tuple[float | None, float | None]

GOPHER: dict[str, Bound] = {
    "rule_words": (50, 100_000),
    "rule_mean_word": (3, 10),
    "rule_hashes_per_word": (None, 0.1),
    "rule_ellipses_per_word": (None, 0.1),
    "rule_bullet_lines": (None, 0.9),
    "rule_ellipsis_lines": (None, 0.3),
    "rule_alpha_words": (0.8, None),
    "rule_stop_words": (2, None),
    "rule_duplicate_lines": (None, 0.3),
    "rule_duplicate_paragraphs": (None, 0.3),
    "rule_duplicate_line_characters": (None, 0.2),
    "rule_duplicate_paragraph_characters": (None, 0.2),
    "rule_top_2gram": (None, 0.20),
    "rule_top_3gram": (None, 0.18),
    "rule_top_4gram": (None, 0.16),
    "rule_repeated_5grams": (None, 0.15),
    "rule_repeated_6grams": (None, 0.14),
    "rule_repeated_7grams": (None, 0.13),
    "rule_repeated_8grams": (None, 0.12),
    "rule_repeated_9grams": (None, 0.11),
    "rule_repeated_10grams": (None, 0.10),
}
C4: dict[str, Bound] = {
    "rule_lorem_ipsum": (None, 0),
    "rule_braces": (None, 0),
    "rule_c4_sentences": (5, None),
}
MC4: dict[str, Bound] = {"rule_long_lines": (3, None)}
FINEWEB: dict[str, Bound] = {
    "rule_terminal_lines": (0.12, None),
    "rule_short_lines": (None, 0.67),
    "rule_duplicated_characters": (None, 0.01),
    "rule_newlines_per_word": (None, 0.3),
}
# From memory of StarCoder's filters: a default that is ours.
CODE: dict[str, Bound] = {
    "rule_mean_line": (None, 100),
    "rule_max_line": (None, 1000),
    "rule_alphanumeric": (0.25, None),
}
PROFILES: dict[str, dict[str, Bound]] = {
    "gopher": GOPHER,
    "c4": C4,
    "mc4": MC4,
    "fineweb": FINEWEB,
    "code": CODE,
    "none": {},
}
