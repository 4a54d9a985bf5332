"""The report on a pruned data set: one HTML file, Markdown and pictures."""
