"""What searches and studies share: a queue of jobs, processes and batches."""
