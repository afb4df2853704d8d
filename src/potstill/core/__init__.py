"""What everything else rests on: no torch, no network."""
