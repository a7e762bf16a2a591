"""A person labels items: the session of one annotator, the local page, exchange with other tools, agreement."""
