"""Methods without torch for tests of the runs floor: a model is a number, training adds the worth of rows."""
