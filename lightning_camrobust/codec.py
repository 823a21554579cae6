"""A user's encoder and decoder: images to latent codes and back, without leaving a trace on either."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.isolation import observe_only

Encode = Callable[[Tensor], Tensor | Sequence[Tensor]]
Decode = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Codec:
    """An encoder and a decoder that belong together; with neither, a code is the image itself.

    Attributes:
        encode: Images ``(b, c, H, W)`` in [0, 1] to a tensor ``(b, ...)``, or a tuple or list of them.
        decode: The way back, called with what ``encode`` returned, changed.

    Raises:
        ArgumentError: If only one of the two is given.

    Example:
        >>> codec = Codec(encode=lambda images: (images * 2, images[:, :1]), decode=lambda code: code[0] / 2)
        >>> images = torch.rand(2, 3, 4, 4)
        >>> parts, rebuild = codec.read(images)
        >>> [tuple(part.shape) for part in parts]
        [(2, 3, 4, 4), (2, 1, 4, 4)]
        >>> torch.equal(rebuild(*parts), images)
        True
    """

    encode: Encode | None = None
    decode: Decode | None = None

    def __post_init__(self) -> None:
        if (self.encode is None) is not (self.decode is None):
            raise ArgumentError("`encode` and `decode` belong together, but one is None. Pass both, or none of them.")

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Run the block with modules in eval mode, and leave them and all random streams as they were.

        Modules are seen where they, or methods of them, are the encoder or decoder; a plain function has to put the
        modules that it uses in eval mode by itself.

        Yields:
            Nothing.
        """
        with ExitStack() as stack:
            for half in (self.encode, self.decode):
                owner = half if isinstance(half, nn.Module) else getattr(half, "__self__", None)
                if isinstance(owner, nn.Module):
                    stack.enter_context(observe_only(owner))
            yield

    def read(self, images: Tensor) -> tuple[list[Tensor], Callable[..., Tensor]]:
        """Encode images.

        Args:
            images: ``(b, c, H, W)`` in [0, 1].

        Returns:
            The tensors of the code, without a graph, and a function that decodes such tensors, differentiable, to
            ``(b, c, H, W)`` in the dtype of ``images``, not clipped.

        Raises:
            ArgumentError: If the code is no float tensor, or several of them, with one row an image. The function
                raises it if it does not return images of the same shape.
        """
        with torch.no_grad():
            code = images if self.encode is None else self.encode(images)
        parts = [code] if isinstance(code, Tensor) else list(code) if isinstance(code, (tuple, list)) else []
        if not parts or not all(_has_rows(part, len(images)) for part in parts):
            raise ArgumentError(
                f"`encode` must return a float tensor ({len(images)}, ...), one row an image, or a tuple or list of "
                f"such tensors; got {_described(code)}. Of a VAE return the mean of the posterior."
            )

        def decode(*changed: Tensor) -> Tensor:
            whole = changed[0] if isinstance(code, Tensor) else list(changed) if isinstance(code, list) else changed
            decoded = whole if self.decode is None else self.decode(whole)
            if not isinstance(decoded, Tensor) or decoded.shape != images.shape:
                raise ArgumentError(
                    f"`decode` must return images {tuple(images.shape)}, as `encode` was given; "
                    f"got {_described(decoded)}."
                )
            return decoded.to(images.dtype)

        return [part.detach().clone() for part in parts], decode


def _has_rows(part: object, count: int) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point() and part.dim() > 1 and len(part) == count


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}, {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of ({'; '.join(_described(each) for each in value)})"
    return type(value).__name__
