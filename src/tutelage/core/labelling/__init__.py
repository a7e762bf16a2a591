"""What people answer: the queue of items to label and the journal of their answers, as files."""
