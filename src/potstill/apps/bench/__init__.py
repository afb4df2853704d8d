"""`potstill bench`: measure a packaged model on the machine that will run it."""
