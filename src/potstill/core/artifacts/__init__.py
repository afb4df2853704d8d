"""What stages leave for each other: typed, frozen, with a format number. One file per kind."""
