"""Recipes, planned, run, resumed and compared: `from tutelage.runs import load_recipe, plan, run, resume`."""

from tutelage.runs.execute import RunResult, prepare, resume, run
from tutelage.runs.ledger import Ledger
from tutelage.runs.plan import Plan, plan
from tutelage.runs.recipe import Recipe, load_recipe

__all__ = ["Ledger", "Plan", "Recipe", "RunResult", "load_recipe", "plan", "prepare", "resume", "run"]
