"""The ledger: one SQLite file per workspace that remembers runs, steps, results, comparisons and gates.

Written by one process per run, read by anyone at any time (write-ahead log). `Ledger(workspace).run("latest")`
gives everything about a run as one plain dict; the report is made from nothing else but this and the store.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage.core.errors import InputError, StoreError, suggest
from tutelage.runs.paths import STATE

FILE = "ledger.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, name TEXT, status TEXT, started TEXT, finished TEXT, recipe TEXT, recipe_hash TEXT,
  place TEXT, options TEXT, environment TEXT, error TEXT);
CREATE TABLE IF NOT EXISTS steps (
  run_id TEXT, number INTEGER, arm TEXT, seed INTEGER, round INTEGER, step TEXT, method TEXT, kind TEXT, key TEXT,
  content TEXT, cached INTEGER, as_if TEXT, paid TEXT, seconds REAL, rows_in INTEGER, facts TEXT, at TEXT,
  PRIMARY KEY (run_id, number));
CREATE TABLE IF NOT EXISTS results (
  run_id TEXT, arm TEXT, seed INTEGER, round INTEGER, step TEXT, key TEXT, result TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS declarations (run_id TEXT PRIMARY KEY, declared TEXT, hash TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS comparisons (run_id TEXT PRIMARY KEY, comparison TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS gates (run_id TEXT, number INTEGER, gate TEXT, PRIMARY KEY (run_id, number));
CREATE INDEX IF NOT EXISTS steps_by_method ON steps (method);
"""


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Ledger:
    """The ledger of a workspace; opening it for reading creates nothing."""

    def __init__(self, workspace: str | Path) -> None:
        self.workspace = Path(workspace)
        self.file = self.workspace / STATE / FILE
        self._ready = False

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
            db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    run_id,
                    recipe["name"],
                    "running",
                    known["started"] if known else now(),
                    None,
                    text,
                    hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
                    _json(place),
                    _json(options),
                    _json(environment),
                    None,
                ),
            )
            for table in ("steps", "results", "gates"):
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))

    def finish(self, run_id: str, status: str, error: Mapping[str, Any] | None = None) -> None:
        """Close a run with `passed`, `failed`, `gate failed`, `waiting` or `interrupted`."""
        with self._write() as db:
            db.execute(
                "UPDATE runs SET status = ?, finished = ?, error = ? WHERE run_id = ?",
                (status, now(), _json(error) if error else None, run_id),
            )

    def step(self, run_id: str, entry: Mapping[str, Any]) -> None:
        """Record one step: arm, seed, round, step, method, kind, key, content, cached, as_if and paid costs,
        seconds, rows_in, facts."""
        with self._write() as db:
            number = db.execute("SELECT COUNT(*) FROM steps WHERE run_id = ?", (run_id,)).fetchone()[0]
            db.execute(
                "INSERT INTO steps VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
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
                ),
            )

    def result(self, run_id: str, entry: Mapping[str, Any]) -> None:
        """Record one measurement: arm, seed, round, step, key (its artifact, with the item log), result."""
        with self._write() as db:
            values = [entry.get(n) for n in ("arm", "seed", "round", "step", "key")]
            db.execute(
                "INSERT INTO results VALUES (?,?,?,?,?,?,?,?)", (run_id, *values, _json(entry["result"]), now())
            )

    def declare(self, run_id: str, declared: Mapping[str, Any]) -> dict[str, Any]:
        """Record what is to be compared, before it is; a declaration once made is never replaced.

        Returns the recorded declaration with its hash and time.
        """
        text = _json(declared)
        with self._write() as db:
            digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            db.execute("INSERT OR IGNORE INTO declarations VALUES (?,?,?,?)", (run_id, text, digest, now()))
            row = db.execute("SELECT * FROM declarations WHERE run_id = ?", (run_id,)).fetchone()
        return {**json.loads(row["declared"]), "hash": row["hash"], "at": row["at"]}

    def comparison(self, run_id: str, table: Mapping[str, Any]) -> None:
        """Record the finished comparison."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO comparisons VALUES (?,?,?)", (run_id, _json(table), now()))

    def gate(self, run_id: str, number: int, gate: Mapping[str, Any]) -> None:
        """Record how a gate came out."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO gates VALUES (?,?,?)", (run_id, number, _json(gate)))

    # -- reading ------------------------------------------------------------------------------------------

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first: run_id, name, status, started, finished."""
        with self._read() as db:
            rows = db.execute(
                "SELECT run_id, name, status, started, finished FROM runs ORDER BY started DESC, rowid DESC"
            )
            return [dict(row) for row in rows]

    def run(self, run_id: str = "latest") -> dict[str, Any]:
        """Everything about one run; `latest`, an id or its unambiguous beginning.

        Keys: run_id, name, status, started, finished, recipe (resolved), recipe_hash, place, options, environment,
        error, steps [...], results [...], declared, comparison, gates [...].
        """
        full = self._find(run_id)
        with self._read() as db:

            def rows(query: str) -> list[dict[str, Any]]:
                return [_plain(row) for row in db.execute(query, (full,))]

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
            rows = db.execute("SELECT run_id, key, facts FROM steps WHERE key IS NOT NULL").fetchall()
        wanted = [_plain(row) for row in rows if run_ids is None or row["run_id"] in run_ids]
        return {row["key"] for row in wanted} | {key for row in wanted for key in row["facts"].get("needs", [])}

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
                    db.executescript(_SCHEMA)
                    self._ready = True
                with db:
                    yield db
            finally:
                db.close()
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise StoreError(
                "the ledger cannot be written",
                where=self.file,
                found=error,
                remedy="free space or choose a --workspace that can be written",
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
            db = sqlite3.connect(self.file, timeout=30)
            try:
                db.row_factory = sqlite3.Row
                yield db
            finally:
                db.close()
        except sqlite3.DatabaseError as error:
            raise StoreError("the ledger cannot be read", where=self.file, found=error) from None


_JSON_COLUMNS = (
    "recipe",
    "place",
    "options",
    "environment",
    "error",
    "as_if",
    "paid",
    "facts",
    "result",
    "declared",
    "comparison",
    "gate",
)


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    found = dict(row)
    for name in _JSON_COLUMNS:
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    if "cached" in found:
        found["cached"] = bool(found["cached"])
    return found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
