"""Widths that fit together, or an error that says which do not."""

from schemas.errors import OsoraError


def check_widths(hidden_size: int, num_heads: int, *, pairs: bool = False) -> None:
    """Raise OsoraError where the heads do not divide the width, or sines and cosines of two axes do not fit into it.

    With `pairs`, features of a head are rotated two by two, so a head needs an even number of them.
    """
    if hidden_size % num_heads:
        raise OsoraError(
            f"model.hidden_size = {hidden_size} is no multiple of model.num_heads = {num_heads}: "
            "every head has hidden_size / num_heads features. Change one of the two."
        )
    if hidden_size % 4:
        raise OsoraError(
            f"model.hidden_size = {hidden_size} is no multiple of 4: a position is sine and cosine of a row and a column. "
            f"Use {hidden_size // 4 * 4 or 4} or {hidden_size // 4 * 4 + 4}."
        )
    if pairs and hidden_size // num_heads % 2:
        raise OsoraError(
            f"model.hidden_size / model.num_heads = {hidden_size // num_heads}: a head's features are rotated in pairs, so "
            "their number has to be even. Change one of the two."
        )
