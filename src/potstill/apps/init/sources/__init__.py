"""What `potstill init --from` reads: rows, tables, tools, logs of requests, and a task in words."""
