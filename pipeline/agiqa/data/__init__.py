"""Images, prompts, data sets, splits, the leak audit, metrics and statistics."""
