"""CAMRobustnessCallback: when to probe, which images, whom to tell."""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_camrobust import messages
from lightning_camrobust.batches import find_images
from lightning_camrobust.both_lightnings import AnyCallback
from lightning_camrobust.budget import TimeBudget, TrainingClock
from lightning_camrobust.cache import TensorCache
from lightning_camrobust.compare.rbo import RankBiasedOverlap, Ties
from lightning_camrobust.fusion import LayerFusion
from lightning_camrobust.heldout import HeldOutImages, find_numbering
from lightning_camrobust.layers import layer_by_name
from lightning_camrobust.pixels import PixelSpace, make_pixel_space
from lightning_camrobust.plan import make_plan
from lightning_camrobust.publishing import Publisher
from lightning_camrobust.session import ProbeSession
from lightning_camrobust.settings import part_of_key, share_of_one, whole_number
from lightning_camrobust.severity import Column
from lightning_camrobust.spelling import Layer, Member
from lightning_camrobust.summary import TABLES, Report
from lightning_camrobust.trainers import (
    builds_modules_late,
    gather_rows,
    is_last_batch,
    monitors_of,
    pick_loader,
    refuse_sharded,
    validates_a_fit,
)
from lightning_camrobust.turns import Turns

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class CAMRobustnessCallback(AnyCallback):
    """Measure in each validation run whether the classifier still looks at the same place when images get noisy.

    It takes the first ``num_samples`` validation images, disturbs copies of them, explains clean and noisy copies with
    class activation maps, and logs how well the maps keep their order of segments. Training is not touched.

    Logged are ``val_cam_robustness`` (first method, pooled over perturbations and severities; an empty set counts
    as 1), ``val_cam_consistency``, ``val_cam_responsiveness``, ``val_cam_flip_rate``, ``val_cam_degenerate_rate``,
    ``val_cam_num_images``, ``val_cam_seconds``, and for each method, perturbation and severity
    ``cam_robustness/...``, ``cam_consistency/...`` and ``cam_flip_rate/...``. In a test run these are
    ``test_cam_robustness`` and so on, and ``test_cam_robustness/...`` for each cell.

    Args:
        methods: CAM methods; the first one gives the headline numbers.
        perturbations: What is done to the images.
        severities: Strengths, from 1 to 5.
        target_layer: Module, dotted name in the LightningModule, a list of such, or None for the last layer whose
            cells feed the prediction.
        layer_fusion: How the maps of several layers become one, ``"mean"`` or ``"max"``.
        segmenter: ``"quickshift"``, ``"slic"``, ``"grid"`` or an instance.
        num_samples: How many images to probe.
        every_n_epochs: Probe all validations of every n-th epoch of a fit, counted from its first validation; where
            the trainer validates in some epochs only, of the first validated one that is n or more epochs later.
        mean: What Normalize subtracted, in pixel units [0, 1]; None recognises the range of the images.
        std: What Normalize divided by.
        log_images: How many images are shown in the picture; 0 draws none, for any logger.
        arrange_tensorboard: Whether TensorBoard's Custom Scalars tab gets a layout, and, with
            ``TensorBoardLogger(default_hp_metric=False)``, its HParams tab the headline scores as columns. Switch it
            off if you write a layout of your own before the fit, or such columns at its end.
        seed: Of the noise.
        prog_bar: Whether the robustness is shown in the progress bar.
        prepare_batch: ``batch -> images (b, c, H, W)`` for batches whose images are not found by themselves.
        classifier: None if calling the LightningModule gives logits; else the dotted name of the submodule that does,
            or a function ``(module, images) -> logits``.
        target: Which class is explained: None for the predicted one, a class, or a function of the logits.
        multilabel: Whether each logit decides for itself, at 0; a prediction then counts as changed if the decision on
            the explained class did.
        dataloader_idx: Which of several validation (or test) loaders gives the images.
        max_time_share: Share of the training time, in (0, 1), that probing may take; None sets no limit. The first run
            of a fit measures both, and keeps as many of the ``num_samples`` images as fit (at least 4), then and later.
        chunk_size: How many images go through the network at once.
        rbo_p: Patience of the rank-biased overlap, in (0, 1).
        ties: Its tie rule, ``"b"``, ``"a"``, ``"w"`` or ``"stable"``.
        similarity: How maps are compared, a name such as ``"spearman"`` or an instance; None, or ``"rbo"``, is the
            rank-biased overlap with ``rbo_p`` and ``ties``.
        align_geometric: Whether the clean map is moved along where a geometric perturbation moves the object.
        severity_column: ``"imagenet"`` or ``"cifar"`` overrides the choice of severity values by image size.
        name: Part of the log keys; give each of several callbacks its own.

    Attributes:
        report: The last full result as plain data, None before the first.
        history: One row of headline numbers for each probed run.
        standing: The last number under each key of this fit; it stands until the key is logged again.

    Raises:
        ArgumentError: If a name is unknown or a setting out of range.

    Example:
        >>> callback = CAMRobustnessCallback(methods=["gradcam", "hirescam"], severities=(1, 3))
        >>> callback.report is None, callback.history
        (True, [])
    """

    def __init__(
        self,
        methods: Sequence[Member] = ("gradcam",),
        perturbations: Sequence[Member] = (
            "gaussian_noise",
            "shot_noise",
            "impulse_noise",
            "speckle_noise",
        ),
        *,
        severities: Sequence[int] = (1, 3, 5),
        target_layer: Layer | Sequence[Layer] | None = None,
        layer_fusion: LayerFusion = "mean",
        segmenter: Member = "quickshift",
        num_samples: int = 32,
        every_n_epochs: int = 1,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        log_images: int = 4,
        arrange_tensorboard: bool = True,
        seed: int = 0,
        prog_bar: bool = False,
        prepare_batch: Callable[[Any], Any] | None = None,
        classifier: Member | None = None,
        target: int | Callable[..., Any] | None = None,
        multilabel: bool = False,
        dataloader_idx: int = 0,
        max_time_share: float | None = None,
        chunk_size: int = 32,
        rbo_p: float = 0.2,
        ties: Ties = "b",
        similarity: Member | None = None,
        align_geometric: bool = False,
        severity_column: Column = "auto",
        name: str = "cam",
    ) -> None:
        super().__init__()
        self._plan = make_plan(
            methods,
            perturbations,
            severities=severities,
            segmenter=segmenter,
            similarity=RankBiasedOverlap(p=rbo_p, ties=ties) if similarity in (None, "rbo") else similarity,
            severity_column=severity_column,
            seed=seed,
            target=target,
            multilabel=multilabel,
            layer_fusion=layer_fusion,
            align_geometric=align_geometric,
        )
        self.classifier = classifier
        self.dataloader_idx = whole_number("dataloader_idx", dataloader_idx, least=0)
        self.target_layer = target_layer
        self.num_samples = whole_number("num_samples", num_samples, least=1)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, least=1)
        self.log_images = whole_number("log_images", log_images, least=0)
        self.chunk_size = whole_number("chunk_size", chunk_size, least=1)
        self.max_time_share = None if max_time_share is None else share_of_one("max_time_share", max_time_share)
        self.prog_bar = prog_bar
        self.prepare_batch = prepare_batch
        self.name = part_of_key(name)
        self._publisher = Publisher(self._plan, name=self.name, arrange=arrange_tensorboard)
        self.report: Report | None = None
        self.history: list[Report] = []
        self.standing: dict[str, float] = {}
        self._space: PixelSpace | None = make_pixel_space(mean, std)
        self._session: ProbeSession | None = None
        self._turns = Turns(self.every_n_epochs)
        self._clock = TrainingClock()
        self._affordable: int | None = None
        # 32 images need 0.3 MiB for maps of 7x7, and 5 MiB for 28x28.
        self._operators = TensorCache(max_bytes=64 * 2**20)
        self._told = False
        self._runs_in_stage = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a running trainer: Lightning hangs bound methods of the model on each callback."""
        kept = {key: value for key, value in vars(self).items() if key not in ("log", "log_dict")}
        return {**kept, "_session": None}

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint; the same for every setting but the name."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return as plain data, for checkpoints, what must not change when training is resumed."""
        space = None if self._space is None else {"mean": list(self._space.mean), "std": list(self._space.std)}
        return {
            "history": [dict(row) for row in self.history],
            "pixel_space": space,
            "seed": self._plan.seed,
            "affordable": self._affordable,
            "probed_epoch": self._turns.last,
            "standing": dict(self.standing),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the history of a checkpoint and what else must not change; older ones hold less."""
        self._affordable = state_dict.get("affordable")
        self._turns.last = state_dict.get("probed_epoch")
        self.standing = dict(state_dict.get("standing", {}))
        self.history = [dict(row) for row in state_dict.get("history", [])]
        space = state_dict.get("pixel_space")
        if self._space is None and space is not None:
            self._space = PixelSpace(tuple(space["mean"]), tuple(space["std"]))

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        """Refuse a wrong layer name before anything runs."""
        self._runs_in_stage = 0
        refuse_sharded(trainer.strategy)
        if trainer.world_size > 1:
            # Every process logs the same number, so there is nothing to synchronise, whatever Lightning recommends.
            told = rf"It is recommended to use `self\.log\('((val|test)_)?{re.escape(self.name)}_"
            warnings.filterwarnings("ignore", message=told)
        stale = monitors_of(trainer, f"_{self.name}_")
        if self.every_n_epochs > (trainer.check_val_every_n_epoch or 1) and stale and stage == "fit":
            warnings.warn(messages.stale_monitors(stale, self.every_n_epochs), UserWarning, stacklevel=2)
        if stage == "fit":
            # A fit begins anew; one that is resumed takes this up from its checkpoint later.
            self._turns.last, self.standing = None, {}
            self._publisher.begin(trainer)
        layers = self.target_layer if isinstance(self.target_layer, (list, tuple)) else [self.target_layer]
        for argument, name in (*(("target_layer", each) for each in layers), ("classifier", self.classifier)):
            # Modules built in `configure_model` do not exist yet; names are looked up again in each run.
            if isinstance(name, str) and not builds_modules_late(pl_module):
                layer_by_name(pl_module, name, argument=argument)

    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        """Say so if no image ever came."""
        stage = getattr(stage, "value", stage)
        # A resumed fit may end before it is its turn.
        found = self._runs_in_stage > 0 or (stage == "fit" and self._turns.last is not None)
        if stage in ("fit", "validate", "test") and not found:
            warnings.warn(messages.no_images(stage, self.name), UserWarning, stacklevel=2)

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Start the clock anew, as what passed since an earlier fit is no training; put a resumed fit's scores back.

        Monitors read them in epochs that are not probed, and some end the fit if they are not there.
        """
        standing = {key: torch.tensor(value, dtype=torch.float64) for key, value in self.standing.items()}
        trainer.callback_metrics.update(standing)
        self._turns.start(trainer.current_epoch)
        self._clock = TrainingClock()
        self._clock.start()

    def on_validation_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Begin a run, unless it is not due."""
        self._clock.stop()
        self._begin(trainer, pl_module, trainer.val_dataloaders)

    def on_test_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Begin a run."""
        self._begin(trainer, pl_module, trainer.test_dataloaders)

    def on_validation_batch_start(
        self, trainer: "Trainer", pl_module: "LightningModule", batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take images before the user's own step can change them."""
        last = is_last_batch(batch_idx, dataloader_idx, trainer.num_val_batches)
        self._take(trainer, batch, dataloader_idx, last=last)

    def on_test_batch_start(
        self, trainer: "Trainer", pl_module: "LightningModule", batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take images before the user's own step can change them."""
        last = is_last_batch(batch_idx, dataloader_idx, trainer.num_test_batches)
        self._take(trainer, batch, dataloader_idx, last=last)

    def on_validation_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Probe what is left, sum up and log; early enough for EarlyStopping and ModelCheckpoint."""
        self._finish(trainer, pl_module)

    def on_test_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Probe what is left, sum up and log."""
        self._finish(trainer, pl_module)

    def on_validation_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Write what is no scalar, after the numbers are out."""
        self._publish(trainer)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._clock.start()

    def on_test_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Write what is no scalar, after the numbers are out."""
        self._publish(trainer)

    def _begin(self, trainer: "Trainer", pl_module: "LightningModule", loaders: Any) -> None:
        self._session = None
        if validates_a_fit(trainer) and not self._turns.due(trainer.current_epoch):
            return
        loader = pick_loader(loaders, self.dataloader_idx)
        numbering = find_numbering(loader, rank=trainer.global_rank, world_size=trainer.world_size)
        self._session = ProbeSession(
            self._plan,
            pl_module,
            HeldOutImages(self._wanted(trainer), self.chunk_size, numbering),
            classifier=self.classifier,
            target_layer=self.target_layer,
            space=self._space,
            gallery_size=self.log_images if self._publisher.shows_pictures(trainer) else 0,
            forward_context=trainer.precision_plugin.forward_context,
            operators=self._operators,
            rank=trainer.global_rank,
            shared=trainer.world_size > 1,
        )

    def _wanted(self, trainer: "Trainer") -> int:
        limited = self.max_time_share is not None and trainer.state.fn == "fit"
        return min(self.num_samples, self._affordable) if limited and self._affordable else self.num_samples

    def _budget(self, trainer: "Trainer") -> TimeBudget | None:
        if self.max_time_share is None or self._affordable is not None or trainer.state.fn != "fit":
            return None
        return TimeBudget(self.max_time_share, self._clock.take() * self._turns.spans(trainer.current_epoch))

    def _take(self, trainer: "Trainer", batch: Any, dataloader_idx: int, *, last: bool) -> None:
        session = self._session
        if session is None or session.full or dataloader_idx != self.dataloader_idx:
            return
        images = find_images(batch, self.prepare_batch)
        if trainer.sanity_checking:
            session.rehearse(images)
            self._session = None
        else:
            session.take(images, last=last)

    def _finish(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        if self._session is None or trainer.sanity_checking:
            return
        budget = self._budget(trainer)
        found = self._session.finish(partial(gather_rows, trainer), budget=budget)
        if found is None:
            return
        if budget is not None:
            self._affordable = found["num_images"]
        self._runs_in_stage += 1
        self._space = self._session.space
        stage = "test" if trainer.testing else "val"
        self._tell_once(found, self._session)
        self.report = {"stage": stage, "epoch": trainer.current_epoch, "step": trainer.global_step, **found}
        self.history.append({key: value for key, value in self.report.items() if key not in TABLES})
        scores = self._publisher.log(pl_module, self.report, prog_bar=self.prog_bar)
        if validates_a_fit(trainer):
            self._turns.taken(trainer.current_epoch)
            self.standing.update(scores)

    def _tell_once(self, found: Report, session: ProbeSession) -> None:
        if session.agreed is not None:
            rank_zero_info(messages.within_budget(session.agreed, found["num_images"], session.num_found))
        if self._told:
            return
        self._told = True
        if self.target_layer is None:
            rank_zero_info(messages.chosen_layer(found["target_layer"].split(", "), session.map_size))
        if session.num_found < min(self.num_samples, self._affordable or self.num_samples):
            rank_zero_info(messages.fewer_images(session.num_found, self.num_samples))

    def _publish(self, trainer: "Trainer") -> None:
        session, self._session = self._session, None
        if session is not None and self.report is not None and not trainer.sanity_checking:
            self._publisher.publish(trainer, session, self.report)
