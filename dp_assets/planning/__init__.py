"""Cost and error of a plan, before anything is spent."""
