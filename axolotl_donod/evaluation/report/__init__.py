"""The report on evaluation runs: one HTML file, Markdown, pictures and JSON."""
