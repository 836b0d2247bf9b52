"""Sources, preparation and contribution bounds."""
