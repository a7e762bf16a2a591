"""The ledger: one SQLite file per workspace that remembers runs, steps, results, comparisons and gates.

Written by one process per run, read by anyone at any time (write-ahead log). `Ledger(workspace).run("latest")`
gives everything about a run as one plain dict; the report is made from nothing else but this and the store.
Every entry carries a hash of its values, so that a changed one is never read as if it were what was written; every
table has an index over `run_id`, which SQLite's own check compares, so that none slips out of its run.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage.core.errors import InputError, StoreError, suggest
from tutelage.runs.paths import STATE

FILE = "ledger.sqlite"
FINISHED = ("passed", "gate failed")
_TABLES = ("runs", "steps", "results", "declarations", "comparisons", "gates")
_AGAIN = (
    "move the file aside, with those whose names begin like its name, and run the recipe again: complete steps "
    "are in the store and are not done again"
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, name TEXT, status TEXT, started TEXT, finished TEXT, recipe TEXT, recipe_hash TEXT,
  place TEXT, options TEXT, environment TEXT, error TEXT, check_sum TEXT);
CREATE TABLE IF NOT EXISTS steps (
  run_id TEXT, number INTEGER, arm TEXT, seed INTEGER, round INTEGER, step TEXT, method TEXT, kind TEXT, key TEXT,
  content TEXT, cached INTEGER, as_if TEXT, paid TEXT, seconds REAL, rows_in INTEGER, facts TEXT, at TEXT,
  check_sum TEXT, PRIMARY KEY (run_id, number));
CREATE TABLE IF NOT EXISTS results (
  run_id TEXT, arm TEXT, seed INTEGER, round INTEGER, step TEXT, key TEXT, result TEXT, at TEXT, check_sum TEXT);
CREATE TABLE IF NOT EXISTS declarations (
  run_id TEXT PRIMARY KEY, declared TEXT, hash TEXT, at TEXT, check_sum TEXT);
CREATE TABLE IF NOT EXISTS comparisons (run_id TEXT PRIMARY KEY, comparison TEXT, at TEXT, check_sum TEXT);
CREATE TABLE IF NOT EXISTS gates (
  run_id TEXT, number INTEGER, gate TEXT, check_sum TEXT, PRIMARY KEY (run_id, number));
CREATE TABLE IF NOT EXISTS needed (run_id TEXT, key TEXT, PRIMARY KEY (run_id, key));
CREATE INDEX IF NOT EXISTS steps_by_method ON steps (method);
CREATE INDEX IF NOT EXISTS results_by_run ON results (run_id);
"""


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Ledger:
    """The ledger of a workspace; opening it for reading creates nothing."""

    def __init__(self, workspace: str | Path) -> None:
        self.workspace = Path(workspace)
        self.file = self.workspace / STATE / FILE
        self._ready = self._checked = False

    # -- writing ------------------------------------------------------------------------------------------

    def start(
        self,
        run_id: str,
        recipe: Mapping[str, Any],
        place: Mapping[str, Any],
        options: Mapping[str, Any],
        environment: Mapping[str, Any],
    ) -> None:
        """Open a run, or open it again on resume (what was recorded of it so far is replaced as it is redone)."""
        text = _json(recipe)
        with self._write() as db:
            known = db.execute("SELECT started FROM runs WHERE run_id = ?", (run_id,)).fetchone()
            values = (
                run_id,
                recipe["name"],
                "running",
                known["started"] if known else now(),
                None,
                text,
                hashlib.blake2b(_json(recipe, sort_keys=True).encode(), digest_size=16).hexdigest(),
                _json(place),
                _json(options),
                _json(environment),
                None,
            )
            # What the steps made stays needed while they are gone through again.
            for key in _keys(db.execute("SELECT * FROM steps WHERE run_id = ?", (run_id,))):
                db.execute("INSERT OR IGNORE INTO needed VALUES (?,?)", (run_id, key))
            _put(db, "runs", values)
            for table in ("steps", "results", "gates"):
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))

    def finish(self, run_id: str, status: str, error: Mapping[str, Any] | None = None) -> None:
        """Close a run with `passed`, `failed`, `gate failed`, `waiting` or `interrupted`."""
        with self._write() as db:
            found = db.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
            changed = {"status": status, "finished": now(), "error": _json(error) if error else None}
            values = {**found, **changed}
            values["check_sum"] = _sum([values[name] for name in values if name != "check_sum"])
            for name in (*changed, "check_sum"):
                db.execute(f"UPDATE runs SET {name} = ? WHERE run_id = ?", (values[name], run_id))
            if status in FINISHED:
                db.execute("DELETE FROM needed WHERE run_id = ?", (run_id,))

    def step(self, run_id: str, entry: Mapping[str, Any]) -> None:
        """Record one step: arm, seed, round, step, method, kind, key, content, cached, as_if and paid costs,
        seconds, rows_in, facts."""
        with self._write() as db:
            number = db.execute("SELECT COUNT(*) FROM steps WHERE run_id = ?", (run_id,)).fetchone()[0]
            values = (
                run_id,
                number,
                *(entry.get(n) for n in ("arm", "seed", "round", "step", "method", "kind", "key", "content")),
                int(entry["cached"]),
                _json(entry["as_if"]),
                _json(entry["paid"]),
                entry.get("seconds"),
                entry.get("rows_in"),
                _json(entry.get("facts") or {}),
                now(),
            )
            _put(db, "steps", values)

    def result(self, run_id: str, entry: Mapping[str, Any]) -> None:
        """Record one measurement: arm, seed, round, step, key (its artifact, with the item log), result."""
        with self._write() as db:
            values = [entry.get(n) for n in ("arm", "seed", "round", "step", "key")]
            _put(db, "results", (run_id, *values, _json(entry["result"]), now()))

    def declare(self, run_id: str, declared: Mapping[str, Any]) -> dict[str, Any]:
        """Record what is to be compared, before it is; a declaration once made is never replaced.

        Returns the recorded declaration with its hash and time.
        """
        text = _json(declared)
        with self._write() as db:
            digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            query = "SELECT * FROM declarations WHERE run_id = ?"
            if db.execute(query, (run_id,)).fetchone() is None:
                _put(db, "declarations", (run_id, text, digest, now()))
            row = db.execute(query, (run_id,)).fetchone()
        return {**json.loads(row["declared"]), "hash": row["hash"], "at": row["at"]}

    def comparison(self, run_id: str, table: Mapping[str, Any]) -> None:
        """Record the finished comparison."""
        with self._write() as db:
            _put(db, "comparisons", (run_id, _json(table), now()))

    def gate(self, run_id: str, number: int, gate: Mapping[str, Any]) -> None:
        """Record how a gate came out."""
        with self._write() as db:
            _put(db, "gates", (run_id, number, _json(gate)))

    # -- reading ------------------------------------------------------------------------------------------

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first: run_id, name, status, started, finished."""
        with self._read() as db:
            rows = db.execute("SELECT * FROM runs ORDER BY started DESC, rowid DESC").fetchall()
        listed = []
        for row in rows:
            entry = {name: row[name] for name in ("run_id", "name", "status", "started", "finished")}
            try:
                self._sound(row)
            except StoreError:
                # The others can still be read; asking for this one is the error.
                entry["status"] = "damaged"
            listed.append(entry)
        return listed

    def run(self, run_id: str = "latest") -> dict[str, Any]:
        """Everything about one run; `latest`, an id or its unambiguous beginning.

        Keys: run_id, name, status, started, finished, recipe (resolved), recipe_hash, place, options, environment,
        error, steps [...], results [...], declared, comparison, gates [...].
        """
        full = self._find(run_id)
        with self._read() as db:

            def rows(query: str) -> list[dict[str, Any]]:
                return [self._sound(row) for row in db.execute(query, (full,))]

            found = rows("SELECT * FROM runs WHERE run_id = ?")[0]
            found["steps"] = rows("SELECT * FROM steps WHERE run_id = ? ORDER BY number")
            found["results"] = rows("SELECT * FROM results WHERE run_id = ? ORDER BY rowid")
            declared = rows("SELECT * FROM declarations WHERE run_id = ?")
            found["declared"] = (
                {**declared[0]["declared"], "hash": declared[0]["hash"], "at": declared[0]["at"]}
                if declared
                else None
            )
            comparison = rows("SELECT * FROM comparisons WHERE run_id = ?")
            found["comparison"] = comparison[0]["comparison"] if comparison else None
            found["gates"] = [row["gate"] for row in rows("SELECT * FROM gates WHERE run_id = ? ORDER BY number")]
            return found

    def history(self, method: str) -> list[dict[str, Any]]:
        """Past computations of a method: seconds, rows_in, as_if cost and facts; newest first, at most 50."""
        if not self.file.exists():
            return []
        with self._read() as db:
            rows = db.execute(
                "SELECT seconds, rows_in, as_if, facts FROM steps WHERE method = ? AND cached = 0"
                " AND seconds IS NOT NULL ORDER BY at DESC LIMIT 50",
                (method,),
            )
            return [_plain(row) for row in rows]

    def keys(self, run_ids: list[str] | None = None) -> set[str]:
        """Artifact keys that the given runs (default: all) made or used."""
        if not self.file.exists():
            return set()
        with self._read() as db:
            rows = db.execute("SELECT * FROM steps WHERE key IS NOT NULL").fetchall()
            known = db.execute("SELECT name FROM sqlite_master WHERE name = 'needed'").fetchone()
            needed = db.execute("SELECT * FROM needed").fetchall() if known else []
        wanted = [row for row in rows if run_ids is None or row["run_id"] in run_ids]
        found = {row["key"] for row in needed if run_ids is None or row["run_id"] in run_ids}
        for row in wanted:
            self._sound(row)
        return found | _keys(wanted)

    def _sound(self, row: sqlite3.Row) -> dict[str, Any]:
        """The entry as plain values; raises StoreError when it is not what was written."""
        found = dict(row)
        recorded = found.pop("check_sum", None)
        if recorded is not None and recorded != _sum(found.values()):
            raise StoreError(
                "an entry of the ledger is damaged",
                where=f"{self.file}, run {found['run_id']}",
                expected=f"values with the hash {recorded}",
                found=_sum(found.values()),
                remedy=_AGAIN,
            )
        return _plain(found)

    def _find(self, run_id: str) -> str:
        known = [run["run_id"] for run in self.runs()]
        if not known:
            raise InputError(
                "no run has been recorded",
                where=self.file,
                expected="at least one run",
                found="an empty ledger",
                remedy="run a recipe with this --workspace first",
            )
        if run_id == "latest":
            return known[0]
        matching = [name for name in known if name == run_id] or [
            name for name in known if name.startswith(run_id)
        ]
        if len(matching) != 1:
            what = (
                f"there is no run {run_id!r}" if not matching else f"{run_id!r} is the beginning of several runs"
            )
            raise InputError(
                what,
                where=self.file,
                expected="`latest`, or the id of a run or its beginning",
                found=run_id,
                remedy=suggest(run_id, matching or known),
            )
        return matching[0]

    # -- the file -----------------------------------------------------------------------------------------

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.file, timeout=30)
            try:
                db.row_factory = sqlite3.Row
                # A crash of the machine may lose the last entries, never the file; the work is in the store.
                db.execute("PRAGMA synchronous = NORMAL")
                if not self._ready:
                    db.execute("PRAGMA journal_mode = WAL")
                    _prepare(db)
                    self._ready = True
                with db:
                    yield db
            finally:
                db.close()
        except (sqlite3.Error, OSError) as error:
            room = isinstance(error, OSError | sqlite3.OperationalError)
            raise StoreError(
                "the ledger cannot be written",
                where=self.file,
                found=error,
                remedy="free space or choose a --workspace that can be written" if room else _AGAIN,
            ) from None

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        if not self.file.exists():
            raise InputError(
                "there is no ledger",
                where=self.file,
                expected="a workspace in which a recipe ran",
                found="no such file",
                remedy="run a recipe with this --workspace first",
            )
        try:
            db = self._opened()
            try:
                db.row_factory = sqlite3.Row
                if not self._checked:
                    found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
                    if found != "ok":
                        raise sqlite3.DatabaseError(found)
                    _check_columns(db)
                    self._checked = True
                yield db
            finally:
                db.close()
        except (sqlite3.Error, ValueError, LookupError) as error:
            raise StoreError("the ledger cannot be read", where=self.file, found=error, remedy=_AGAIN) from None

    def _opened(self) -> sqlite3.Connection:
        """A connection for reading; where nothing can be written, as a file that nobody changes."""
        if os.access(self.file.parent, os.W_OK):
            db = sqlite3.connect(self.file, timeout=30)
        else:
            db = sqlite3.connect(f"{self.file.absolute().as_uri()}?immutable=1", uri=True)
        # A process that was stopped while it made the file has left one without tables: nothing is recorded.
        if db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0:
            db.close()
            db = sqlite3.connect(":memory:")
            db.executescript(_SCHEMA)
        return db


_JSON_COLUMNS = tuple(
    "recipe place options environment error as_if paid facts result declared comparison gate".split()
)


def _plain(row: sqlite3.Row | dict[str, Any]) -> dict[str, Any]:
    found = dict(row)
    for name in _JSON_COLUMNS:
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    if "cached" in found:
        found["cached"] = bool(found["cached"])
    return found


def _json(value: Any, sort_keys: bool = False) -> str:
    # The order of keys is kept: a method may go by it, and what is resumed must be what was started.
    return json.dumps(value, sort_keys=sort_keys, default=str)


def _sum(values: Iterable[Any]) -> str:
    """Hash of an entry's values; of numbers, whatever type SQLite gives them."""
    plain = [repr(float(value)) if isinstance(value, int | float) else value for value in values]
    return hashlib.blake2b(json.dumps(plain, default=repr).encode(), digest_size=16).hexdigest()


def _put(db: sqlite3.Connection, table: str, values: Sequence[Any]) -> None:
    marks = ",".join("?" * (len(values) + 1))
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*values, _sum(values)))


def _keys(steps: Iterable[sqlite3.Row]) -> set[str]:
    """Keys of the artifacts that steps made, and of those that they needed for it."""
    plain = [_plain(row) for row in steps if row["key"]]
    return {row["key"] for row in plain} | {key for row in plain for key in row["facts"].get("needs", [])}


def _check_columns(db: sqlite3.Connection) -> None:
    """Raise DatabaseError for a table without a column that ours have: their names are bytes of the file too."""
    ours = sqlite3.connect(":memory:")
    try:
        ours.executescript(_SCHEMA)
        for table in _TABLES:
            wanted, found = (
                {column[1] for column in one.execute(f"PRAGMA table_info({table})")} - {"check_sum"}
                for one in (ours, db)
            )
            if wanted - found:
                raise sqlite3.DatabaseError(f"the table {table} has no {', '.join(sorted(wanted - found))}")
    finally:
        ours.close()


def _prepare(db: sqlite3.Connection) -> None:
    """The tables, all or none of them; a ledger from before entries had hashes gets the column."""
    db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
    for table in _TABLES:
        if "check_sum" not in [column["name"] for column in db.execute(f"PRAGMA table_info({table})")]:
            db.execute(f"ALTER TABLE {table} ADD COLUMN check_sum TEXT")
