"""Parts that stages and apps share; they import core and, in a fixed order, each other."""
