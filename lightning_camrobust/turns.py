"""Which validations of a fit are probed when only every n-th epoch is."""


class Turns:
    """Count epochs from one probed epoch to the next, whatever the epochs in which the trainer validates.

    Args:
        every_n_epochs: Least number of epochs from one turn to the next.

    Attributes:
        last: Last probed epoch of this fit or of the one it was resumed from, None before the first.

    Example:
        >>> turns = Turns(every_n_epochs=2)
        >>> for epoch in (1, 2, 3):
        ...     if turns.due(epoch):
        ...         turns.taken(epoch)
        >>> turns.last
        3
    """

    def __init__(self, every_n_epochs: int) -> None:
        self.every_n_epochs = every_n_epochs
        self.last: int | None = None
        self._started = 0

    def start(self, epoch: int) -> None:
        """Remember in which epoch the training starts, or goes on."""
        self._started = epoch

    def due(self, epoch: int) -> bool:
        """Tell whether an epoch is probed: the first one, every n-th after it, and each of these to its end."""
        # An earlier epoch than the last belongs to a training that began anew.
        return self.last is None or epoch <= self.last or epoch - self.last >= self.every_n_epochs

    def taken(self, epoch: int) -> None:
        """Remember that an epoch was probed."""
        self.last = epoch

    def spans(self, epoch: int) -> float:
        """Tell how often the training since `start` fits between two turns, if it has come to the end of an epoch."""
        return max(1.0, self.every_n_epochs / (epoch - self._started + 1))
