import torch

from models.features import FieldEmbeddings


def test_fields_do_not_share_rows_and_outsiders_are_unknown() -> None:
    fields = FieldEmbeddings([3, 2], 1)
    with torch.no_grad():
        fields.table.copy_(torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]]))
    ids = torch.tensor([[2, 1], [3, 2], [-1, 0]])
    assert fields(ids).tolist() == [[2.0, 11.0], [0.0, 10.0], [0.0, 10.0]]
    assert fields.rows_of(1).tolist() == [[10.0], [11.0]]
    fields.reduce = "sum"
    assert fields(ids).tolist() == [[13.0], [10.0], [10.0]]
    assert fields(ids[:, :1]).tolist() == [[2.0], [0.0], [0.0]]  # fewer columns: the first fields


def test_sum_of_tables_equals_projected_concatenation() -> None:
    summed = FieldEmbeddings([4, 3], 5, "sum")
    tables = [torch.randn(4, 2), torch.randn(3, 2)]
    projection = torch.randn(4, 5)  # W, over the concatenation of two embeddings of width 2
    with torch.no_grad():
        summed.table.copy_(torch.cat([tables[0] @ projection[:2], tables[1] @ projection[2:]]))
    ids = torch.tensor([[[3, 1], [0, 2]], [[1, 1], [2, 0]]])
    concatenated = torch.cat([tables[0][ids[..., 0]], tables[1][ids[..., 1]]], -1)
    assert torch.allclose(summed(ids), concatenated @ projection, atol=1e-6)
