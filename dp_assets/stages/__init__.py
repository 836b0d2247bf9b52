"""Functions that connect resources and pure code for one stage each. They use Dagster's context and import no asset."""
