"""What makes a Dagster graph private: the asset decorator, the release protocol, registration, partitions, runs."""
