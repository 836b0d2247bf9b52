import polars as pl
import pytest

from dp_assets.corpus.schemas import (
    SCHEMAS,
    SYNTHETIC_BINS,
    SYNTHETIC_EMBEDDINGS,
    SYNTHETIC_POOL,
    SchemaError,
    check_schema,
)


def vectors(dtype: pl.DataType) -> pl.LazyFrame:
    return pl.LazyFrame(schema={"synthetic_id": pl.String(), "vector": dtype})


@pytest.mark.parametrize("table", sorted(SCHEMAS))
def test_every_schema_accepts_an_empty_table_of_its_own(table: str) -> None:
    check_schema(pl.DataFrame(schema=SCHEMAS[table]), SCHEMAS[table], name=table)


def test_all_problems_are_named_at_once_without_values() -> None:
    frame = pl.DataFrame({"text": ["a secret"], "num_tokens": ["1"]})
    with pytest.raises(SchemaError) as error:
        check_schema(frame, SYNTHETIC_POOL, name="synthetic_pool")
    assert str(error.value) == (
        "the table synthetic_pool does not have the expected columns:"
        " synthetic_id is missing, expected String; num_tokens is String, expected Int64"
    )


def test_further_columns_and_another_order_are_fine() -> None:
    frame = pl.DataFrame({"num_tokens": [1], "other": [2.0], "text": ["a"], "synthetic_id": ["pool-1"]})
    check_schema(frame.lazy(), SYNTHETIC_POOL, name="synthetic_pool")


@pytest.mark.parametrize("width", [1, 384])
def test_vectors_of_any_width_are_fine(width: int) -> None:
    check_schema(vectors(pl.Array(pl.Float32, width)), SYNTHETIC_EMBEDDINGS, name="synthetic_embeddings")


@pytest.mark.parametrize(
    "dtype", [pl.Array(pl.Float64, 3), pl.List(pl.Float32), pl.Float32(), pl.Array(pl.Float32, (2, 3))], ids=str
)
def test_anything_but_flat_float32_vectors_is_refused(dtype: pl.DataType) -> None:
    with pytest.raises(SchemaError, match=r"vector is .*, expected Array\(Float32\) of any width"):
        check_schema(vectors(dtype), SYNTHETIC_EMBEDDINGS, name="synthetic_embeddings")


def test_bins_made_from_numpy_centroids_fit() -> None:
    import numpy as np

    rows = pl.DataFrame({"bin_id": range(2), "centroid": pl.Series(np.zeros((2, 4), np.float32))})
    check_schema(rows, SYNTHETIC_BINS, name="synthetic_bins")
