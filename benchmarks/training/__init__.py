"""Training beside TRL: the chats, and the programs of the child processes."""
