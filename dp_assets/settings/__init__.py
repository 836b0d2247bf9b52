"""The settings of a run: the profile, the named profiles, and whether the settings fit together."""
