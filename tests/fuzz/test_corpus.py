"""Files that once broke a promise, and the valid ones they came from: all of them, on every run."""

import pytest

from fuzz import engine, targets
from fuzz.test_fuzz import available, own_places

MUTATIONS = [
    ("src/tutelage/core/json_text.py", "except RecursionError:", "except ZeroDivisionError:"),
    ("src/tutelage/core/discovery.py", "not isinstance(name, str) or ", ""),
    ("src/tutelage/core/errors.py", "None if self.expected is None else _clip(self.expected)", "self.expected"),
    ("src/tutelage/core/dataset.py", "ValueError, TypeError, AttributeError, OSError", "ValueError, OSError"),
    (
        "src/tutelage/core/labelling/queue.py",
        "    except (TypeError, ValueError) as error:",
        "    except KeyError as error:",
    ),
    ("src/tutelage/data/read/_types.py", "deeper(value, MOST_LEVELS)", "False"),
    ("src/tutelage/core/items.py", "(OSError, ValueError, pa.ArrowException)", "(OSError, ValueError)"),
    ("src/tutelage/core/results_import.py", "if count <= 0:", "if False:"),
    ("src/tutelage/models/convert.py", "if len(found) < count:", "if False:"),
    ("src/tutelage/training/_checkpoint.py", "json_text.loads((path / MARKER)", "json.loads((path / MARKER)"),
    ("src/tutelage/models/endpoint.py", "-1e300 < logp < 1e300", "math.isfinite(logp)"),
    (
        "src/tutelage/models/encoder.py",
        "TypeError, OverflowError):\n        return None",
        "TypeError):\n        return None",
    ),
    ("src/tutelage/models/load.py", "not 0 < found.model_max_length < math.inf", "False"),
    (
        "src/tutelage/models/ngram.py",
        "except Exception as error:  # a damaged",
        "except OSError as error:  # a damaged",
    ),
    ("src/tutelage/core/items.py", "(OSError, ValueError, pa.ArrowException)", "(OSError, pa.ArrowException)"),
    ("src/tutelage/evaluation/_lm_eval_prompts.py", "RecursionError, re.error", "re.error"),
    ("src/tutelage/core/items.py", "table.validate(full=True)", "table.validate()"),
    (
        "src/tutelage/evaluation/_lm_eval_config.py",
        'json_text.require_complete(json.dumps(content, ensure_ascii=False, default=str), "a task file", file)',
        "pass",
    ),
    (
        "src/tutelage/evaluation/_lm_eval_config.py",
        '                expected="values only",\n                found=f"!function {name}",\n',
        "",
    ),
    ("src/tutelage/data/read/_types.py", 'require_complete(key, f"a key of column {place!r}")', "pass"),
    (
        "src/tutelage/data/read/_tables.py",
        "        table.validate(full=True)\n        return {}",
        "        return {}",
    ),
    (
        "src/tutelage/data/read/_tables.py",
        "        except (OverflowError, ValueError):\n            for",
        "        except KeyError:\n            for",
    ),
    ("src/tutelage/data/read/parquet.py", "OSError, UnicodeDecodeError)", "OSError)"),
    ("src/tutelage/data/read/auto.py", "OSError, zlib.error", "OSError"),
    ("src/tutelage/models/endpoint.py", "type(one) is int and 0 <= one < 2**53", "one is not None"),
    ("src/tutelage/models/load.py", "except BaseException as error:", "except OSError as error:"),
    (
        "src/tutelage/models/peft_io.py",
        "    except Exception as error:  # the libraries",
        "    except OSError as error:  # the libraries",
    ),
    ("src/tutelage/runs/_yaml.py", "if len(node.value) > MAX_DIGITS:", "if False:"),
    ("src/tutelage/runs/_yaml.py", 'if getattr(event, "tag", None) is not None:', "if False:"),
    (
        "src/tutelage/runs/payload.py",
        "(OSError, EOFError, LookupError, ValueError, TypeError,",
        "(OSError, EOFError,",
    ),
]
CASES = [(name, file) for name in targets.names() for file in engine.kept(name)]


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_what_was_found_stays_mended(name, tmp_path, monkeypatch):
    target = available(name)
    own_places(tmp_path, monkeypatch)
    engine.unchanged(target, tmp_path)
    for file in engine.kept(name):
        try:
            engine.check(target, engine.Case.of(file), tmp_path)
        except engine.Finding as finding:
            pytest.fail(f"{file.name}: {finding}")


def test_every_folder_of_the_corpus_has_its_target():
    folders = {folder.name for folder in engine.CORPUS.iterdir()} if engine.CORPUS.is_dir() else set()
    assert folders <= set(targets.names())
